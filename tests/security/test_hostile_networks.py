"""Hostile ONNX files and other networks to import: typed errors that name the node, quickly, and nothing is written."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from generator.errors import LatentmillError, SpecError
from generator.models.converters.onnx import convert_onnx
from workers.cli.main import root

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
Nodes = list[onnx.NodeProto]


def model(
    nodes: Nodes,
    initializers: list[onnx.TensorProto] | None = None,
    *,
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
    **options: Any,
) -> onnx.ModelProto:
    inputs = inputs or [helper.make_tensor_value_info("z", FLOAT, ["batch", 3, 8, 8])]
    results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, results, initializers or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **options)


def node(op: str, *inputs: str, out: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], name=f"the_{op}", **attributes)


def tensor(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype=dtype), name)


def external() -> onnx.ModelProto:
    weight = tensor("w", np.ones((3, 3, 1, 1)))
    onnx.external_data_helper.set_external_data(weight, "../../../etc/passwd")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    return model([node("Conv", "z", "w")], [weight])


def half_external() -> onnx.ModelProto:
    weight = tensor("w", np.ones((3, 3, 1, 1)))
    weight.external_data.add(key="location", value="/dev/zero")
    return model([node("Conv", "z", "w")], [weight])


def huge(dims: tuple[int, ...]) -> onnx.ModelProto:
    return model([node("Conv", "z", "w")], [TensorProto(name="w", data_type=FLOAT, dims=dims, raw_data=b"\0" * 16)])


def typed(data_type: int) -> onnx.ModelProto:
    return model([node("Conv", "z", "w")], [TensorProto(name="w", data_type=data_type, dims=[1], raw_data=b"\0" * 8)])


def subgraph() -> onnx.ModelProto:
    inner = helper.make_graph([node("Relu", "z")], "inner", [], [helper.make_tensor_value_info("y", FLOAT, None)])
    condition = tensor("c", True, bool)
    return model([node("If", "c", then_branch=inner, else_branch=inner)], [condition])


def function() -> onnx.ModelProto:
    made = helper.make_function("f", "Inner", ["a"], ["b"], [node("Relu", "a", out="b")], [helper.make_opsetid("", 17)])
    return model([node("Relu", "z")], functions=[made])


def sparse() -> onnx.ModelProto:
    made = model([node("Relu", "z")])
    made.graph.sparse_initializer.add()
    return made


def foreign_domain() -> onnx.ModelProto:
    return model([helper.make_node("FusedConv", ["z"], ["y"], name="the_fused", domain="com.microsoft")])


def shape_bomb() -> onnx.ModelProto:
    sizes = tensor("s", [1, 3, 2**31, 2**31], np.int64)
    return model([helper.make_node("Resize", ["z", "", "", "s"], ["y"], name="the_Resize", mode="nearest")], [sizes])


def constant_bomb(op: str) -> onnx.ModelProto:
    shape = tensor("s", [2**20, 2**20], np.int64)
    inputs = {"ConstantOfShape": ["s"], "Expand": ["one", "s"], "Tile": ["two", "s"]}[op]
    made = helper.make_node(op, inputs, ["big"], name=f"the_{op}")
    return model([made, node("Add", "z", "big")], [shape, tensor("one", [1.0]), tensor("two", [[1.0]])])


def outer_product_bomb() -> onnx.ModelProto:
    column, row = tensor("c", np.ones((30_000, 1))), tensor("r", np.ones((1, 30_000)))
    return model([node("Mul", "c", "r", out="big"), node("Add", "z", "big")], [column, row])


def range_bomb() -> onnx.ModelProto:
    bounds = [tensor("a", 0, np.int64), tensor("b", 2**60, np.int64), tensor("c", 1, np.int64)]
    return model([node("Range", "a", "b", "c", out="big"), node("Add", "z", "big")], bounds)


def matmul_bomb() -> onnx.ModelProto:
    column, row = tensor("c", np.ones((60_000, 1))), tensor("r", np.ones((1, 60_000)))
    return model([node("MatMul", "c", "r", out="big"), node("Add", "z", "big")], [column, row])


def gather_bomb() -> onnx.ModelProto:
    table, index = tensor("t", np.ones((4, 60_000))), tensor("i", np.zeros(60_000), np.int64)
    return model([node("Gather", "t", "i", out="big"), node("Add", "z", "big")], [table, index])


def many_constants() -> onnx.ModelProto:
    shape = tensor("s", [2**13, 2**13], np.int64)
    nodes = [helper.make_node("ConstantOfShape", ["s"], [f"c{n}"], name=f"the_constant{n}") for n in range(1000)]
    return model([*nodes, node("Relu", "z")], [shape])


def many_nodes() -> onnx.ModelProto:
    nodes = [node("Relu", "z", out="v0")]
    nodes += [helper.make_node("Relu", [f"v{n}"], [f"v{n + 1}"]) for n in range(20_001)]
    return model([*nodes, node("Relu", "v20001")])


def deep_graph() -> onnx.ModelProto:
    nodes = [node("Relu", "z", out="v0")]
    nodes += [helper.make_node("Sin", [f"v{n}"], [f"v{n + 1}"]) for n in range(6000)]
    return model([*nodes, node("Relu", "v6000")])


def duplicate_initializer() -> onnx.ModelProto:
    return model([node("Conv", "z", "w")], [tensor("w", np.ones((3, 3, 1, 1))), tensor("w", np.ones((3, 3, 1, 1)))])


def bad_attribute() -> onnx.ModelProto:
    made = node("Conv", "z", "w")
    made.attribute.add(name="strides")
    return model([made], [tensor("w", np.ones((3, 3, 1, 1)))])


def with_inputs(*inputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    return model([node("Relu", inputs[0].name if inputs else "z")], inputs=list(inputs))


def value(name: str, shape: list[Any] | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def conv(weight: Any = None, **attributes: Any) -> onnx.ModelProto:
    weight = np.ones((3, 3, 3, 3)) if weight is None else weight
    return model([node("Conv", "z", "w", **attributes)], [tensor("w", weight)])


def integers(
    op: str, numbers: list[int], *, more: tuple[onnx.TensorProto, ...] = (), **attributes: Any
) -> onnx.ModelProto:
    made = helper.make_node(op, ["z", "n", *(each.name for each in more)], ["y"], name=f"the_{op}", **attributes)
    return model([made], [tensor("n", numbers, np.int64), *more])


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a cycle": (lambda: model([node("Relu", "b", out="a"), node("Relu", "a", out="b"), node("Relu", "b")]), "the_Relu"),
    "itself as input": (lambda: model([node("Relu", "y")]), "the_Relu"),
    "a missing input": (lambda: model([node("Add", "z", "ghost")]), "the_Add"),
    "no inputs": (lambda: model([node("Relu")]), "the_Relu"),
    "an empty input": (lambda: model([node("Relu", "")]), "the_Relu"),
    "too few inputs": (lambda: model([node("Conv", "z")]), "the_Conv"),
    "an output twice": (lambda: model([node("Relu", "z"), node("Relu", "z")]), "the_Relu"),
    "an output that is the input": (lambda: model([node("Relu", "z", out="z"), node("Relu", "z")]), "the_Relu"),
    "an output that is nowhere": (lambda: model([node("Relu", "z", out="x")]), "decoder"),
    "two outputs": (lambda: model([node("Relu", "z")], outputs=("y", "y2")), "decoder"),
    "an output of constants": (lambda: model([node("Abs", "c")], [tensor("c", [1.0])]), "decoder"),
    "external data": (external, "decoder.w"),
    "external data beside data": (half_external, "decoder.w"),
    "2^31 sides": (lambda: huge((2**31, 3, 1, 1)), "decoder.w"),
    "2^62 numbers": (lambda: huge((2**31, 2**31)), "decoder.w"),
    "a negative side": (lambda: huge((-1, 3, 1, 1)), "decoder.w"),
    "too few bytes": (lambda: huge((3, 3, 1, 1)), "decoder.w"),
    "strings": (lambda: typed(TensorProto.STRING), "decoder.w"),
    "complex numbers": (lambda: typed(TensorProto.COMPLEX64), "decoder.w"),
    "an unknown type": (lambda: typed(99), "decoder.w"),
    "type 0": (lambda: typed(0), "decoder.w"),
    "NaN": (lambda: conv(np.full((3, 3, 3, 3), np.nan)), "decoder.w"),
    "infinity": (lambda: conv(np.full((3, 3, 3, 3), np.inf)), "decoder.w"),
    "overflowing constants": (
        lambda: model([node("Exp", "c", out="e"), node("Mul", "z", "e")], [tensor("c", [1000.0])]),
        "the_Exp",
    ),
    "subgraphs": (subgraph, "the_If"),
    "functions": (function, "decoder"),
    "sparse initialisers": (sparse, "decoder"),
    "another domain": (foreign_domain, "the_fused"),
    "an unknown operator": (lambda: model([node("Einsum", "z", equation="bchw->bc")]), "the_Einsum"),
    "an operator named like a method": (lambda: model([node("__class__", "z")]), "__class__"),
    "an old opset": (lambda: model([node("Relu", "z")], opset=9), "decoder"),
    "no opset": (lambda: model([node("Relu", "z")], opset=0), "decoder"),
    "an exploding resize": (shape_bomb, "the_Resize"),
    "an exploding constant": (lambda: constant_bomb("ConstantOfShape"), "the_ConstantOfShape"),
    "an exploding expand": (lambda: constant_bomb("Expand"), "the_Expand"),
    "an exploding tile": (lambda: constant_bomb("Tile"), "the_Tile"),
    "an exploding product": (outer_product_bomb, "the_Mul"),
    "an exploding matrix": (matmul_bomb, "the_MatMul"),
    "an exploding range": (range_bomb, "the_Range"),
    "an exploding gather": (gather_bomb, "the_Gather"),
    "a thousand large constants": (many_constants, "the_constant"),
    "20,000 nodes": (many_nodes, "decoder"),
    "6,000 operations": (deep_graph, "decoder"),
    "an initialiser twice": (duplicate_initializer, "decoder.w"),
    "an attribute of no type": (bad_attribute, "the_Conv"),
    "three inputs": (lambda: with_inputs(*(value(name, ["b", 3, 8, 8]) for name in "zab")), "decoder"),
    "an input of strings": (lambda: with_inputs(value("z", ["b", 3], TensorProto.STRING)), "decoder.z"),
    "an input of no shape": (lambda: with_inputs(value("z", None)), "decoder.z"),
    "an input of 2^40": (lambda: with_inputs(value("z", ["b", 2**40])), "decoder.z"),
    "an input of nothing": (lambda: with_inputs(value("z", ["b", 0, 8, 8])), "decoder.z"),
    "an input of one axis": (lambda: with_inputs(value("z", ["b"])), "decoder"),
    "a one-hot input of open width": (lambda: with_inputs(value("z", ["b", 4]), value("c", ["b", "k"])), "decoder.c"),
    "groups of zero": (lambda: conv(group=0), "the_Conv"),
    "groups that do not divide": (lambda: conv(group=2), "the_Conv"),
    "strides of zero": (lambda: conv(strides=[0, 0]), "the_Conv"),
    "strides of three axes": (lambda: conv(strides=[1, 1, 1]), "the_Conv"),
    "a huge dilation": (lambda: conv(dilations=[2**40, 2**40]), "the_Conv"),
    "negative pads": (lambda: conv(pads=[-1, -1, -1, -1]), "the_Conv"),
    "pads of two numbers": (lambda: conv(pads=[1, 1]), "the_Conv"),
    "an unknown padding": (lambda: conv(auto_pad="ALWAYS"), "the_Conv"),
    "attributes of another type": (lambda: conv(strides="many"), "the_Conv"),
    "weights of three axes": (lambda: conv(np.ones((3, 3, 3))), "the_Conv"),
    "weights for other channels": (lambda: conv(np.ones((3, 5, 3, 3))), "the_Conv"),
    "a kernel of 99": (lambda: conv(np.ones((3, 3, 99, 99))), "the_Conv"),
    "a dynamic kernel": (lambda: model([node("Conv", "z", "z")]), "the_Conv"),
    "a reshape to nothing": (lambda: integers("Reshape", [0, 0]), "the_Reshape"),
    "a reshape of the batch": (lambda: integers("Reshape", [-1]), "the_Reshape"),
    "two open sides": (lambda: integers("Reshape", [0, -1, -1]), "the_Reshape"),
    "a negative reshape": (lambda: integers("Reshape", [0, -5, 7]), "the_Reshape"),
    "a transposed batch": (lambda: model([node("Transpose", "z", perm=[1, 0, 2, 3])]), "the_Transpose"),
    "an order of other axes": (lambda: model([node("Transpose", "z", perm=[0, 9, 9, 9])]), "the_Transpose"),
    "a sum over the batch": (lambda: integers("ReduceSum", [0]), "the_ReduceSum"),
    "a softmax over the batch": (lambda: model([node("Softmax", "z", axis=0)]), "the_Softmax"),
    "an axis of 2^40": (lambda: model([node("Softmax", "z", axis=2**40)]), "the_Softmax"),
    "a slice of steps": (
        lambda: integers(
            "Slice", [0], more=(tensor("e", [8], np.int64), tensor("a", [2], np.int64), tensor("s", [2], np.int64))
        ),
        "the_Slice",
    ),
    "an empty slice": (
        lambda: integers("Slice", [5], more=(tensor("e", [5], np.int64), tensor("a", [2], np.int64))),
        "the_Slice",
    ),
    "an index outside": (lambda: integers("Gather", [99], axis=1), "the_Gather"),
    "a division by zero": (lambda: model([node("Div", "z", "c")], [tensor("c", [0.0])]), "the_Div"),
    "an unknown exponent": (lambda: model([node("Pow", "z", "c")], [tensor("c", [3.7])]), "the_Pow"),
    "a blocksize of zero": (lambda: model([node("DepthToSpace", "z", blocksize=0)]), "the_DepthToSpace"),
    "a block too large": (lambda: model([node("SpaceToDepth", "z", blocksize=3)]), "the_SpaceToDepth"),
    "half a normalisation": (
        lambda: model([node("InstanceNormalization", "z", "w", "w")], [tensor("w", [1.0])]),
        "the_InstanceNormalization",
    ),
    "a negative variance": (
        lambda: model(
            [node("BatchNormalization", "z", "a", "a", "a", "v")], [tensor("a", [1.0] * 3), tensor("v", [-1.0] * 3)]
        ),
        "the_BatchNormalization",
    ),
    "a pool of nothing": (lambda: model([node("MaxPool", "z", kernel_shape=[0, 0])]), "the_MaxPool"),
    "a pool larger than the image": (lambda: model([node("MaxPool", "z", kernel_shape=[63, 63])]), "the_MaxPool"),
    "a cubic resize": (
        lambda: model([node("Resize", "z", "", "s", mode="cubic")], [tensor("s", [1.0, 1.0, 2.0, 2.0])]),
        "the_Resize",
    ),
    "scales of infinity": (
        lambda: model([node("Resize", "z", "", "s", mode="nearest")], [tensor("s", [1.0, 1.0, 1e30, 1e30])]),
        "the_Resize",
    ),
    "grey and grey and grey and grey": (lambda: conv(np.ones((4, 3, 1, 1))), "decoder"),
}


_LARGE = {"a thousand large constants", "6,000 operations"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in _LARGE else name for name in CASES]
)
def test_hostile_onnx(name: str, tmp_path: Path) -> None:
    make, where = CASES[name]
    path = tmp_path / "decoder.onnx"
    path.write_bytes(make().SerializeToString())
    result = CliRunner().invoke(root, ["import", "onnx", str(path), "--out", str(tmp_path / "bundle")])
    assert isinstance(result.exception, LatentmillError), result.exception
    text = f"{result.exception.facts()}"
    assert where in text
    assert "passwd" not in text.replace("../../../etc/passwd", "")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["decoder.onnx"]


def test_there_are_many() -> None:
    assert len(CASES) >= 60


def other_bytes() -> Iterator[tuple[str, bytes]]:
    good = model([node("Relu", "z")]).SerializeToString()
    yield "nothing", b""
    yield "a pickle", pickle.dumps({"weights": [1.0]})
    yield "a zip", b"PK\x03\x04" + bytes(100)
    yield "half a file", good[: len(good) // 2]
    yield "text", b"# not a network\n"
    yield "random bytes", np.random.default_rng(0).bytes(5000)


@pytest.mark.parametrize(("name", "data"), list(other_bytes()), ids=[name for name, _ in other_bytes()])
@pytest.mark.parametrize("way", ["onnx", "taesd", "diffusers", "layers"])
def test_other_bytes(way: str, name: str, data: bytes, tmp_path: Path) -> None:
    path, out = tmp_path / "file", tmp_path / "bundle"
    path.write_bytes(data)
    arguments = {
        "onnx": ["onnx", str(path)],
        "taesd": ["taesd", "--decoder", str(path)],
        "diffusers": ["diffusers", str(tmp_path)],
        "layers": [str(path), str(path)],
    }[way]
    result = CliRunner().invoke(root, ["import", *arguments, "--out", str(out)])
    assert isinstance(result.exception, LatentmillError), (name, result.exception)
    assert not out.exists()


def test_a_pickle_under_the_name_of_safetensors_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    directory = tmp_path / "vae"
    directory.mkdir()
    (directory / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (directory / "diffusion_pytorch_model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(LatentmillError):
        CliRunner().invoke(
            root, ["import", "diffusers", str(directory), "--out", str(tmp_path / "bundle")], catch_exceptions=False
        )
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"decoder: expected an ONNX file that can be read"):
        convert_onnx(tmp_path / "nowhere.onnx")
