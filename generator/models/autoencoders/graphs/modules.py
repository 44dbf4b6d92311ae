"""The PyTorch module of each operation of a graph.

Rows do not depend on other rows: products of a whole batch are padded to whole tiles of rows (``ROW_TILE``), so that no
kernel treats the last rows differently; everything else is computed for each sample alone.

Legend: B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.models.autoencoders.graphs.operations import (
    Activation,
    Affine,
    Attention,
    Binary,
    Clamp,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Embedding,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    Operation,
    Pad,
    Permute,
    PixelNorm,
    PixelShuffle,
    PixelUnshuffle,
    Pool,
    PRelu,
    Reduce,
    Reshape,
    Resize,
    Scale,
    Slice,
    Softmax,
)
from generator.models.autoencoders.graphs.shapes import Shape

ROW_TILE = 64

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "selu": functional.selu,
    "mish": functional.mish,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": functional.hardsigmoid,
    "hard_silu": functional.hardswish,
    "erf": torch.erf,
    "exp": torch.exp,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "abs": torch.abs,
    "neg": torch.neg,
    "sin": torch.sin,
    "cos": torch.cos,
}
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "silu": lambda x: functional.silu(x, inplace=True),
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}


def to_module(node: Operation, shapes: tuple[Shape, ...], reusable: bool = False) -> nn.Module:
    """The module of ``node``, whose inputs have ``shapes``. Its parameters are those of ``node.tensors``.

    ``reusable``: its first input is not needed afterwards, and may be overwritten where no gradient is computed.
    """
    match node:
        case Conv():
            return nn.Conv2d(shapes[0][0], node.channels, **_conv_options(node))
        case ConvTranspose():
            options = _conv_options(node) | {"output_padding": node.output_padding}
            return nn.ConvTranspose2d(shapes[0][0], node.channels, **options)
        case Linear():
            return _TiledLinear(shapes[0][-1], node.features, node.bias)
        case GroupNorm():
            return nn.GroupNorm(node.groups, shapes[0][0], eps=node.eps, affine=node.affine)
        case LayerNorm():
            return nn.LayerNorm(shapes[0][len(shapes[0]) - node.axes :], eps=node.eps, elementwise_affine=node.affine)
        case PRelu():
            return nn.PReLU(shapes[0][0])
        case Affine():
            return _Affine(shapes[0])
        case Constant():
            return _Constant(node.shape)
        case Embedding():
            return nn.Embedding(node.classes, node.features)
        case _:
            return _Function(_function(node, reusable))


def _function(node: Operation, reusable: bool) -> Callable[..., Tensor]:  # one line an operation
    """The function of an operation without weights."""
    match node:
        case Activation():
            return _activation(node, reusable)
        case PixelNorm():
            return lambda x: x * torch.rsqrt(x.square().mean(node.axis + 1, keepdim=True) + node.eps)
        case Clamp():
            return lambda x: x.clamp(node.low, node.high)
        case Scale():
            return lambda x: x * node.factor + node.offset
        case Binary():
            return _binary(node, reusable)
        case Concat():
            return lambda *values: torch.cat(_same_batch(values), node.axis + 1)
        case Slice():
            return lambda x: x.narrow(node.axis + 1, node.start, node.end - node.start)
        case Reshape():
            return lambda x: x.reshape(len(x), *node.shape)
        case Permute():
            return lambda x: x.permute(0, *(axis + 1 for axis in node.axes))
        case Resize():
            options: dict[str, Any] = {"align_corners": False} if node.mode == "bilinear" else {}
            return lambda x: functional.interpolate(x, node.size, mode=node.mode, **options)
        case PixelShuffle():
            return lambda x: functional.pixel_shuffle(x, node.factor)
        case PixelUnshuffle():
            return lambda x: functional.pixel_unshuffle(x, node.factor)
        case Pool(kind="max"):
            return lambda x: functional.max_pool2d(x, node.kernel, node.stride, node.padding)
        case Pool():
            return lambda x: functional.avg_pool2d(x, node.kernel, node.stride, node.padding, count_include_pad=False)
        case Pad():
            (top, left), (bottom, right) = node.before, node.after
            value = node.value if node.mode == "constant" else None
            return lambda x: functional.pad(x, (left, right, top, bottom), mode=node.mode, value=value)
        case Reduce():
            axes = tuple(axis + 1 for axis in node.axes)
            reduce = torch.mean if node.op == "mean" else torch.sum
            return lambda x: reduce(x, axes, keepdim=node.keep)
        case Softmax():
            return lambda x: x.softmax(node.axis + 1)
        case MatMul():
            return torch.matmul
        case Attention():
            return _attention(node)
    raise TypeError(f"an operation without a module: {type(node).__name__}")


class _Function(nn.Module):
    """A function as a module, so that every node can be seen and measured."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *values: Tensor) -> Tensor:
        return self._function(*values)


class _TiledLinear(nn.Linear):
    """A linear layer whose rows are padded to a multiple of ``ROW_TILE``."""

    def __init__(self, before: int, after: int, bias: bool) -> None:
        super().__init__(before, after, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        padding = -len(rows) % ROW_TILE
        result = super().forward(functional.pad(rows, (0, 0, 0, padding)) if padding else rows)
        return result[: len(rows)].reshape(*x.shape[:-1], -1)


class _Affine(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(shape[0])), nn.Parameter(torch.zeros(shape[0]))
        self._view = (-1, *(1 for _ in shape[1:]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias.view(self._view), x, self.weight.view(self._view))


class _Constant(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        return self.value[None]


def _activation(node: Activation, reusable: bool) -> Callable[[Tensor], Tensor]:
    if node.function == "leaky_relu":
        return lambda x: functional.leaky_relu(x, node.slope, inplace=_may_overwrite(reusable))
    if node.function == "elu":
        return lambda x: functional.elu(x, node.slope)
    plain, in_place = _FUNCTIONS[node.function], _IN_PLACE.get(node.function)
    if in_place is None:
        return plain
    return lambda x: in_place(x) if _may_overwrite(reusable) else plain(x)


def _binary(node: Binary, reusable: bool) -> Callable[[Tensor, Tensor], Tensor]:
    function = _BINARY[node.op]
    if node.op != "add":
        return function
    return lambda x, y: x.add_(y) if _may_overwrite(reusable and x.shape == y.shape) else function(x, y)


def _attention(node: Attention) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def attend(*values: Tensor) -> Tensor:
        query, keys, parts = (value.view(*value.shape[:2], node.heads, -1).transpose(1, 2) for value in values)
        result = functional.scaled_dot_product_attention(query, keys, parts, scale=node.scale)
        return result.transpose(1, 2).flatten(2)

    return attend


def _may_overwrite(reusable: bool) -> bool:
    return reusable and not torch.is_grad_enabled()


def _same_batch(values: tuple[Tensor, ...]) -> list[Tensor]:
    batch = max(map(len, values))
    return [value.expand(batch, *value.shape[1:]) for value in values]


def _conv_options(node: Conv | ConvTranspose) -> dict[str, Any]:
    return {
        "kernel_size": node.kernel,
        "stride": node.stride,
        "padding": node.padding,
        "dilation": node.dilation,
        "groups": node.groups,
        "bias": node.bias,
    }
