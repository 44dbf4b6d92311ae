"""Replaces nodes of a graph by others that compute the same, wherever a rule says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, final

from generator.models.autoencoders.graphs.graph import NetworkGraph
from generator.models.autoencoders.graphs.operations import (
    Operation,
)
from generator.models.autoencoders.graphs.shapes import Shape
from generator.models.converters.builder import BuiltGraph, Tensors, name_tensors

Kind = TypeVar("Kind", bound=Operation)


@dataclass(frozen=True)
class Replacement:
    """A node, its tensors, and nodes that must come before it; or the name of a value that is the same (``node``)."""

    node: Any
    tensors: Tensors
    before: tuple[tuple[Any, Tensors], ...] = ()


@final
class Rewriter:
    """A graph whose nodes are replaced. Rules ask it for the nodes behind a value, their tensors and shapes."""

    def __init__(self, built: BuiltGraph) -> None:
        self._inputs, self._output = built.graph.inputs, built.graph.output
        self._nodes: dict[str, Any] = {node.name: node for node in built.graph.nodes}
        wanted = built.graph.tensor_shapes()
        self._tensors = {
            node.name: {name: built.tensors[f"graph.nodes.{number}.{name}"] for name in wanted.get(node.name, {})}
            for number, node in enumerate(built.graph.nodes)
        }
        self.shapes: dict[str, Shape] = dict(built.graph.shapes())
        self._uses = self._count_uses()

    def apply_rules(self, rules: Sequence[Rule]) -> bool:
        """One pass over all nodes; whether anything changed."""
        changed = False
        for name in list(self._nodes):
            node = self._nodes.get(name)
            if node is None:
                continue
            for rule in rules:
                replacement = rule(self, node)
                if replacement is not None and not self._clashes(replacement):
                    self._replace(name, replacement)
                    changed = True
                    break
        self._remove_unused()
        return changed

    def result(self) -> BuiltGraph:
        """The graph as it is now."""
        nodes = tuple(self._nodes.values())
        graph = NetworkGraph(inputs=self._inputs, nodes=nodes, output=self._output)
        return BuiltGraph(graph, name_tensors([self._tensors[node.name] for node in nodes]))

    def producer(self, name: str, kind: type[Kind], **fields: Any) -> Kind | None:
        """The node behind ``name`` if it is of ``kind`` with these fields, and has no other use."""
        node = self._nodes.get(name)
        if not isinstance(node, kind) or self._uses[name] != 1 or name == self._output:
            return None
        return node if all(getattr(node, key) == value for key, value in fields.items()) else None

    def any_producer(self, name: str, kind: type[Kind], **fields: Any) -> Kind | None:
        """As ``producer``, but the value may have other uses."""
        node = self._nodes.get(name)
        if not isinstance(node, kind):
            return None
        return node if all(getattr(node, key) == value for key, value in fields.items()) else None

    def tensors(self, node: Operation) -> Tensors:
        """The tensors of a node."""
        return self._tensors[node.name]

    def is_output(self, name: str) -> bool:
        """Whether a value is what the network gives."""
        return name == self._output

    def uses(self, name: str) -> int:
        """How many nodes use a value."""
        return self._uses[name]

    def _replace(self, name: str, replacement: Replacement) -> None:
        """Put the replacement in the place of ``name``, so that the order of computation stays."""
        if isinstance(replacement.node, str):
            self._rename(name, replacement.node)
            return
        nodes: dict[str, Any] = {}
        for own, node in self._nodes.items():
            if own != name:
                nodes[own] = node
                continue
            for earlier, tensors in (*replacement.before, (replacement.node, replacement.tensors)):
                nodes[earlier.name] = earlier
                self._tensors[earlier.name] = tensors
                self.shapes[earlier.name] = earlier.output_shape(*(self.shapes[each] for each in earlier.inputs))
        self._nodes = nodes
        self._uses = self._count_uses()

    def _rename(self, name: str, same: str) -> None:
        """Whoever used ``name`` uses ``same``."""
        del self._nodes[name]
        for own, node in self._nodes.items():
            if name in node.inputs:
                inputs = tuple(same if each == name else each for each in node.inputs)
                self._nodes[own] = node.model_copy(update={"inputs": inputs})
        self._uses = self._count_uses()

    def _clashes(self, replacement: Replacement) -> bool:
        """Whether a new name is already used."""
        return any(node.name in self._nodes or node.name in self.shapes for node, _ in replacement.before)

    def _remove_unused(self) -> None:
        needed = {self._output}
        for node in reversed(self._nodes.values()):
            if node.name in needed:
                needed.update(node.inputs)
        self._nodes = {name: node for name, node in self._nodes.items() if name in needed}
        self._uses = self._count_uses()

    def _count_uses(self) -> Counter[str]:
        return Counter(name for node in self._nodes.values() for name in node.inputs)


Rule = Callable[[Rewriter, Operation], Replacement | None]
