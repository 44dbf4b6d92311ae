"""The layers of an imported decoder. Importing this file does not import torch.

Legend: a shape is (features,) before an ``unflatten`` layer and (channels, height, width) after it; it starts as
(latent_dim,) and ends as (channels, height, width). Output sizes of convolutions are those of the PyTorch layers of the
same name.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from generator.models.autoencoders.image_config import ImageConfig
from generator.spec.canonical import FrozenModel

MAX_SIDE = 1024  # pixels
MAX_LAYERS = 200
MAX_WEIGHTS = 2**27  # of all layers
MAX_FEATURES = 2**24  # of one sample, after any layer

Shape = tuple[int, ...]
Side = Annotated[int, Field(ge=8, le=MAX_SIDE, strict=True)]
Count = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Kernel = Annotated[int, Field(ge=1, le=31, strict=True)]
Stride = Annotated[int, Field(ge=1, le=16, strict=True)]
Padding = Annotated[int, Field(ge=0, le=15, strict=True)]
Epsilon = Annotated[float, Field(gt=0.0, le=1.0)]


class Linear(FrozenModel):
    """``torch.nn.Linear`` to ``features``."""

    kind: Literal["linear"] = "linear"
    features: Annotated[int, Field(ge=1, le=2**20, strict=True)]
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        _check_flat(shape)
        return (self.features,)

    def count_weights(self, shape: Shape) -> int:
        return self.features * (shape[0] + 1)


class Conv(FrozenModel):
    """``torch.nn.Conv2d`` to ``channels``."""

    kind: Literal["conv"] = "conv"
    channels: Count
    kernel: Kernel
    stride: Stride = 1
    padding: Padding = 0
    bias: bool = True

    def output_shape(self, shape: Shape) -> Shape:
        _check_image(shape)
        return (self.channels, *((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in shape[1:]))

    def count_weights(self, shape: Shape) -> int:
        return self.channels * (shape[0] * self.kernel**2 + 1)


class ConvTranspose(FrozenModel):
    """``torch.nn.ConvTranspose2d`` to ``channels``."""

    kind: Literal["conv_transpose"] = "conv_transpose"
    channels: Count
    kernel: Kernel
    stride: Stride = 1
    padding: Padding = 0
    output_padding: Padding = 0
    bias: bool = True

    @model_validator(mode="after")
    def _check_output_padding(self) -> ConvTranspose:
        if self.output_padding >= self.stride > 0:
            raise ValueError(f"an output_padding below the stride of {self.stride}, not {self.output_padding}")
        return self

    def output_shape(self, shape: Shape) -> Shape:
        _check_image(shape)
        grown = self.kernel - 2 * self.padding + self.output_padding
        return (self.channels, *((side - 1) * self.stride + grown for side in shape[1:]))

    def count_weights(self, shape: Shape) -> int:
        return self.channels * (shape[0] * self.kernel**2 + 1)


class BatchNorm(FrozenModel):
    """``torch.nn.BatchNorm2d`` (of features ``BatchNorm1d``) with its running statistics."""

    kind: Literal["batch_norm"] = "batch_norm"
    eps: Epsilon = 1e-5

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def count_weights(self, shape: Shape) -> int:
        return 4 * shape[0]


class GroupNorm(FrozenModel):
    """``torch.nn.GroupNorm`` of ``groups``; with one group it is a layer norm over channels and pixels."""

    kind: Literal["group_norm"] = "group_norm"
    groups: Count
    eps: Epsilon = 1e-5

    def output_shape(self, shape: Shape) -> Shape:
        if shape[0] % self.groups:
            raise ValueError(f"groups that divide {shape[0]} channels, not {self.groups}")
        return shape

    def count_weights(self, shape: Shape) -> int:
        return 2 * shape[0]


class Unflatten(FrozenModel):
    """Reshape features to (``channels``, ``height``, ``width``)."""

    kind: Literal["unflatten"] = "unflatten"
    channels: Count
    height: Count
    width: Count

    def output_shape(self, shape: Shape) -> Shape:
        _check_flat(shape)
        output = (self.channels, self.height, self.width)
        if prod(output) != shape[0]:
            raise ValueError(f"channels x height x width = {shape[0]} features, not {prod(output)}")
        return output

    def count_weights(self, shape: Shape) -> int:
        return 0


class Upsample(FrozenModel):
    """``torch.nn.Upsample`` by ``factor``, ``nearest`` or ``bilinear`` (without aligned corners)."""

    kind: Literal["upsample"] = "upsample"
    factor: Stride = 2
    mode: Literal["nearest", "bilinear"] = "nearest"

    def output_shape(self, shape: Shape) -> Shape:
        _check_image(shape)
        return (shape[0], *(side * self.factor for side in shape[1:]))

    def count_weights(self, shape: Shape) -> int:
        return 0


class PixelShuffle(FrozenModel):
    """``torch.nn.PixelShuffle`` by ``factor``."""

    kind: Literal["pixel_shuffle"] = "pixel_shuffle"
    factor: Stride = 2

    def output_shape(self, shape: Shape) -> Shape:
        _check_image(shape)
        if shape[0] % self.factor**2:
            raise ValueError(f"a multiple of {self.factor**2} channels, not {shape[0]}")
        return (shape[0] // self.factor**2, *(side * self.factor for side in shape[1:]))

    def count_weights(self, shape: Shape) -> int:
        return 0


class Activation(FrozenModel):
    """An elementwise function, as in PyTorch. ``slope``: of ``leaky_relu`` below zero; ``gelu`` is the exact one."""

    kind: Literal["relu", "leaky_relu", "silu", "gelu", "elu", "softplus", "tanh", "sigmoid"]
    slope: float = Field(default=0.01, ge=0.0, le=1.0)

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def count_weights(self, shape: Shape) -> int:
        return 0


Layer = Annotated[
    Linear | Conv | ConvTranspose | BatchNorm | GroupNorm | Unflatten | Upsample | PixelShuffle | Activation,
    Field(discriminator="kind"),
]


class LayersConfig(ImageConfig):
    """A decoder of consecutive ``layers``. ``output``: the last layer gives logits (``sigmoid`` is applied), values in
    [0, 1] (``unit``), or values in [-1, 1] (``symmetric``)."""

    family: Literal["layers"] = "layers"
    size: Side
    image_width: Side | None = None
    channels: Literal[1, 3]
    latent_dim: Annotated[int, Field(ge=1, le=512, strict=True)]
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    output: Literal["sigmoid", "unit", "symmetric"] = "unit"

    @model_validator(mode="after")
    def _check_layers(self) -> LayersConfig:
        last = layer_shapes(self.latent_dim, self.layers)[-1]
        width, height = self.image_size
        if last != (self.channels, height, width):
            raise ValueError(f"layers that end in {(self.channels, height, width)}, not {last}")
        return self


def layer_shapes(latent_dim: int, layers: tuple[Layer, ...]) -> list[Shape]:
    """The shape before each layer and after the last. Raises ``ValueError`` naming the layer that does not fit."""
    shapes: list[Shape] = [(latent_dim,)]
    for number, layer in enumerate(layers):
        try:
            shape = layer.output_shape(shapes[-1])
            if min(shape) < 1 or prod(shape) > MAX_FEATURES:
                raise ValueError(f"1 to {MAX_FEATURES} numbers, not {' x '.join(map(str, shape))}")
        except ValueError as error:
            raise ValueError(f"in layer {number} ({layer.kind}): {error}") from None
        shapes.append(shape)
    total = sum(layer.count_weights(before) for layer, (before, _) in zip(layers, pairwise(shapes), strict=True))
    if total > MAX_WEIGHTS:
        raise ValueError(f"at most {MAX_WEIGHTS} weights in all, not {total}")
    return shapes


def _check_flat(shape: Shape) -> None:
    if len(shape) != 1:
        raise ValueError(f"features, not an image of {' x '.join(map(str, shape))}")


def _check_image(shape: Shape) -> None:
    if len(shape) != 3:
        raise ValueError(f"an image, not {shape[0]} features (an unflatten layer converts them)")
