"""Graphs: errors name the node, budgets hold, and values are freed and overwritten without another result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.graphs.graph import NetworkGraph
from generator.models.autoencoders.graphs.network import GraphNetwork

CODE = {"name": "code", "shape": [4, 2, 2]}


def graph(
    nodes: list[dict[str, Any]], output: str = "last", inputs: list[dict[str, Any]] | None = None
) -> NetworkGraph:
    return NetworkGraph.model_validate({"inputs": inputs or [CODE], "nodes": nodes, "output": output})


def relu(name: str, *inputs: str) -> dict[str, Any]:
    return {"name": name, "op": "activation", "inputs": list(inputs), "function": "relu"}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([relu("last", "last")], "inputs of node last .activation. that come before it; last does not"),
        ([relu("a", "last"), relu("last", "a")], "inputs of node a .activation. that come before it"),
        ([relu("last", "nowhere")], "nowhere does not"),
        ([relu("code", "code"), relu("last", "code")], "names that are used once; code is used again"),
        ([relu("a", "code"), relu("a", "code"), relu("last", "a")], "a is used again"),
        ([relu("other", "code")], "an output that is the name of a node"),
        ([{"name": "last", "op": "permute", "inputs": ["code"], "axes": [0, 1]}], "in node last .permute.: an order"),
        (
            [{"name": "last", "op": "resize", "inputs": ["code"], "size": [60_000, 60_000]}],
            "in node last .resize.: 1 to 67108864 numbers",
        ),
        (
            [
                {"name": "flat", "op": "reshape", "inputs": ["code"], "shape": [16]},
                {"name": "wide", "op": "linear", "inputs": ["flat"], "features": 2**22},
                {"name": "small", "op": "linear", "inputs": ["wide"], "features": 100},
                relu("last", "small"),
            ],
            "at most 268435456 weights",
        ),
    ],
)
def test_graphs_that_do_not_fit(nodes: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        graph(nodes)


def test_too_many_numbers_at_one_time() -> None:
    grown = [{"name": f"g{n}", "op": "resize", "inputs": ["code"], "size": [4096, 4096]} for n in range(5)]
    joined = {"name": "last", "op": "concat", "inputs": [node["name"] for node in grown], "axis": 0}
    with pytest.raises(ValidationError, match="numbers"):
        graph([*grown, joined])


def test_a_value_is_freed_after_its_last_use() -> None:
    nodes = [relu("a", "code"), relu("b", "a"), {"name": "c", "op": "add", "inputs": ["a", "b"]}, relu("last", "c")]
    found = graph(nodes)
    assert [set(ending) for ending in found.last_uses()] == [{"code"}, set(), {"a", "b"}, {"c"}]
    assert found.live_features() == 3 * 16


@pytest.mark.parametrize("seed", range(20))
def test_overwriting_changes_nothing(seed: int) -> None:
    """Random graphs of operations that may overwrite, and of views: the same with a gradient, where nothing is."""
    generator = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(0, count, (), generator=generator))

    names, nodes = ["code"], list[dict[str, Any]]()
    for number in range(30):
        name, first, second = f"n{number}", names[pick(len(names))], names[pick(len(names))]
        nodes.append(
            [
                relu(name, first),
                {"name": name, "op": "activation", "inputs": [first], "function": ["silu", "tanh", "sigmoid"][pick(3)]},
                {"name": name, "op": "add", "inputs": [first, second]},
                {"name": name, "op": "permute", "inputs": [first], "axes": [0, 2, 1]},
                {"name": name, "op": "reshape", "inputs": [first], "shape": [4, 2, 2]},
                {"name": name, "op": "clamp", "inputs": [first], "low": -0.5, "high": 2.0},
                {"name": name, "op": "scale", "inputs": [first], "factor": 0.7},
            ][pick(7)]
        )
        names.append(name)
    total = {"name": "last", "op": "concat", "inputs": names[1:], "axis": 0}
    network, code = GraphNetwork(graph([*nodes, total])), torch.randn(3, 4, 2, 2, generator=generator)
    with torch.enable_grad():
        wanted = network(code=code.clone())
    given = code.clone()
    with torch.inference_mode():
        found = network(code=given)
    assert torch.equal(found, wanted)
    assert torch.equal(given, code)
    partly = GraphNetwork(graph([*nodes, relu("last", names[-1])]))
    with torch.enable_grad():
        wanted = partly(code=code.clone())
    with torch.inference_mode():
        assert torch.equal(partly(code=code.clone()), wanted)


def config(**changes: Any) -> GraphConfig:
    decoder = {
        "inputs": [CODE],
        "nodes": [
            {"name": "grown", "op": "resize", "inputs": ["code"], "size": [8, 8]},
            {"name": "last", "op": "slice", "inputs": ["grown"], "axis": 0, "start": 0, "end": 3},
        ],
        "output": "last",
    }
    return GraphConfig.model_validate({"size": 8, "channels": 3, "latent_dim": 16, "decoder": decoder} | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": 16}, "a decoder with an output of 3 x 16 x 16, not 3 x 8 x 8"),
        ({"channels": 1}, "a decoder with an output of 1 x 8 x 8"),
        ({"latent_dim": 15}, "a code of 15 numbers"),
        ({"classes": 2}, "a decoder with the inputs code of 4 x 2 x 2, label of a single number"),
        (
            {
                "encoder": {
                    "inputs": [{"name": "image", "shape": [3, 8, 8]}],
                    "nodes": [relu("last", "image")],
                    "output": "last",
                }
            },
            "an encoder with an output of 4 x 2 x 2, not 3 x 8 x 8",
        ),
    ],
)
def test_parts_that_do_not_fit_together(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        config(**changes)


def test_the_cost_of_a_graph() -> None:
    nodes = [
        {"name": "a", "op": "conv", "inputs": ["code"], "channels": 8, "kernel": [3, 3], "padding": [1, 1]},
        {"name": "b", "op": "conv_transpose", "inputs": ["a"], "channels": 2, "kernel": [2, 2], "stride": [2, 2]},
        {"name": "flat", "op": "reshape", "inputs": ["b"], "shape": [2, 16]},
        {"name": "last", "op": "linear", "inputs": ["flat"], "features": 5},
    ]
    assert graph(nodes).multiplications() == 8 * 4 * 9 * 4 + 8 * 2 * 4 * 4 + 16 * 5 * 2
