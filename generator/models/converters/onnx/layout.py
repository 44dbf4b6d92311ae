"""Operators of ONNX that move, select and join numbers, and tables of classes, as operations of a graph."""

from __future__ import annotations

from math import prod

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.operations import (
    Embedding,
    Reshape,
    Slice,
)
from generator.models.converters.onnx.arguments import merged_like
from generator.models.converters.onnx.model import OnnxNode
from generator.models.converters.onnx.values import BATCH, Values


def concat(values: Values, node: OnnxNode) -> str:
    parts = [values.value(node, position) for position in range(len(node.inputs))]
    return values.builder.concat(*parts, axis=values.axis(node, node.attributes.get("axis", 0), parts[0]))


def split_values(values: Values, node: OnnxNode) -> list[str]:
    x, sizes = values.value(node), values.optional(node, 1)
    axis = values.axis(node, node.attributes.get("axis", 0), x)
    side, count = values.builder.shape(x)[axis], len(node.outputs)
    step = -(-side // count)
    parts = [step] * (count - 1) + [side - step * (count - 1)] if sizes is None else [int(n) for n in sizes]
    if len(parts) != count:
        raise SpecError(node.where, f"sizes of {count} parts", len(parts))
    ends = np.cumsum(parts)
    return [
        values.builder.add(Slice, x, hint=node.name, axis=axis, start=int(end - part), end=int(end))
        for part, end in zip(parts, ends, strict=True)
    ]


def slice_values(values: Values, node: OnnxNode) -> str:
    x, starts, ends = values.value(node), values.integers(node, 1), values.integers(node, 2)
    axes = values.integers(node, 3) if values.optional(node, 3) is not None else tuple(range(len(starts)))
    steps = values.integers(node, 4) if values.optional(node, 4) is not None else (1,) * len(starts)
    for start, end, onnx_axis, step in zip(starts, ends, axes, steps, strict=True):
        if step != 1:
            raise SpecError(node.where, "steps of 1", step)
        axis = values.axis(node, onnx_axis, x)
        side = values.builder.shape(x)[axis]
        first, last, _ = slice(start, end).indices(side)
        if (first, last) != (0, side):
            x = values.builder.add(Slice, x, hint=node.name, axis=axis, start=first, end=last)
    return x


def gather(values: Values, node: OnnxNode) -> str:
    """One index along an axis, or rows of a table for class numbers."""
    if node.inputs[1] in values.labels:
        table = values.constant(node, 0)
        if table.ndim != 2 or node.attributes.get("axis", 0) != 0:
            raise SpecError(node.where, "a table with a row for each class", f"{table.ndim} axes")
        return _embed(values, node, table)
    x, index = values.value(node), values.constant(node, 1)
    axis = values.axis(node, node.attributes.get("axis", 0), x)
    shape = values.builder.shape(x)
    if index.size != 1:
        raise SpecError(node.where, "a single index", f"{index.size} of them")
    start = int(index.reshape(-1)[0]) % shape[axis] if -shape[axis] <= int(index.reshape(-1)[0]) < shape[axis] else -1
    if start < 0:
        raise SpecError(node.where, f"an index below {shape[axis]}", int(index.reshape(-1)[0]))
    part = values.builder.add(Slice, x, hint=node.name, axis=axis, start=start, end=start + 1)
    return part if index.ndim == 1 else values.builder.reshape(part, *shape[:axis], *shape[axis + 1 :])


def one_hot(values: Values, node: OnnxNode) -> str:
    if node.inputs[0] not in values.labels:
        raise SpecError(node.where, "class numbers", "other values")
    depth, (off, on) = int(values.constant(node, 1).reshape(-1)[0]), values.constant(node, 2).reshape(-1)[:2]
    if not 1 <= depth <= 65_536:
        raise SpecError(node.where, "1 to 65536 classes", depth)
    return _embed(values, node, np.where(np.eye(depth, dtype=bool), on, off))


def _embed(values: Values, node: OnnxNode, table: np.ndarray) -> str:
    fields = {"classes": table.shape[0], "features": table.shape[1]}
    return values.builder.add(Embedding, "label", hint=node.name, tensors={"weight": table}, **fields)


def reshape(values: Values, node: OnnxNode) -> str:
    x, wanted = values.value(node, merged=True), list(values.integers(node, 1))
    shape = values.builder.shape(x)
    if not node.attributes.get("allowzero") and 0 in wanted:
        own = (BATCH, *shape)
        wanted = [own[axis] if side == 0 and axis < len(own) else side for axis, side in enumerate(wanted)]
    first, rest = wanted[0] if wanted else 0, wanted[1:]
    if rest and min(rest) > 0 and prod(shape) % prod(rest) == 0:
        parts = prod(shape) // prod(rest)
        if first == -1 and parts == 1:
            first = BATCH
        elif parts > 1 and first in (-1, parts * BATCH, parts * (values.fixed_batch or 0)):
            merged = values.builder.add(Reshape, x, hint=node.name, shape=(parts, *rest))
            values.merged.add(merged)
            return merged
    if not values.is_batch(first) or any(side == BATCH for side in rest):
        got = " x ".join("batch" if side == BATCH else str(side) for side in wanted[:8])
        raise SpecError(node.where, "a shape that keeps the batch as its first axis", got)
    return values.builder.add(Reshape, x, hint=node.name, shape=_complete(node, rest, prod(shape)))


def _complete(node: OnnxNode, sides: list[int], total: int) -> tuple[int, ...]:
    """Sides with the one that is -1 computed."""
    known = prod(side for side in sides if side != -1)
    if sides.count(-1) > 1 or (-1 in sides and (known <= 0 or total % known)):
        raise SpecError(node.where, f"a shape of {total} numbers", " x ".join(map(str, sides[:8])))
    return tuple(total // known if side == -1 else side for side in sides)


def flatten(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    if node.attributes.get("axis", 1) != 1:
        raise SpecError(f"{node.where}.axis", "1", node.attributes["axis"])
    return values.builder.reshape(x, prod(values.builder.shape(x)))


def transpose(values: Values, node: OnnxNode) -> str:
    x = values.value(node, merged=True)
    order = tuple(node.attributes.get("perm", reversed(range(values.rank(x)))))
    if sorted(order) != list(range(values.rank(x))) or order[0] != 0:
        raise SpecError(node.where, "an order of axes that keeps the batch first", " ".join(map(str, order[:8])))
    if x in values.merged:
        return merged_like(values, x, values.builder.permute(x, *order))
    return values.builder.permute(x, *(axis - 1 for axis in order[1:]))


def squeeze(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    shape = values.builder.shape(x)
    given = values.optional(node, 1)
    axes = None if given is None else {values.axis(node, int(axis), x) for axis in given.reshape(-1)}
    kept = [side for axis, side in enumerate(shape) if (side != 1 if axes is None else axis not in axes)]
    return values.builder.reshape(x, *kept)


def unsqueeze(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    added = values.integers(node, 1)
    rank = values.rank(x) + len(added)
    axes = {axis + rank if axis < 0 else axis for axis in added}
    if 0 in axes or not axes <= set(range(rank)) or len(axes) < len(added):
        raise SpecError(node.where, f"distinct axes from 1 to {rank - 1}", " ".join(map(str, added[:8])))
    sides = iter(values.builder.shape(x))
    return values.builder.reshape(x, *(1 if axis in axes else next(sides) for axis in range(1, rank)))


def expand(values: Values, node: OnnxNode) -> str:
    """Only along the batch, which every value has already."""
    x, shape = values.value(node), values.integers(node, 1)
    own = (BATCH, *values.builder.shape(x))
    tail = shape[1:] if len(shape) == len(own) else shape
    padded = (1,) * (len(own) - 1 - len(tail)) + tail
    if len(tail) > len(own) - 1 or any(b not in (1, a) for a, b in zip(own[1:], padded, strict=True)):
        raise SpecError(node.where, "an expansion along the batch alone", " x ".join(map(str, shape[:8])))
    return x
