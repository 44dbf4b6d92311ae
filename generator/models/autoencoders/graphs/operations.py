"""The operations of a graph: what each needs, gives, and which tensors it owns. Does not import torch.

Legend: shapes leave out the batch, which every value has as its first axis (a ``constant`` has a batch of one); axes
are counted from 0 without it. An image is (channels, height, width). Unless stated otherwise, operations are those of
PyTorch of the same name.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field

from generator.models.autoencoders.graphs.shapes import (
    MAX_RANK,
    Extent,
    Shape,
    broadcast,
    check_axes,
    check_image,
    show,
    window,
)
from generator.spec.canonical import FrozenModel

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,119}$")]
Count = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Kernel = Annotated[int, Field(ge=1, le=63, strict=True)]
Step = Annotated[int, Field(ge=1, le=64, strict=True)]
Padding = Annotated[int, Field(ge=0, le=63, strict=True)]
Axis = Annotated[int, Field(ge=0, lt=MAX_RANK, strict=True)]
Epsilon = Annotated[float, Field(ge=0.0, le=1.0)]

Function = Literal[
    "relu",
    "leaky_relu",
    "silu",
    "gelu",
    "gelu_tanh",
    "elu",
    "selu",
    "mish",
    "softplus",
    "tanh",
    "sigmoid",
    "hard_sigmoid",
    "hard_silu",
    "erf",
    "exp",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "square",
    "abs",
    "neg",
    "sin",
    "cos",
]


class Operation(FrozenModel):
    """One node: ``name`` of its value, and the names of its ``inputs`` (nodes before it, or inputs of the graph)."""

    name: Name
    inputs: tuple[Name, ...]

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the value. Raises ``ValueError``, which says what is expected, if the inputs do not fit."""
        raise NotImplementedError

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        """The shapes of the weights, by name."""
        return {}


class OneInput(Operation):
    """A node with one input."""

    inputs: tuple[Name]


class TwoInputs(Operation):
    """A node with two inputs."""

    inputs: tuple[Name, Name]


