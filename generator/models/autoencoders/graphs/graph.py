"""A network as data: a list of operations, each with its inputs by name. Importing this file does not import torch.

Every value is assigned once, before it is used; nothing in a graph can be executed, nor refer to anything outside it.
"""

from __future__ import annotations

from math import prod
from typing import Annotated

from pydantic import Field, model_validator

from generator.models.autoencoders.graphs.operations import AnyOperation, Conv, ConvTranspose, Linear, Name
from generator.models.autoencoders.graphs.shapes import Shape, check_size, show
from generator.spec.canonical import FrozenModel

MAX_NODES = 5000
MAX_WEIGHTS = 2**28  # of a graph
MAX_LIVE_FEATURES = 2**28  # numbers that are needed at one time, for one sample
LABEL = "label"  # the input of class numbers, int64


class GraphInput(FrozenModel):
    """An input of a graph, and its shape for one sample (``()`` for ``label``)."""

    name: Name
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=2**24, strict=True)], ...], Field(max_length=3)]


class NetworkGraph(FrozenModel):
    """``nodes`` in the order of computation; ``output``: the name of the value that the network gives."""

    inputs: Annotated[tuple[GraphInput, ...], Field(min_length=1, max_length=2)]
    nodes: Annotated[tuple[AnyOperation, ...], Field(min_length=1, max_length=MAX_NODES)]
    output: Name

    @model_validator(mode="after")
    def _check(self) -> NetworkGraph:
        shapes = self.shapes()
        if self.output not in shapes:
            raise ValueError(f"an output that is the name of a node, not {self.output}")
        weights = sum(prod(shape) for node in self.tensor_shapes().values() for shape in node.values())
        if weights > MAX_WEIGHTS:
            raise ValueError(f"at most {MAX_WEIGHTS} weights in all, not {weights}")
        if (live := self.live_features()) > MAX_LIVE_FEATURES:
            raise ValueError(f"at most {MAX_LIVE_FEATURES} numbers at one time for one sample, not {live}")
        return self

    def shapes(self) -> dict[str, Shape]:
        """The shape of every input and value. Raises ``ValueError`` naming the node that does not fit."""
        found: dict[str, Shape] = {entry.name: entry.shape for entry in self.inputs}
        if len(found) < len(self.inputs):
            raise ValueError("inputs with distinct names")
        for node in self.nodes:
            if node.name in found:
                raise ValueError(f"names that are used once; {node.name} is used again")
            if missing := [name for name in node.inputs if name not in found]:
                raise ValueError(f"inputs of node {node.name} ({node.op}) that come before it; {missing[0]} does not")
            try:
                shape = node.output_shape(*(found[name] for name in node.inputs))
                check_size(shape)
            except ValueError as error:
                raise ValueError(f"in node {node.name} ({node.op}): {error}") from None
            found[node.name] = shape
        return found

    def tensor_shapes(self) -> dict[str, dict[str, Shape]]:
        """The shapes of the weights of every node that has some."""
        shapes = self.shapes()
        tensors = {node.name: node.tensors(*(shapes[name] for name in node.inputs)) for node in self.nodes}
        return {name: wanted for name, wanted in tensors.items() if wanted}

    def last_uses(self) -> tuple[tuple[str, ...], ...]:
        """For each node, the values that are not needed after it, itself included if it is never used."""
        last = {node.name: number for number, node in enumerate(self.nodes)}
        for number, node in enumerate(self.nodes):
            last |= dict.fromkeys(node.inputs, number)
        last.pop(self.output, None)
        ending: list[list[str]] = [[] for _ in self.nodes]
        for name, number in last.items():
            ending[number].append(name)
        return tuple(map(tuple, ending))

    def live_features(self) -> int:
        """The largest number of numbers that are needed at one time, for one sample."""
        sizes = {name: prod(shape) for name, shape in self.shapes().items()}
        live = sum(sizes[entry.name] for entry in self.inputs)
        most = live
        for node, ending in zip(self.nodes, self.last_uses(), strict=True):
            live += sizes[node.name]
            most = max(most, live)
            live -= sum(sizes[name] for name in ending)
        return most

    def multiplications(self) -> int:
        """The multiplications of convolutions and linear layers for one sample: a measure of its cost."""
        shapes, total = self.shapes(), 0
        for node in self.nodes:
            weights = node.tensors(*(shapes[name] for name in node.inputs)).get("weight", ())
            if isinstance(node, Conv):
                total += prod(weights) * prod(shapes[node.name][1:])
            elif isinstance(node, ConvTranspose):
                total += prod(weights) * prod(shapes[node.inputs[0]][1:])
            elif isinstance(node, Linear):
                total += prod(weights) * prod(shapes[node.name][:-1])
        return total

    def check_interface(self, output: Shape, **inputs: Shape) -> None:
        """Raise ``ValueError`` unless the graph has these inputs, and gives values of shape ``output``."""
        found = {entry.name: entry.shape for entry in self.inputs}
        if found != inputs:
            expected, got = (
                ", ".join(f"{name} of {show(shape)}" for name, shape in of.items()) for of in (inputs, found)
            )
            raise ValueError(f"the inputs {expected}, not {got}")
        shape = self.shapes()[self.output]
        if shape != output:
            raise ValueError(f"an output of {show(output)}, not {show(shape)}")
