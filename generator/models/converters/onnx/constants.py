"""Evaluates operators whose inputs are all known: shapes, indices, and folded weights. Bounded in size."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from generator.errors import SpecError
from generator.models.converters.onnx.model import MAX_ELEMENTS, OnnxNode

_FLOATS = (1, 10, 11, 16)  # element types of ONNX: float32, float16, float64, bfloat16
_INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)
_BOOL = 9


def evaluate(node: OnnxNode, inputs: list[np.ndarray | None]) -> list[np.ndarray] | None:
    """The outputs of ``node``; ``None`` if it is not one of the operators that are evaluated.

    Raises ``SpecError`` naming the node if the inputs do not fit it.
    """
    function = _FUNCTIONS.get(node.op)
    if function is None:
        return None
    try:
        with np.errstate(all="ignore"):
            result = function(node, inputs)
    except SpecError:
        raise
    except (ValueError, IndexError, TypeError, OverflowError, MemoryError, ZeroDivisionError, AttributeError) as unfit:
        raise SpecError(node.where, "inputs that fit the operator", str(unfit)[:200] or type(unfit).__name__) from unfit
    outputs = result if isinstance(result, list) else [result]
    return [_checked(node, np.asarray(output)) for output in outputs]


def _checked(node: OnnxNode, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SpecError(node.where, "finite constants", "NaN or infinity")
    return array


Inputs = list[np.ndarray | None]


def _given(value: np.ndarray | None) -> np.ndarray:
    if value is None:
        raise ValueError("an input is missing")
    return value


def _elementwise(function: Callable[..., np.ndarray]) -> Callable[[OnnxNode, Inputs], np.ndarray]:
    def apply(_: OnnxNode, inputs: Inputs) -> np.ndarray:
        arrays = [_given(value) for value in inputs]
        _check_size(np.broadcast_shapes(*(array.shape for array in arrays)))
        return function(*arrays)

    return apply


def _divide(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Division of integers truncates, as in ONNX."""
    if left.dtype.kind in "iu" and right.dtype.kind in "iu":
        quotient: np.ndarray = (np.sign(left) * np.sign(right)) * (np.abs(left) // np.abs(right))
        return quotient
    divided: np.ndarray = left / right
    return divided


def _axes(node: OnnxNode, inputs: Inputs, position: int = 1) -> tuple[int, ...] | None:
    if len(inputs) > position and inputs[position] is not None:
        return tuple(int(axis) for axis in _given(inputs[position]).reshape(-1))
    axes = node.attributes.get("axes")
    return None if axes is None else tuple(axes)


def _reshape(node: OnnxNode, inputs: Inputs) -> np.ndarray:
    data, shape = _given(inputs[0]), [int(side) for side in _given(inputs[1])]
    if not node.attributes.get("allowzero"):
        shape = [data.shape[axis] if side == 0 else side for axis, side in enumerate(shape)]
    return data.reshape(shape)


def _unsqueeze(node: OnnxNode, inputs: Inputs) -> np.ndarray:
    return np.expand_dims(_given(inputs[0]), _axes(node, inputs) or ())


def _squeeze(node: OnnxNode, inputs: Inputs) -> np.ndarray:
    return np.squeeze(_given(inputs[0]), axis=_axes(node, inputs))


def _slice(_: OnnxNode, inputs: Inputs) -> np.ndarray:
    data, starts, ends = (_given(value) for value in inputs[:3])
    axes = _given(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else np.arange(len(starts))
    steps = _given(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else np.ones_like(starts)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[int(axis)] = slice(int(start), None if step < 0 and end < -data.shape[int(axis)] else int(end), int(step))
    return data[tuple(index)]


def _cast(node: OnnxNode, inputs: Inputs) -> np.ndarray:
    to, data = node.attributes.get("to"), _given(inputs[0])
    if to in _FLOATS:
        return data.astype(np.float32)
    if to in _INTEGERS:
        return data.astype(np.int64)
    if to == _BOOL:
        return data.astype(bool)
    raise ValueError(f"a cast to ONNX type {to}")


def _constant(node: OnnxNode, _: Inputs) -> np.ndarray:
    for name, dtype in (("value_int", np.int64), ("value_ints", np.int64), ("value_float", np.float32),
                        ("value_floats", np.float32)):  # fmt: skip
        if name in node.attributes:
            return np.array(node.attributes[name], dtype=dtype)
    if "value" not in node.attributes:
        raise ValueError("a constant without a value of numbers")
    array: np.ndarray = node.attributes["value"]
    return array


def _constant_of_shape(node: OnnxNode, inputs: Inputs) -> np.ndarray:
    shape = tuple(int(side) for side in _given(inputs[0]))
    _check_size(shape)
    value = node.attributes.get("value", np.zeros(1, dtype=np.float32))
    return np.full(shape, value.reshape(-1)[0])


def _range(_: OnnxNode, inputs: Inputs) -> np.ndarray:
    start, limit, step = (_given(value).reshape(-1)[0].item() for value in inputs)
    _check_size((max(0, int(np.ceil((limit - start) / step))),))
    numbers: np.ndarray = np.arange(start, limit, step)
    return numbers


def _expand(_: OnnxNode, inputs: Inputs) -> np.ndarray:
    data, shape = _given(inputs[0]), tuple(int(side) for side in _given(inputs[1]))
    shape = np.broadcast_shapes(data.shape, shape)
    _check_size(shape)
    return np.broadcast_to(data, shape)


def _tile(_: OnnxNode, inputs: Inputs) -> np.ndarray:
    data, repeats = _given(inputs[0]), tuple(int(count) for count in _given(inputs[1]))
    _check_size(tuple(side * count for side, count in zip(data.shape, repeats, strict=True)))
    return np.tile(data, repeats)


def _concat(node: OnnxNode, inputs: Inputs) -> np.ndarray:
    parts = [_given(value) for value in inputs]
    _check_size((sum(part.size for part in parts),))
    return np.concatenate(parts, axis=node.attributes.get("axis", 0))


def _gather(node: OnnxNode, inputs: Inputs) -> np.ndarray:
    data, index, axis = _given(inputs[0]), _given(inputs[1]), node.attributes.get("axis", 0)
    _check_size((data.size // max(1, data.shape[axis]), index.size))
    return np.take(data, index, axis=axis)


def _transpose(node: OnnxNode, inputs: Inputs) -> np.ndarray:
    return np.transpose(_given(inputs[0]), node.attributes.get("perm"))


def _reduce(function: Callable[..., np.ndarray]) -> Callable[[OnnxNode, Inputs], np.ndarray]:
    def apply(node: OnnxNode, inputs: Inputs) -> np.ndarray:
        keep = bool(node.attributes.get("keepdims", 1))
        return function(_given(inputs[0]), axis=_axes(node, inputs), keepdims=keep)

    return apply


def _matmul(_: OnnxNode, inputs: Inputs) -> np.ndarray:
    left, right = _given(inputs[0]), _given(inputs[1])
    _check_size((*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), *left.shape[-2:-1], *right.shape[-1:]))
    result: np.ndarray = left @ right
    return result


def _check_size(shape: tuple[int, ...]) -> None:
    if any(side < 0 for side in shape) or prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"a constant of {' x '.join(map(str, shape[:8]))}")


_FUNCTIONS: dict[str, Callable[[OnnxNode, Inputs], np.ndarray | list[np.ndarray]]] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _elementwise(np.cos),
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "Identity": lambda _, inputs: _given(inputs[0]),
    "Less": _elementwise(np.less),
    "Log": _elementwise(np.log),
    "MatMul": _matmul,
    "Max": _elementwise(np.maximum),
    "Min": _elementwise(np.minimum),
    "Mod": _elementwise(np.mod),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": _elementwise(np.power),
    "Range": _range,
    "Reciprocal": _elementwise(np.reciprocal),
    "ReduceMean": _reduce(np.mean),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Shape": lambda node, inputs: np.array(
        _given(inputs[0]).shape[node.attributes.get("start", 0) : node.attributes.get("end")], dtype=np.int64
    ),
    "Sin": _elementwise(np.sin),
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tanh": _elementwise(np.tanh),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where),
}
