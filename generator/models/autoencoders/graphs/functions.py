"""Operations without tensors: functions of their inputs alone. Legend: see ``operation``."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import Field

from generator.models.autoencoders.graphs.operation import (
    Axis,
    Count,
    Epsilon,
    Kernel,
    Name,
    OneInput,
    Operation,
    Padding,
    Step,
    TwoInputs,
)
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


class Binary(TwoInputs):
    """An elementwise operation on two values of one rank, which are broadcast."""

    op: Literal["add", "sub", "mul", "div", "maximum", "minimum"]

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(*inputs)


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
