"""Convolutions, products with weights, and normalisations of ONNX, as operations of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.operations import (
    Conv,
    ConvTranspose,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    Operation,
    Pad,
)
from generator.models.converters.onnx.arguments import convolution, merged_like, pair
from generator.models.converters.onnx.model import OnnxNode
from generator.models.converters.onnx.values import Values


def conv(values: Values, node: OnnxNode) -> str:
    x, weight = values.value(node), _image_weight(values, node)
    options, before, after = convolution(values, node, x, weight.shape[2:])
    if before != after:
        x, options["padding"] = values.builder.add(Pad, x, before=before, after=after), (0, 0)
    tensors = {"weight": weight} | _bias(values, node, 2)
    return values.builder.add(
        Conv, x, hint=node.name, tensors=tensors, channels=weight.shape[0], bias="bias" in tensors, **options
    )


def conv_transpose(values: Values, node: OnnxNode) -> str:
    x, weight = values.value(node), _image_weight(values, node)
    if "output_shape" in node.attributes:
        raise SpecError(node.where, "a transposed convolution without output_shape", "one with it")
    options, before, after = convolution(values, node, x, weight.shape[2:])
    if before != after:
        raise SpecError(node.where, "the same padding on both sides", f"{before} and {after}")
    options["output_padding"] = pair(node, node.attributes.get("output_padding", (0, 0)))
    tensors = {"weight": weight} | _bias(values, node, 2)
    channels = weight.shape[1] * options["groups"]
    return values.builder.add(
        ConvTranspose, x, hint=node.name, tensors=tensors, channels=channels, bias="bias" in tensors, **options
    )


def _image_weight(values: Values, node: OnnxNode) -> np.ndarray:
    if node.inputs[1:] and not values.is_known(node.inputs[1]):
        hint = "export a style-modulated convolution as scaled input, plain convolution and scaled output"
        raise SpecError(node.where, "constant weights", "weights computed from the network's input", hint)
    weight = values.constant(node, 1)
    if weight.ndim != 4 or weight.dtype.kind != "f":
        raise SpecError(node.where, "weights of 4 axes, as for images", f"{weight.dtype} with {weight.ndim} axes")
    return weight


def _bias(values: Values, node: OnnxNode, position: int) -> dict[str, np.ndarray]:
    bias = values.optional(node, position)
    return {} if bias is None else {"bias": bias}


def gemm(values: Values, node: OnnxNode) -> str:
    x, weight = values.value(node), values.constant(node, 1)
    if node.attributes.get("transA", 0) or values.rank(x) != 2 or weight.ndim != 2:
        raise SpecError(node.where, "a product of a sample's features with constant weights", "another one")
    weight = weight * float(node.attributes.get("alpha", 1.0))
    tensors = {"weight": weight if node.attributes.get("transB", 0) else weight.T}
    bias = values.optional(node, 2)
    if bias is not None:
        bias = bias * float(node.attributes.get("beta", 1.0))
        tensors["bias"] = np.broadcast_to(bias.reshape(-1), (len(tensors["weight"]),))
    features = len(tensors["weight"])
    return values.builder.add(Linear, x, hint=node.name, tensors=tensors, features=features, bias=bias is not None)


def matmul(values: Values, node: OnnxNode) -> str:
    if values.is_known(node.inputs[1]):
        x, weight = values.value(node), values.constant(node, 1)
        if weight.ndim != 2:
            raise SpecError(node.where, "a matrix of constant weights", f"an array of {weight.ndim} axes")
        tensors = {"weight": weight.T}
        return values.builder.add(Linear, x, hint=node.name, tensors=tensors, features=weight.shape[1], bias=False)
    x, y = (values.value(node, position, merged=True) for position in (0, 1))
    if (x in values.merged) != (y in values.merged):
        raise SpecError(node.where, "two inputs with the batch as their first axis", "one with batch and heads in it")
    return merged_like(values, x, values.builder.add(MatMul, x, y, hint=node.name))


def batch_norm(values: Values, node: OnnxNode) -> str:
    scale_C, bias_C, mean_C, variance_C = (values.constant(node, i).astype(np.float64) for i in range(1, 5))
    spread_C = variance_C + node.attributes.get("epsilon", 1e-5)
    if not spread_C.min(initial=1.0) > 0.0:
        raise SpecError(node.where, "variances of at least 0", float(variance_C.min()))
    factor_C = scale_C / np.sqrt(spread_C)
    return values.builder.affine(values.value(node), factor_C, bias_C - mean_C * factor_C)


def instance_norm(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    return _affine_norm(values, node, GroupNorm, x, groups=values.builder.shape(x)[0])


def group_norm(values: Values, node: OnnxNode) -> str:
    """In opset 18 scale and bias are given for each group, since 21 for each channel."""
    x, groups = values.value(node), node.attributes.get("num_groups", 1)
    channels = values.builder.shape(x)[0]
    tensors = {name: values.constant(node, i) for i, name in ((1, "weight"), (2, "bias"))}
    if all(tensor.shape == (groups,) for tensor in tensors.values()) and groups != channels and channels % groups == 0:
        tensors = {name: np.repeat(tensor, channels // groups) for name, tensor in tensors.items()}
    eps = node.attributes.get("epsilon", 1e-5)
    return values.builder.add(GroupNorm, x, hint=node.name, tensors=tensors, groups=groups, eps=eps)


def layer_norm(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    first = values.axis(node, node.attributes.get("axis", -1), x)
    shape, bias = values.builder.shape(x)[first:], values.optional(node, 2)
    weight = np.broadcast_to(values.constant(node, 1), shape)
    tensors = {"weight": weight, "bias": np.zeros(shape) if bias is None else np.broadcast_to(bias, shape)}
    eps = node.attributes.get("epsilon", 1e-5)
    return values.builder.add(LayerNorm, x, hint=node.name, tensors=tensors, axes=len(shape), eps=eps)


def _affine_norm(values: Values, node: OnnxNode, kind: type[Operation], x: str, **fields: Any) -> str:
    tensors = {name: values.constant(node, position) for position, name in ((1, "weight"), (2, "bias"))}
    eps = node.attributes.get("epsilon", 1e-5)
    return values.builder.add(kind, x, hint=node.name, tensors=tensors, eps=eps, **fields)
