"""Computes a graph: its nodes one after the other, each value freed after its last use.

Legend: B batch, D numbers of a code.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.graphs.graph import LABEL, NetworkGraph
from generator.models.autoencoders.graphs.modules import to_module

# values that may share their memory with another value, or have a batch of one
_VIEWS = ("reshape", "permute", "slice", "constant", "clamp")


@final
class GraphNetwork(nn.Module):
    """Inputs by name -> the output. Parameters are named ``nodes.<number of the node>.<tensor>``."""

    def __init__(self, graph: NetworkGraph) -> None:
        super().__init__()
        shapes, self._output = graph.shapes(), graph.output
        views = {entry.name for entry in graph.inputs} | {node.name for node in graph.nodes if node.op in _VIEWS}
        self.nodes, self._steps = nn.ModuleList(), list[tuple[str, tuple[str, ...], tuple[str, ...]]]()
        for node, ending in zip(graph.nodes, graph.last_uses(), strict=True):
            reusable = bool(node.inputs) and node.inputs[0] in ending and node.inputs[0] not in views
            reusable = reusable and node.inputs.count(node.inputs[0]) == 1 and not _is_viewed(graph, node.inputs[0])
            self.nodes.append(to_module(node, tuple(shapes[name] for name in node.inputs), reusable))
            self._steps.append((node.name, node.inputs, ending))

    def forward(self, **inputs: Tensor) -> Tensor:
        values = dict(inputs)
        for module, (name, arguments, ending) in zip(self.nodes, self._steps, strict=True):
            values[name] = module(*(values[argument] for argument in arguments))
            for ended in ending:
                del values[ended]
        return values[self._output]


@final
class GraphDecoder(nn.Module):
    """(z_BD, and labels_B int64 for a decoder of classes) -> x_BCHW in [0, 1]."""

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        self.graph, self._code = GraphNetwork(config.decoder), config.code_shape
        self._conditional = config.classes > 0

    def forward(self, z_BD: Tensor, labels_B: Tensor | None = None) -> Tensor:
        code = z_BD.view(len(z_BD), *self._code)
        x_BCHW: Tensor = self.graph(code=code, **{LABEL: labels_B}) if self._conditional else self.graph(code=code)
        return x_BCHW


@final
class GraphEncoder(nn.Module):
    """x_BCHW in [0, 1] -> z_BD."""

    def __init__(self, graph: NetworkGraph) -> None:
        super().__init__()
        self.graph = GraphNetwork(graph)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        z: Tensor = self.graph(image=x_BCHW)
        return torch.flatten(z, 1)


def _is_viewed(graph: NetworkGraph, name: str) -> bool:
    """Whether another value may share the memory of ``name``."""
    return any(name in node.inputs and node.op in _VIEWS for node in graph.nodes)