class Conv(OneInput):
    """``Conv2d`` with zero padding. The first of each pair is vertical."""

    op: Literal["conv"] = "conv"
    channels: Count
    kernel: tuple[Kernel, Kernel]
    stride: tuple[Step, Step] = (1, 1)
    padding: tuple[Padding, Padding] = (0, 0)
    dilation: tuple[Step, Step] = (1, 1)
    groups: Count = 1
    bias: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        _check_groups(shape, self.groups, self.channels)
        sides = zip(shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return (self.channels, *(window(*side) for side in sides))

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        (shape,) = inputs
        return {"weight": (self.channels, shape[0] // self.groups, *self.kernel)} | _bias(self.bias, self.channels)


class ConvTranspose(OneInput):
    """``ConvTranspose2d``."""

    op: Literal["conv_transpose"] = "conv_transpose"
    channels: Count
    kernel: tuple[Kernel, Kernel]
    stride: tuple[Step, Step] = (1, 1)
    padding: tuple[Padding, Padding] = (0, 0)
    output_padding: tuple[Padding, Padding] = (0, 0)
    dilation: tuple[Step, Step] = (1, 1)
    groups: Count = 1
    bias: bool = True

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
        _check_rank(shape)
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
        _check_rank(shape)
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


class PixelNorm(OneInput):
    """x / sqrt(mean of x^2 along ``axis`` + eps) (Karras et al., ICLR 2018; with a gain also known as RMSNorm)."""

    op: Literal["pixel_norm"] = "pixel_norm"
    axis: Axis = 0
    eps: Epsilon = 1e-8

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_axes((self.axis,), len(shape))
        return shape


class Activation(OneInput):
    """An elementwise ``function``. ``slope``: of ``leaky_relu`` below zero, alpha of ``elu``; of no other."""

    op: Literal["activation"] = "activation"
    function: Function
    slope: float = Field(default=0.01, ge=-10.0, le=10.0)

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


class PRelu(OneInput):
    """``PReLU`` with one slope a channel."""

    op: Literal["prelu"] = "prelu"

    def output_shape(self, *inputs: Shape) -> Shape:
        _check_rank(inputs[0])
        return inputs[0]

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": inputs[0][:1]}


class Clamp(OneInput):
    """Restricts values to [low, high]; a bound may be missing."""

    op: Literal["clamp"] = "clamp"
    low: float | None = None
    high: float | None = None

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


class Scale(OneInput):
    """x * factor + offset, with two numbers."""

    op: Literal["scale"] = "scale"
    factor: float = 1.0
    offset: float = 0.0

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


class Affine(OneInput):
    """x * weight + bias, with one number a channel: a batch norm, or one step of another normalisation."""

    op: Literal["affine"] = "affine"

    def output_shape(self, *inputs: Shape) -> Shape:
        _check_rank(inputs[0])
        return inputs[0]

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": inputs[0][:1], "bias": inputs[0][:1]}


class Binary(TwoInputs):
    """An elementwise operation on two values of one rank, which are broadcast."""

    op: Literal["add", "sub", "mul", "div", "maximum", "minimum"]

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(*inputs)


class Constant(Operation):
    """A stored value of ``shape``, with a batch of one."""

    op: Literal["constant"] = "constant"
    inputs: tuple[()] = ()
    shape: Annotated[tuple[Extent, ...], Field(max_length=MAX_RANK)]

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.shape

    def tensors(self, *inputs: Shape) -> dict[str, Shape]:
        return {"value": self.shape}


class Concat(Operation):
    """Values side by side along ``axis``."""

    op: Literal["concat"] = "concat"
    inputs: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    axis: Axis

    def output_shape(self, *inputs: Shape) -> Shape:
        first, axis = inputs[0], self.axis
        check_axes((axis,), len(first))
        for other in inputs[1:]:
            if len(other) != len(first) or other[:axis] + other[axis + 1 :] != first[:axis] + first[axis + 1 :]:
                raise ValueError(f"shapes that agree outside axis {axis}, not {show(first)} and {show(other)}")
        return (*first[:axis], sum(shape[axis] for shape in inputs), *first[axis + 1 :])


class Slice(OneInput):
    """The entries ``start`` <= index < ``end`` along ``axis``."""

    op: Literal["slice"] = "slice"
    axis: Axis
    start: Annotated[int, Field(ge=0, strict=True)]
    end: Annotated[int, Field(ge=1, strict=True)]

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_axes((self.axis,), len(shape))
        if not self.start < self.end <= shape[self.axis]:
            raise ValueError(f"a range within 0 to {shape[self.axis]}, not {self.start} to {self.end}")
        return (*shape[: self.axis], self.end - self.start, *shape[self.axis + 1 :])


class Reshape(OneInput):
    """The same numbers, in row-major order, in another ``shape``."""

    op: Literal["reshape"] = "reshape"
    shape: Annotated[tuple[Extent, ...], Field(max_length=MAX_RANK)]

    def output_shape(self, *inputs: Shape) -> Shape:
        if prod(self.shape) != prod(inputs[0]):
            raise ValueError(f"a shape of {prod(inputs[0])} numbers, not {show(self.shape)}")
        return self.shape


class Permute(OneInput):
    """Axes in another order."""

    op: Literal["permute"] = "permute"
    axes: Annotated[tuple[Axis, ...], Field(min_length=1, max_length=MAX_RANK)]

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_axes(self.axes, len(shape))
        if len(self.axes) != len(shape):
            raise ValueError(f"an order of {len(shape)} axes, not {len(self.axes)}")
        return tuple(shape[axis] for axis in self.axes)


class Resize(OneInput):
    """An image of ``size`` (height, width) by ``interpolate``: ``nearest``, or ``bilinear`` without aligned corners."""

    op: Literal["resize"] = "resize"
    size: tuple[Count, Count]
    mode: Literal["nearest", "bilinear"] = "nearest"

    def output_shape(self, *inputs: Shape) -> Shape:
        check_image(inputs[0])
        return (inputs[0][0], *self.size)


class PixelShuffle(OneInput):
    """``PixelShuffle`` by ``factor``."""

    op: Literal["pixel_shuffle"] = "pixel_shuffle"
    factor: Step

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_image(shape)
        if shape[0] % self.factor**2:
            raise ValueError(f"a multiple of {self.factor**2} channels, not {shape[0]}")
        return (shape[0] // self.factor**2, shape[1] * self.factor, shape[2] * self.factor)


class PixelUnshuffle(OneInput):
    """``PixelUnshuffle`` by ``factor``."""

    op: Literal["pixel_unshuffle"] = "pixel_unshuffle"
    factor: Step

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_image(shape)
        if shape[1] % self.factor or shape[2] % self.factor:
            raise ValueError(f"sides that are multiples of {self.factor}, not {show(shape[1:])}")
        return (shape[0] * self.factor**2, shape[1] // self.factor, shape[2] // self.factor)


class Pool(OneInput):
    """``MaxPool2d`` or ``AvgPool2d``, the latter without the padding in its means."""

    op: Literal["pool"] = "pool"
    kind: Literal["max", "average"]
    kernel: tuple[Kernel, Kernel]
    stride: tuple[Step, Step]
    padding: tuple[Padding, Padding] = (0, 0)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_image(shape)
        if any(2 * padding > kernel for padding, kernel in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"a padding of at most half the kernel, not {show(self.padding)}")
        sides = zip(shape[1:], self.kernel, self.stride, self.padding, strict=True)
        return (shape[0], *(window(*side) for side in sides))


class Pad(OneInput):
    """An image with more rows or columns: ``before`` and ``after`` (vertical, horizontal), by ``pad``'s modes."""

    op: Literal["pad"] = "pad"
    before: tuple[Padding, Padding]
    after: tuple[Padding, Padding]
    mode: Literal["constant", "reflect", "replicate"] = "constant"
    value: float = 0.0

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_image(shape)
        if self.mode == "reflect" and any(
            max(pads) >= side for side, *pads in zip(shape[1:], self.before, self.after, strict=True)
        ):
            raise ValueError("reflected borders that are smaller than the image")
        return (shape[0], *(n + a + b for n, a, b in zip(shape[1:], self.before, self.after, strict=True)))


class Reduce(OneInput):
    """Mean or sum over ``axes``, which stay with one entry if ``keep``."""

    op: Literal["mean", "sum"]
    axes: Annotated[tuple[Axis, ...], Field(min_length=1, max_length=MAX_RANK)]
    keep: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        check_axes(self.axes, len(shape))
        kept = [1 if axis in self.axes else side for axis, side in enumerate(shape)]
        return tuple(kept) if self.keep else tuple(s for axis, s in enumerate(shape) if axis not in self.axes)


class Softmax(OneInput):
    """``softmax`` along ``axis``."""

    op: Literal["softmax"] = "softmax"
    axis: Axis

    def output_shape(self, *inputs: Shape) -> Shape:
        check_axes((self.axis,), len(inputs[0]))
        return inputs[0]


class MatMul(TwoInputs):
    """The product of matrices in the last two axes; axes before them are broadcast."""

    op: Literal["matmul"] = "matmul"

    def output_shape(self, *inputs: Shape) -> Shape:
        left, right = inputs
        if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
            raise ValueError(f"matrices that fit, not {show(left)} and {show(right)}")
        return (*broadcast(left[:-2], right[:-2]), left[-2], right[-1])


class Attention(Operation):
    """Scaled dot-product attention with ``heads``: query, keys and values are (positions, features).

    ``scale``: factor of the products; by default 1 / sqrt(features of a head).
    """

    op: Literal["attention"] = "attention"
    inputs: tuple[Name, Name, Name]
    heads: Annotated[int, Field(ge=1, le=1024, strict=True)] = 1
    scale: float | None = Field(default=None, gt=0.0, le=1000.0)

    def output_shape(self, *inputs: Shape) -> Shape:
        query, keys, values = inputs
        if not len(query) == len(keys) == len(values) == 2:
            raise ValueError("three matrices (positions, features)")
        if query[1] != keys[1] or keys[0] != values[0]:
            raise ValueError(f"matrices that fit, not {show(query)}, {show(keys)} and {show(values)}")
        if query[1] % self.heads or values[1] % self.heads:
            raise ValueError(f"features that {self.heads} heads divide, not {query[1]} and {values[1]}")
        return (query[0], values[1])


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


AnyOperation = Annotated[
    Conv
    | ConvTranspose
    | Linear
    | GroupNorm
    | LayerNorm
    | PixelNorm
    | Activation
    | PRelu
    | Clamp
    | Scale
    | Affine
    | Binary
    | Constant
    | Concat
    | Slice
    | Reshape
    | Permute
    | Resize
    | PixelShuffle
    | PixelUnshuffle
    | Pool
    | Pad
    | Reduce
    | Softmax
    | MatMul
    | Attention
    | Embedding,
    Field(discriminator="op"),
]


def operation_fields(operation: Operation) -> dict[str, Any]:
    """The fields of an operation besides its name and inputs."""
    return operation.model_dump(exclude={"name", "inputs", "op"})


def _bias(wanted: bool, channels: int) -> dict[str, Shape]:
    return {"bias": (channels,)} if wanted else {}


def _check_rank(shape: Shape) -> None:
    if not shape:
        raise ValueError("a value with at least one axis, not a single number")


def _check_groups(shape: Shape, groups: int, channels: int) -> None:
    check_image(shape)
    if shape[0] % groups or channels % groups:
        raise ValueError(f"groups that divide {shape[0]} and {channels} channels, not {groups}")
