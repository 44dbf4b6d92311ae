"""Operations that own tensors: layers, stored values, tables. Legend: see ``operation``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from generator.models.autoencoders.graphs.operation import (
    Count,
    Epsilon,
    Kernel,
    OneInput,
    Operation,
    Padding,
    Step,
    check_rank,
)
from generator.models.autoencoders.graphs.shapes import (
    MAX_RANK,
    Extent,
    Shape,
    check_image,
    show,
    window,
)


class Convolution(OneInput):
    """What both convolutions have. The first of each pair is vertical."""

    channels: Count
    kernel: tuple[Kernel, Kernel]
    stride: tuple[Step, Step] = (1, 1)
    padding: tuple[Padding, Padding] = (0, 0)
    dilation: tuple[Step, Step] = (1, 1)
    groups: Count = 1
    bias: bool = True


class Conv(Convolution):
    """``Conv2d`` with zero padding. The first of each pair is vertical."""

    op: Literal["conv"] = "conv"

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        _check_groups(shape, self.groups, self.channels)
        sides = zip(shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return (self.channels, *(window(*side) for side in sides))

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        (shape,) = inputs
        return {"weight": (self.channels, shape[0] // self.groups, *self.kernel)} | _bias(self.bias, self.channels)


class ConvTranspose(Convolution):
    """``ConvTranspose2d``."""

    op: Literal["conv_transpose"] = "conv_transpose"
    output_padding: tuple[Padding, Padding] = (0, 0)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        _check_groups(shape, self.groups, self.channels)
        limits = map(max, self.stride, self.dilation)
        if any(extra >= limit for extra, limit in zip(self.output_padding, limits, strict=True)):
            raise ValueError(f"an output_padding below stride or dilation, not {show(self.output_padding)}")
        sides = zip(shape[1:], self.kernel, self.stride, self.padding, self.output_padding, self.dilation, strict=True)
        grown = ((n - 1) * stride - 2 * pad + dilation * (kernel - 1) + extra + 1
                 for n, kernel, stride, pad, extra, dilation in sides)  # fmt: skip
        return (self.channels, *grown)

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        (shape,) = inputs
        return {"weight": (shape[0], self.channels // self.groups, *self.kernel)} | _bias(self.bias, self.channels)


class Linear(OneInput):
    """``Linear`` on the last axis."""

    op: Literal["linear"] = "linear"
    features: Annotated[int, Field(ge=1, le=2**22, strict=True)]
    bias: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_rank(shape)
        return (*shape[:-1], self.features)

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        (shape,) = inputs
        return {"weight": (self.features, shape[-1])} | _bias(self.bias, self.features)


class GroupNorm(OneInput):
    """``GroupNorm``; with as many groups as channels it is an instance norm. ``affine``: it has weight and bias."""

    op: Literal["group_norm"] = "group_norm"
    groups: Count
    eps: Epsilon = 1e-5
    affine: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_rank(shape)
        if shape[0] % self.groups:
            raise ValueError(f"groups that divide {shape[0]} channels, not {self.groups}")
        return shape

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        (shape,) = inputs
        return {"weight": shape[:1], "bias": shape[:1]} if self.affine else {}


class LayerNorm(OneInput):
    """``LayerNorm`` over the last ``axes`` axes. ``affine``: it has weight and bias."""

    op: Literal["layer_norm"] = "layer_norm"
    axes: Annotated[int, Field(ge=1, le=MAX_RANK, strict=True)] = 1
    eps: Epsilon = 1e-5
    affine: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if self.axes > len(shape):
            raise ValueError(f"at least {self.axes} axes, not {len(shape)}")
        return shape

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        (shape,) = inputs
        normalised = shape[len(shape) - self.axes :]
        return {"weight": normalised, "bias": normalised} if self.affine else {}


class PRelu(OneInput):
    """``PReLU`` with one slope a channel."""

    op: Literal["prelu"] = "prelu"

    def output_shape(self, *inputs: Shape) -> Shape:
        check_rank(inputs[0])
        return inputs[0]

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": inputs[0][:1]}


class Affine(OneInput):
    """x * weight + bias, with one number a channel: a batch norm, or one step of another normalisation."""

    op: Literal["affine"] = "affine"

    def output_shape(self, *inputs: Shape) -> Shape:
        check_rank(inputs[0])
        return inputs[0]

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": inputs[0][:1], "bias": inputs[0][:1]}


class Constant(Operation):
    """A stored value of ``shape``, with a batch of one."""

    op: Literal["constant"] = "constant"
    inputs: tuple[()] = ()
    shape: Annotated[tuple[Extent, ...], Field(max_length=MAX_RANK)]

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.shape

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        return {"value": self.shape}


class Embedding(OneInput):
    """``Embedding``: a row of ``features`` numbers for a class, from a table of ``classes`` rows."""

    op: Literal["embedding"] = "embedding"
    classes: Count
    features: Count

    def output_shape(self, *inputs: Shape) -> Shape:
        if inputs[0] != ():
            raise ValueError(f"a class number, not {show(inputs[0])}")
        return (self.features,)

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": (self.classes, self.features)}


def _bias(wanted: bool, channels: int) -> dict[str, Shape]:
    return {"bias": (channels,)} if wanted else {}


def _check_groups(shape: Shape, groups: int, channels: int) -> None:
    check_image(shape)
    if shape[0] % groups or channels % groups:
        raise ValueError(f"groups that divide {shape[0]} and {channels} channels, not {groups}")
