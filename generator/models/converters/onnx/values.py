"""The values of an ONNX model while it is converted: known arrays, and values of the graph that is built.

Legend: a value of the graph has the batch as its first axis in ONNX, which its shape in the builder leaves out. Shape
computations see ``BATCH`` in its place, a number that no real side has, so that it is recognised after arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.operations import Activation, Binary
from generator.models.converters.builder import GraphBuilder
from generator.models.converters.onnx.model import OnnxNode

BATCH = 1_000_003  # prime


@final
class Values:
    """Values by name: known arrays, names in ``builder``, and the label (class numbers)."""

    def __init__(self, builder: GraphBuilder, constants: dict[str, np.ndarray]) -> None:
        self.builder, self.constants = builder, constants
        self.graph = dict[str, str]()  # names in the model -> names in the builder
        self.labels = set[str]()  # names in the model of the class numbers
        self.merged = set[str]()  # names in the builder whose first axis is merged with the batch in the model
        self.fixed_batch: int | None = None
        self.folded = 0  # numbers in constants that were computed

    def optional(self, node: OnnxNode, position: int) -> np.ndarray | None:
        """A known input, or ``None`` if it is left out. Raises ``SpecError`` if it is computed from the input."""
        if position >= len(node.inputs) or not node.inputs[position]:
            return None
        name = node.inputs[position]
        if name not in self.constants:
            raise SpecError(node.where, f"a constant as input {position}", "one computed from the network's input")
        return self.constants[name]

    def constant(self, node: OnnxNode, position: int) -> np.ndarray:
        """A known input. Raises ``SpecError`` if there is none."""
        value = self.optional(node, position)
        if value is None:
            raise SpecError(node.where, f"an input {position}", "none")
        return value

    def integers(self, node: OnnxNode, position: int) -> tuple[int, ...]:
        """A known input of integers."""
        return tuple(int(number) for number in self.constant(node, position).reshape(-1))

    def value(self, node: OnnxNode, position: int = 0, *, merged: bool = False) -> str:
        """A value of the graph; a known array becomes one. Raises ``SpecError`` for class numbers.

        ``merged``: its first axis may be merged with the batch, as the heads of an attention often are.
        """
        name = node.inputs[position] if position < len(node.inputs) else ""
        if name in self.graph:
            if self.graph[name] in self.merged and not merged:
                raise SpecError(node.where, "an input with the batch as its first axis", "batch and heads in one axis")
            return self.graph[name]
        if name in self.constants:
            return self.builder.constant(self._without_batch(node, self.constants[name]))
        got = "class numbers" if name in self.labels else "nothing"
        raise SpecError(node.where, f"floats as input {position}", got)

    def is_known(self, name: str) -> bool:
        return not name or name in self.constants

    def rank(self, value: str) -> int:
        """The rank of a value in ONNX, with the batch."""
        return len(self.builder.shape(value)) + (value not in self.merged)

    def axis(self, node: OnnxNode, axis: int, value: str) -> int:
        """An axis of ONNX as one of the graph. Raises ``SpecError`` for the batch."""
        rank = self.rank(value)
        axis = axis + rank if axis < 0 else axis
        if axis == 0:
            raise SpecError(node.where, "an operation inside a sample", "one across the batch (axis 0)")
        if not 0 < axis < rank:
            raise SpecError(node.where, f"an axis from 1 to {rank - 1}", axis)
        return axis - (value not in self.merged)

    def is_batch(self, side: int) -> bool:
        """Whether a side in a known shape stands for the batch."""
        return side == BATCH or (self.fixed_batch is not None and side == self.fixed_batch)

    def combine(self, node: OnnxNode, op: str, left: int = 0, right: int = 1) -> str:
        """An elementwise operation on two inputs, with the broadcasting of numpy."""
        names = node.inputs[left], node.inputs[right]
        if self.is_known(names[1]):
            if self.graph[names[0]] in self.merged and self.constant(node, right).size == 1:
                result = self._with_number(
                    node, op, self.graph[names[0]], float(self.constant(node, right).reshape(-1)[0]), flipped=False
                )
                self.merged.add(result)
                return result
            return self._with_constant(node, op, self.value(node, left), self.constant(node, right), flipped=False)
        if self.is_known(names[0]):
            return self._with_constant(node, op, self.value(node, right), self.constant(node, left), flipped=True)
        x, y = self.value(node, left), self.value(node, right)
        if self.rank(x) != self.rank(y):
            raise SpecError(node.where, "values of one rank", f"{self.rank(x)} and {self.rank(y)} axes")
        return self.builder.add(Binary, x, y, hint=node.name, op=op)

    def _with_constant(self, node: OnnxNode, op: str, x: str, array: np.ndarray, *, flipped: bool) -> str:
        builder = self.builder
        if array.size == 1 and array.ndim <= self.rank(x) and op in ("add", "sub", "mul", "div"):
            return self._with_number(node, op, x, float(array.reshape(-1)[0]), flipped=flipped)
        array = self._for_one_sample(array, x)
        shape = self._aligned(node, array, x)
        per_channel = len(shape) > 0 and shape[0] == builder.shape(x)[0] and set(shape[1:]) <= {1}
        if per_channel and op in ("add", "sub", "mul", "div") and not (flipped and op in ("sub", "div")):
            array_C = array.reshape(-1).astype(np.float64)
            ones, zeros = np.ones_like(array_C), np.zeros_like(array_C)
            factor, offset = {
                "add": (ones, array_C),
                "sub": (ones, -array_C),
                "mul": (array_C, zeros),
                "div": (1.0 / np.where(array_C == 0, np.nan, array_C), zeros),
            }[op]
            if not np.isfinite(factor).all():
                raise SpecError(node.where, "a divisor without zeros", "0")
            return builder.affine(x, factor, offset)
        other = builder.constant(array.reshape(shape))
        names = (other, x) if flipped else (x, other)
        return builder.add(Binary, *names, hint=node.name, op=op)

    def _with_number(self, node: OnnxNode, op: str, x: str, number: float, *, flipped: bool) -> str:
        if op == "add":
            return self.builder.scale(x, 1.0, number)
        if op == "mul":
            return self.builder.scale(x, number)
        if op == "sub":
            return self.builder.scale(x, -1.0, number) if flipped else self.builder.scale(x, 1.0, -number)
        if flipped:
            return self.builder.scale(self.builder.add(Activation, x, function="reciprocal"), number)
        if number == 0.0:
            raise SpecError(node.where, "a divisor other than 0", "0")
        return self.builder.scale(x, 1.0 / number)

    def _aligned(self, node: OnnxNode, array: np.ndarray, x: str) -> tuple[int, ...]:
        """The shape of an array beside ``x``, without the batch and with as many axes."""
        shape, rank = array.shape, self.rank(x)
        if len(shape) > rank or (len(shape) == rank and shape[0] != 1):
            got = " x ".join(map(str, shape[:8]))
            raise SpecError(node.where, "a constant that is the same for every sample", got)
        shape = shape[1:] if len(shape) == rank else shape
        return (*(1 for _ in range(rank - 1 - len(shape))), *shape)

    def _for_one_sample(self, array: np.ndarray, x: str) -> np.ndarray:
        """A constant along the batch, if its samples are equal, for one sample; any other unchanged."""
        if array.ndim == self.rank(x) and len(array) > 1 and (array == array[:1]).all():
            return array[:1]
        return array

    def _without_batch(self, node: OnnxNode, array: np.ndarray) -> np.ndarray:
        """A known array as a value of the graph: its first axis must be the batch, with equal samples."""
        if array.dtype.kind != "f" or array.ndim < 1:
            raise SpecError(node.where, "an array of floats with a batch", f"{array.dtype} with {array.ndim} axes")
        if len(array) != 1 and not (array == array[:1]).all():
            raise SpecError(node.where, "a constant that is the same for every sample", f"{len(array)} different ones")
        first: np.ndarray = array[0]
        return first


# says a node in operations of the graph; gives the name of its value, or of each of its outputs
Handler = Callable[[Values, OnnxNode], str | list[str]]
