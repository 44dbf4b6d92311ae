"""Activations and arithmetic of ONNX, as operations of a graph."""

from __future__ import annotations

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.operations import (
    Clamp,
    PRelu,
)
from generator.models.converters.onnx.model import OnnxNode
from generator.models.converters.onnx.values import Handler, Values


def function(name: str) -> Handler:
    return lambda values, node: values.builder.activation(values.value(node), name)


def leaky_relu(values: Values, node: OnnxNode) -> str:
    return values.builder.activation(values.value(node), "leaky_relu", slope=node.attributes.get("alpha", 0.01))


def elu(values: Values, node: OnnxNode) -> str:
    return values.builder.activation(values.value(node), "elu", slope=node.attributes.get("alpha", 1.0))


def gelu(values: Values, node: OnnxNode) -> str:
    tanh = node.attributes.get("approximate", "none") == "tanh"
    return values.builder.activation(values.value(node), "gelu_tanh" if tanh else "gelu")


def hard_sigmoid(values: Values, node: OnnxNode) -> str:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return values.builder.clamp(values.builder.scale(values.value(node), alpha, beta), 0.0, 1.0)


def swish(values: Values, node: OnnxNode) -> str:
    if node.attributes.get("alpha", 1.0) != 1.0:
        raise SpecError(f"{node.where}.alpha", "1", node.attributes["alpha"])
    return values.builder.activation(values.value(node), "silu")


def prelu(values: Values, node: OnnxNode) -> str:
    x, slope = values.value(node), values.constant(node, 1).reshape(-1)
    slope_C = np.broadcast_to(slope, values.builder.shape(x)[:1]) if len(slope) == 1 else slope
    return values.builder.add(PRelu, x, hint=node.name, tensors={"weight": slope_C})


def clip(values: Values, node: OnnxNode) -> str:
    bounds = [values.optional(node, position) for position in (1, 2)]
    low, high = (None if bound is None else float(bound.reshape(())) for bound in bounds)
    return values.builder.add(Clamp, values.value(node), hint=node.name, low=low, high=high)


def power(values: Values, node: OnnxNode) -> str:
    exponent = values.constant(node, 1)
    functions = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    number = float(exponent.reshape(-1)[0]) if exponent.size == 1 else float("nan")
    if number == 1.0:
        return values.value(node)
    if number not in functions:
        raise SpecError(node.where, "an exponent of 2, 1, 0.5, -0.5 or -1", number)
    return values.builder.activation(values.value(node), functions[number])


def binary(op: str) -> Handler:
    def apply(values: Values, node: OnnxNode) -> str:
        if len(node.inputs) != 2:
            raise SpecError(node.where, "two inputs", len(node.inputs))
        return values.combine(node, op)

    return apply


def identity(values: Values, node: OnnxNode) -> str:
    return values.value(node)
