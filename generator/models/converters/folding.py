"""Rules that join steps of a network: factors into weights, reshapings, and doubling before a convolution."""

from __future__ import annotations

import numpy as np

from generator.models.autoencoders.graphs.operations import (
    Affine,
    Binary,
    Constant,
    Conv,
    ConvTranspose,
    GroupNorm,
    Linear,
    Operation,
    Permute,
    Reshape,
    Resize,
    Scale,
)
from generator.models.converters.builder import Tensors
from generator.models.converters.rewriter import Replacement, Rewriter


def fold_affine(at: Rewriter, node: Operation) -> Replacement | None:
    """A convolution or linear layer followed by one factor and offset a channel: a batch norm, or a bias."""
    if not isinstance(node, Affine):
        return None
    factor_C, offset_C = (at.tensors(node)[name].astype(np.float64) for name in ("weight", "bias"))
    shape = at.shapes[node.inputs[0]]
    for kind, axis in ((Conv, 0), (ConvTranspose, 1), (Linear, 0)):
        layer = at.producer(node.inputs[0], kind)
        if layer is None or (isinstance(layer, Linear) and len(shape) != 1):
            continue
        if isinstance(layer, ConvTranspose) and layer.groups > 1:
            continue
        tensors = at.tensors(layer)
        view = [1] * tensors["weight"].ndim
        view[axis] = -1
        weight = tensors["weight"].astype(np.float64) * factor_C.reshape(view)
        bias = tensors.get("bias", np.zeros(len(offset_C))).astype(np.float64) * factor_C + offset_C
        folded = layer.model_copy(update={"name": node.name, "bias": True})
        return Replacement(folded, {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)})
    return None


def join_upsampling(at: Rewriter, node: Operation) -> Replacement | None:
    """An image of twice the size by ``nearest``, then a convolution of 3 x 3: one transposed convolution of 4 x 4 and
    stride 2, whose taps are sums of those that meet the same pixel; less than half of the multiplications."""
    if not isinstance(node, Conv) or (node.kernel, node.padding) != ((3, 3), (1, 1)) or node.groups != 1:
        return None
    resize = at.producer(node.inputs[0], Resize, mode="nearest")
    if resize is None or node.stride != (1, 1) or node.dilation != (1, 1):
        return None
    before, height, width = at.shapes[resize.inputs[0]]
    if resize.size != (2 * height, 2 * width):
        return None
    tensors = at.tensors(node)
    taps_UK = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=np.float64)
    weight = np.einsum("uk,vl,oikl->iouv", taps_UK, taps_UK, tensors["weight"].astype(np.float64), optimize=True)
    fields = {"name": node.name, "inputs": resize.inputs, "channels": node.channels, "bias": node.bias}
    grown = ConvTranspose.model_validate(fields | {"kernel": (4, 4), "stride": (2, 2), "padding": (1, 1)})
    assert weight.shape == (before, node.channels, 4, 4)
    return Replacement(grown, tensors | {"weight": weight.astype(np.float32)})


def fold_linear_bias(at: Rewriter, node: Operation) -> Replacement | None:
    """A product with a matrix, and a constant added along the last axis."""
    if not isinstance(node, Binary) or node.op != "add":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        layer, constant = at.producer(value, Linear, bias=False), at.any_producer(other, Constant)
        if layer is None or constant is None or constant.shape[:-1] != (1,) * (len(constant.shape) - 1):
            continue
        if constant.shape[-1] == layer.features:
            tensors = at.tensors(layer) | {"bias": at.tensors(constant)["value"].reshape(-1)}
            return Replacement(layer.model_copy(update={"name": node.name, "bias": True}), tensors)
    return None


def join_reshapes(at: Rewriter, node: Operation) -> Replacement | None:
    """A reshaping of a reshaped value, or to the same shape."""
    if not isinstance(node, Reshape):
        return None
    (x,) = node.inputs
    if at.shapes[x] == node.shape and not at.is_output(node.name):
        return Replacement(x, {})
    first = at.any_producer(x, Reshape)
    return None if first is None else Replacement(node.model_copy(update={"inputs": first.inputs}), {})


def join_affine(at: Rewriter, node: Operation) -> Replacement | None:
    """Two steps of a factor and an offset a channel."""
    if not isinstance(node, Affine):
        return None
    first = at.producer(node.inputs[0], Affine)
    if first is None:
        return None
    joined = node.model_copy(update={"inputs": first.inputs})
    return Replacement(joined, _joined(at.tensors(first), at.tensors(node)))


def join_scale(at: Rewriter, node: Operation) -> Replacement | None:
    """Two steps of one factor and one offset."""
    if not isinstance(node, Scale):
        return None
    first = at.producer(node.inputs[0], Scale)
    if first is None:
        return None
    factor, offset = first.factor * node.factor, first.offset * node.factor + node.offset
    return Replacement(node.model_copy(update={"inputs": first.inputs, "factor": factor, "offset": offset}), {})


def fold_norm_affine(at: Rewriter, node: Operation) -> Replacement | None:
    """A group norm followed by one factor and offset a channel."""
    if not isinstance(node, Affine):
        return None
    norm = at.producer(node.inputs[0], GroupNorm)
    if norm is None:
        return None
    tensors = _joined(at.tensors(norm), at.tensors(node)) if norm.affine else at.tensors(node)
    return Replacement(norm.model_copy(update={"name": node.name, "affine": True}), tensors)


def drop_unit_axis(at: Rewriter, node: Operation) -> Replacement | None:
    """(1, a, b) to (a, b) to (b, a) to (1, b, a): one order of axes."""
    if not isinstance(node, Reshape) or len(node.shape) != 3:
        return None
    swapped = at.producer(node.inputs[0], Permute, axes=(1, 0))
    flat = at.producer(swapped.inputs[0], Reshape) if swapped is not None else None
    if flat is None or at.shapes[flat.inputs[0]] != (1, *flat.shape) or node.shape != (1, *flat.shape[::-1]):
        return None
    return Replacement(Permute(name=node.name, inputs=flat.inputs, axes=(0, 2, 1)), {})


def _joined(first: Tensors, second: Tensors) -> Tensors:
    """Factor and offset of two steps after each other."""
    weight = first["weight"].astype(np.float64) * second["weight"]
    bias = first["bias"].astype(np.float64) * second["weight"] + second["bias"]
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
