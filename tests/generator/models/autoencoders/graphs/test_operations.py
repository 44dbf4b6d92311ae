"""Every operation: its shape is that of its module, its rows do not depend on each other, and it can be stored."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from generator.models.autoencoders.graphs import operations
from generator.models.autoencoders.graphs.modules import to_module
from generator.models.autoencoders.graphs.operations import AnyOperation, Function
from generator.models.autoencoders.graphs.shapes import Shape

IMAGE: Shape = (6, 8, 8)
CASES: list[tuple[dict[str, Any], tuple[Shape, ...]]] = [
    ({"op": "conv", "channels": 4, "kernel": (3, 5), "stride": (2, 1), "padding": (1, 2)}, (IMAGE,)),
    ({"op": "conv", "channels": 12, "kernel": (3, 3), "dilation": (2, 1), "groups": 3, "bias": False}, (IMAGE,)),
    ({"op": "conv_transpose", "channels": 4, "kernel": (4, 4), "stride": (2, 2), "padding": (1, 1)}, (IMAGE,)),
    (
        {
            "op": "conv_transpose",
            "channels": 4,
            "kernel": (3, 3),
            "stride": (2, 3),
            "output_padding": (1, 2),
            "groups": 2,
        },
        (IMAGE,),
    ),
    ({"op": "conv_transpose", "channels": 2, "kernel": (3, 3), "dilation": (2, 2), "output_padding": (1, 0)}, (IMAGE,)),
    ({"op": "linear", "features": 5}, ((7,),)),
    ({"op": "linear", "features": 5, "bias": False}, ((9, 7),)),
    ({"op": "group_norm", "groups": 3}, (IMAGE,)),
    ({"op": "group_norm", "groups": 2, "affine": False}, ((6,),)),
    ({"op": "layer_norm", "axes": 2}, ((4, 6, 5),)),
    ({"op": "layer_norm", "affine": False}, ((7,),)),
    ({"op": "pixel_norm"}, (IMAGE,)),
    ({"op": "pixel_norm", "axis": 1}, ((3, 5),)),
    *(({"op": "activation", "function": name}, ((4, 3),)) for name in get_args(Function)),
    ({"op": "prelu"}, (IMAGE,)),
    ({"op": "clamp", "low": -0.5, "high": 0.5}, ((4,),)),
    ({"op": "clamp", "low": 0.0}, ((4,),)),
    ({"op": "scale", "factor": 2.0, "offset": -1.0}, ((4,),)),
    ({"op": "affine"}, (IMAGE,)),
    ({"op": "affine"}, ((6,),)),
    *(({"op": name}, (IMAGE, (6, 1, 8))) for name in ("add", "sub", "mul", "div", "maximum", "minimum")),
    ({"op": "constant", "shape": (3, 2)}, ()),
    ({"op": "concat", "axis": 1}, ((2, 3, 4), (2, 5, 4), (2, 1, 4))),
    ({"op": "slice", "axis": 0, "start": 2, "end": 5}, (IMAGE,)),
    ({"op": "reshape", "shape": (3, 128)}, (IMAGE,)),
    ({"op": "permute", "axes": (2, 0, 1)}, (IMAGE,)),
    ({"op": "resize", "size": (16, 24)}, (IMAGE,)),
    ({"op": "resize", "size": (16, 12), "mode": "bilinear"}, (IMAGE,)),
    ({"op": "pixel_shuffle", "factor": 2}, ((8, 3, 5),)),
    ({"op": "pixel_unshuffle", "factor": 2}, (IMAGE,)),
    ({"op": "pool", "kind": "max", "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}, (IMAGE,)),
    ({"op": "pool", "kind": "average", "kernel": (2, 3), "stride": (2, 1), "padding": (0, 1)}, (IMAGE,)),
    ({"op": "pad", "before": (1, 0), "after": (2, 3)}, (IMAGE,)),
    ({"op": "pad", "before": (1, 2), "after": (2, 3), "mode": "reflect"}, (IMAGE,)),
    ({"op": "pad", "before": (9, 0), "after": (0, 9), "mode": "replicate"}, (IMAGE,)),
    ({"op": "mean", "axes": (1, 2)}, (IMAGE,)),
    ({"op": "sum", "axes": (0,), "keep": False}, (IMAGE,)),
    ({"op": "softmax", "axis": 1}, ((3, 4),)),
    ({"op": "matmul"}, ((2, 3, 4), (1, 4, 5))),
    ({"op": "attention", "heads": 2}, ((9, 6), (5, 6), (5, 4))),
    ({"op": "attention", "scale": 0.5}, ((9, 6), (9, 6), (9, 6))),
    ({"op": "embedding", "classes": 5, "features": 3}, ((),)),
]
_OPERATION: TypeAdapter[Any] = TypeAdapter(AnyOperation)


def parse(fields: dict[str, Any], shapes: tuple[Shape, ...]) -> Any:
    return _OPERATION.validate_python({"name": "x", "inputs": [f"i{n}" for n in range(len(shapes))]} | fields)


def random_input(shape: Shape, batch: int) -> torch.Tensor:
    return torch.randn(batch, *shape) if shape else torch.randint(0, 5, (batch,))


def ids(value: object) -> str | None:
    return str(value.get("function", value["op"])) if isinstance(value, dict) else None


@pytest.mark.parametrize(("fields", "shapes"), CASES, ids=ids)
def test_shape_weights_and_rows(fields: dict[str, Any], shapes: tuple[Shape, ...]) -> None:
    node = parse(fields, shapes)
    torch.manual_seed(0)
    module = to_module(node, shapes).eval()
    assert {name: tuple(weight.shape) for name, weight in module.state_dict().items()} == node.tensors(*shapes)
    inputs = [random_input(shape, 6) for shape in shapes]
    with torch.inference_mode():
        whole = module(*inputs)
        assert whole.shape == (len(whole), *node.output_shape(*shapes))
        if not shapes:
            return
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        moved = module(*(value[order] for value in inputs))
    assert torch.equal(moved.nan_to_num(), whole[order].nan_to_num())


@pytest.mark.parametrize(("fields", "shapes"), CASES, ids=ids)
def test_an_operation_is_stored_as_json(fields: dict[str, Any], shapes: tuple[Shape, ...]) -> None:
    node = parse(fields, shapes)
    assert _OPERATION.validate_json(node.model_dump_json()) == node


def test_every_operation_has_a_case() -> None:
    tested = {fields["op"] for fields, _ in CASES}
    known = {
        name for model in get_args(get_args(AnyOperation)[0]) for name in get_args(model.model_fields["op"].annotation)
    }
    assert tested == known


@pytest.mark.parametrize("function", ["relu", "silu", "tanh", "sigmoid", "leaky_relu"])
def test_a_reusable_input_may_be_overwritten_without_a_gradient_only(function: str) -> None:
    node = operations.Activation(name="x", inputs=("i",), function=function)  # type: ignore[arg-type]
    module, plain = to_module(node, ((64,),), reusable=True), to_module(node, ((64,),))
    value = torch.randn(2, 64)
    wanted = plain(value)
    assert torch.equal(module(value), wanted)
    with torch.inference_mode():
        kept = value.clone()
        assert torch.equal(module(value), wanted)
        assert not torch.equal(value, kept)


@pytest.mark.parametrize(
    ("fields", "shapes", "expected"),
    [
        ({"op": "conv", "channels": 4, "kernel": (3, 3)}, ((6,),), "an image"),
        ({"op": "conv", "channels": 4, "kernel": (3, 3), "groups": 4}, (IMAGE,), "groups that divide"),
        (
            {"op": "conv_transpose", "channels": 4, "kernel": (3, 3), "output_padding": (1, 0)},
            (IMAGE,),
            "output_padding",
        ),
        ({"op": "linear", "features": 4}, ((),), "at least one axis"),
        ({"op": "group_norm", "groups": 4}, (IMAGE,), "groups that divide 6"),
        ({"op": "layer_norm", "axes": 4}, (IMAGE,), "at least 4 axes"),
        ({"op": "pixel_norm", "axis": 3}, (IMAGE,), "distinct axes"),
        ({"op": "add"}, (IMAGE, (5, 8, 8)), "shapes that broadcast"),
        ({"op": "add"}, (IMAGE, (8, 8)), "shapes that broadcast"),
        ({"op": "concat", "axis": 0}, (IMAGE, (6, 8, 7)), "agree outside axis 0"),
        ({"op": "slice", "axis": 0, "start": 2, "end": 7}, (IMAGE,), "a range within 0 to 6"),
        ({"op": "reshape", "shape": (5, 77)}, (IMAGE,), "384 numbers"),
        ({"op": "permute", "axes": (0, 0, 1)}, (IMAGE,), "distinct axes"),
        ({"op": "permute", "axes": (0, 1)}, (IMAGE,), "an order of 3 axes"),
        ({"op": "pixel_shuffle", "factor": 2}, (IMAGE,), "a multiple of 4 channels"),
        ({"op": "pixel_unshuffle", "factor": 3}, (IMAGE,), "multiples of 3"),
        (
            {"op": "pool", "kind": "max", "kernel": (2, 2), "stride": (1, 1), "padding": (2, 0)},
            (IMAGE,),
            "half the kernel",
        ),
        ({"op": "pad", "before": (8, 0), "after": (0, 0), "mode": "reflect"}, (IMAGE,), "smaller than the image"),
        ({"op": "matmul"}, ((2, 3), (2, 3)), "matrices that fit"),
        ({"op": "attention", "heads": 4}, ((9, 6), (9, 6), (9, 6)), "features that 4 heads divide"),
        ({"op": "embedding", "classes": 5, "features": 3}, ((3,),), "a class number"),
    ],
)
def test_inputs_that_do_not_fit(fields: dict[str, Any], shapes: tuple[Shape, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse(fields, shapes).output_shape(*shapes)


@pytest.mark.parametrize(
    "fields",
    [
        {"op": "eval", "code": "1"},
        {"op": "conv", "channels": 0, "kernel": (3, 3)},
        {"op": "conv", "channels": 4, "kernel": (3,)},
        {"op": "conv", "channels": 4, "kernel": (3, 3), "hook": "os.system"},
        {"op": "conv", "channels": 2**40, "kernel": (3, 3)},
        {"op": "activation", "function": "__import__"},
        {"op": "scale", "factor": float("nan")},
        {"op": "reshape", "shape": (2**40,)},
        {"op": "reshape", "shape": (1,) * 7},
        {"op": "resize", "size": (0, 4)},
        {"op": "constant", "shape": (-1,)},
    ],
)
def test_operations_that_do_not_exist(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse(fields, (IMAGE,) if fields["op"] != "constant" else ())
