"""Builds a graph node by node, with the shape of every value known at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from pydantic import ValidationError

from generator.errors import SpecError
from generator.models.autoencoders.graphs.graph import MAX_NODES, GraphInput, NetworkGraph
from generator.models.autoencoders.graphs.operations import (
    Activation,
    Affine,
    AnyOperation,
    Attention,
    Clamp,
    Concat,
    Constant,
    Conv,
    Linear,
    Operation,
    Pad,
    Permute,
    Reshape,
    Resize,
    Scale,
    Slice,
)
from generator.models.autoencoders.graphs.shapes import Shape, check_size
from generator.models.autoencoders.margins import Margins
from generator.models.converters.weights import Weights
from generator.spec.canonical import translate_error

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class BuiltGraph:
    """A graph, and its tensors, named as in ``GraphNetwork``."""

    graph: NetworkGraph
    tensors: Tensors


def name_tensors(of_nodes: Sequence[Tensors]) -> Tensors:
    """The tensors of the nodes of a graph under the names that ``GraphNetwork`` gives them."""
    named = (
        (f"graph.nodes.{number}.{name}", array) for number, own in enumerate(of_nodes) for name, array in own.items()
    )
    return dict(named)


@final
class GraphBuilder:
    """Adds operations in the order of computation. ``field``: how errors name the network."""

    def __init__(self, field: str, **inputs: Shape) -> None:
        self.field = field
        self._inputs, self._shapes = inputs, dict(inputs)
        self._nodes, self._tensors = list[AnyOperation](), list[Tensors]()

    def shape(self, name: str) -> Shape:
        """The shape of a value, without the batch."""
        return self._shapes[name]

    def add(
        self,
        operation: type[Operation],
        *inputs: str,
        hint: str = "",
        tensors: Mapping[str, np.ndarray] | None = None,
        **fields: Any,
    ) -> str:
        """Add an operation; returns the name of its value, which is made of ``hint``.

        Raises ``SpecError`` naming the node if the inputs or tensors do not fit.
        """
        name = self._new_name(hint or operation.__name__.lower())
        where = f"{self.field}.{hint or name}"
        try:
            node: Any = operation.model_validate({"name": name, "inputs": inputs} | fields)
            shapes = tuple(self._shapes[name] for name in inputs)
            shape = node.output_shape(*shapes)
            check_size(shape)
            wanted = node.tensors(*shapes)
        except ValidationError as invalid:
            raise translate_error(invalid, field=where, error=SpecError, known=tuple(operation.model_fields)) from None
        except ValueError as unfit:
            raise SpecError(
                where, str(unfit).partition(", not ")[0], str(unfit).partition(", not ")[2] or "others"
            ) from None
        given = dict(tensors or {})
        for tensor, expected in wanted.items():
            if given[tensor].shape != expected:
                raise SpecError(f"{where}.{tensor}", f"shape {expected}", str(given[tensor].shape))
        if len(self._nodes) >= MAX_NODES:
            raise SpecError(self.field, f"at most {MAX_NODES} operations", "more")
        self._shapes[name] = shape
        self._nodes.append(node)
        self._tensors.append({name: np.array(given[name], dtype=np.float32, order="C") for name in wanted})
        return name

    def conv(self, x: str, weights: Weights, prefix: str, *, stride: int = 1, padding: int | None = None) -> str:
        """A convolution of one stride with the tensors ``<prefix>.weight`` and, if there is one, ``<prefix>.bias``.

        ``padding``: by default such that a stride of 1 keeps the size.
        """
        if len(shape := weights.shape(f"{prefix}.weight")) != 4:
            raise SpecError(f"{self.field}.{prefix}.weight", "a convolution's tensor of 4 axes", str(shape))
        channels, _, height, width = shape
        pads = (height // 2, width // 2) if padding is None else (padding, padding)
        tensors = self._take(weights, prefix, (channels, self._shapes[x][0], height, width))
        return self.add(
            Conv,
            x,
            hint=prefix,
            tensors=tensors,
            channels=channels,
            kernel=(height, width),
            stride=(stride, stride),
            padding=pads,
            bias="bias" in tensors,
        )

    def linear(self, x: str, weights: Weights, prefix: str) -> str:
        """A linear layer with the tensors ``<prefix>.weight`` and, if there is one, ``<prefix>.bias``."""
        features = weights.shape(f"{prefix}.weight")[0]
        tensors = self._take(weights, prefix, (features, self._shapes[x][-1]))
        return self.add(Linear, x, hint=prefix, tensors=tensors, features=features, bias="bias" in tensors)

    def norm(self, operation: type[Operation], x: str, weights: Weights, prefix: str, **fields: Any) -> str:
        """A normalisation with the tensors ``<prefix>.weight`` and ``<prefix>.bias``."""
        tensors = {name: weights.take(f"{prefix}.{name}") for name in ("weight", "bias")}
        return self.add(operation, x, hint=prefix, tensors=tensors, **fields)

    def activation(self, x: str, function: str, **fields: Any) -> str:
        """An elementwise function."""
        return self.add(Activation, x, hint=function, function=function, **fields)

    def scale(self, x: str, factor: float = 1.0, offset: float = 0.0) -> str:
        """x * factor + offset; nothing is added where that changes nothing."""
        return x if (factor, offset) == (1.0, 0.0) else self.add(Scale, x, factor=factor, offset=offset)

    def clamp(self, x: str, low: float, high: float) -> str:
        """Values restricted to [low, high]."""
        return self.add(Clamp, x, low=low, high=high)

    def affine(self, x: str, factor_C: np.ndarray, offset_C: np.ndarray) -> str:
        """x * factor + offset with one number a channel; nothing is added where that changes nothing."""
        if (factor_C == 1.0).all() and (offset_C == 0.0).all():
            return x
        tensors = {"weight": factor_C.astype(np.float32), "bias": offset_C.astype(np.float32)}
        return self.add(Affine, x, tensors=tensors)

    def constant(self, value: np.ndarray) -> str:
        """A stored value, without the batch."""
        return self.add(Constant, tensors={"value": value.astype(np.float32)}, shape=value.shape)

    def reshape(self, x: str, *shape: int) -> str:
        """The same numbers in another shape; nothing is added for the same shape."""
        return x if self._shapes[x] == shape else self.add(Reshape, x, shape=shape)

    def permute(self, x: str, *axes: int) -> str:
        """The axes in another order; nothing is added for the same order."""
        return x if axes == tuple(range(len(axes))) else self.add(Permute, x, axes=axes)

    def upsample(self, x: str, factor: int, mode: str = "nearest") -> str:
        """An image ``factor`` times as large."""
        _, height, width = self._shapes[x]
        return self.add(Resize, x, size=(height * factor, width * factor), mode=mode)

    def extend(self, x: str, margins: Margins) -> str:
        """An image with margins, which repeat its border; nothing is added without any."""
        if margins.are_empty:
            return x
        before, after = (margins.top, margins.left), (margins.bottom, margins.right)
        return self.add(Pad, x, before=before, after=after, mode="replicate")

    def cut(self, x: str, margins: Margins) -> str:
        """An image without its margins; nothing is added without any."""
        _, *sides = self._shapes[x]
        for axis, side, (before, after) in zip((1, 2), sides, (margins[:2], margins[2:]), strict=True):
            if before or after:
                x = self.add(Slice, x, hint="cut", axis=axis, start=before, end=side - after)
        return x

    def concat(self, *values: str, axis: int) -> str:
        """Values side by side."""
        return self.add(Concat, *values, axis=axis)

    def attention(self, query: str, keys: str, values: str, *, heads: int, scale: float | None = None) -> str:
        """Scaled dot-product attention."""
        return self.add(Attention, query, keys, values, heads=heads, scale=scale)

    def finish(self, output: str) -> BuiltGraph:
        """The graph of the nodes that ``output`` depends on. Raises ``SpecError``."""
        needed, nodes, tensors = {output}, list[AnyOperation](), list[Tensors]()
        for node, own in zip(reversed(self._nodes), reversed(self._tensors), strict=True):
            if node.name in needed:
                needed.update(node.inputs)
                nodes.append(node)
                tensors.append(own)
        inputs = tuple(GraphInput(name=name, shape=shape) for name, shape in self._inputs.items())
        try:
            graph = NetworkGraph(inputs=inputs, nodes=tuple(reversed(nodes)), output=output)
        except ValidationError as invalid:
            raise translate_error(invalid, field=self.field, error=SpecError, known=("nodes",)) from None
        return BuiltGraph(graph, name_tensors(tensors[::-1]))

    def _take(self, weights: Weights, prefix: str, shape: Shape) -> Tensors:
        tensors = {"weight": weights.take(f"{prefix}.weight", shape)}
        if f"{prefix}.bias" in weights:
            tensors["bias"] = weights.take(f"{prefix}.bias", shape[:1])
        return tensors

    def _new_name(self, hint: str) -> str:
        """A name that is not used yet, such as ``mid_block_attentions_0_to_q``."""
        plain = re.sub(r"[^A-Za-z0-9_]", "_", hint)[-100:]
        name = base = plain if re.match(r"[A-Za-z_]", plain) else f"n{plain}"
        number = 2
        while name in self._shapes:
            name, number = f"{base}_{number}", number + 1
        return name
