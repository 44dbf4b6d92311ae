"""The PyTorch module of each operation of a graph.

Rows do not depend on other rows, nor on their place in the batch. Kernels treat the last rows, columns or numbers of a
tensor differently, and those at other addresses; so products are padded to whole tiles of rows (``ROW_TILE``) and
columns (``COLUMN_TILE``), and elementwise functions that are approximated to whole vectors (``VECTOR``), for one thread
or two. Everything else is computed for each sample alone.

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

ROW_TILE, COLUMN_TILE, VECTOR = 64, 16, 64
_EXACT = ("relu", "square", "abs", "neg", "sqrt", "reciprocal")  # the same in every lane of a vector

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
            return _matmul
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
    """A linear layer whose rows are padded to a multiple of ``ROW_TILE``, and whose input to one of ``COLUMN_TILE``."""

    def __init__(self, before: int, after: int, bias: bool) -> None:
        super().__init__(before, after, bias=bias)
        self._columns = -before % COLUMN_TILE

    def forward(self, x: Tensor) -> Tensor:
        rows, weight = x.reshape(-1, x.shape[-1]), self.weight
        padding = (0, self._columns, 0, -len(rows) % ROW_TILE)
        if any(padding):
            count, rows = len(rows), functional.pad(rows, padding)
            weight = functional.pad(weight, padding[:2]) if self._columns else weight
            return functional.linear(rows, weight, self.bias)[:count].reshape(*x.shape[:-1], -1)
        return functional.linear(rows, weight, self.bias).reshape(*x.shape[:-1], -1)


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
    if node.function in _EXACT or node.function == "leaky_relu":
        return _plain_activation(node, reusable)
    function = _plain_activation(node, reusable)

    def whole_vectors(x: Tensor) -> Tensor:
        if x.numel() % VECTOR == 0:
            return function(x)
        flat = functional.pad(x.reshape(-1), (0, -x.numel() % VECTOR))
        return function(flat)[: x.numel()].view(x.shape)

    return whole_vectors


def _plain_activation(node: Activation, reusable: bool) -> Callable[[Tensor], Tensor]:
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


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    columns, inner = y.shape[-1], -x.shape[-1] % COLUMN_TILE
    padded = functional.pad(y, (0, -columns % COLUMN_TILE, 0, inner))
    return torch.matmul(functional.pad(x, (0, inner)), padded)[..., :columns]


def _attention(node: Attention) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def attend(*values: Tensor) -> Tensor:
        heads = [value.view(*value.shape[:2], node.heads, -1).transpose(1, 2) for value in values]
        features, kept = heads[0].shape[-1], heads[2].shape[-1]
        query, keys, parts = (functional.pad(each, (0, -each.shape[-1] % COLUMN_TILE)) for each in heads)
        scale = features**-0.5 if node.scale is None else node.scale
        result = functional.scaled_dot_product_attention(query, keys, parts, scale=scale)
        return result[..., :kept].transpose(1, 2).flatten(2)

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
