"""How each operator of ONNX is said in a graph. Semantics: onnx.ai/onnx/operators."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.operations import (
    Clamp,
    Conv,
    ConvTranspose,
    Embedding,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    Operation,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Pool,
    PRelu,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Softmax,
)
from generator.models.converters.onnx.model import OnnxNode
from generator.models.converters.onnx.values import BATCH, Values

Handler = Callable[[Values, OnnxNode], str | list[str]]


def _conv(values: Values, node: OnnxNode) -> str:
    x, weight = values.value(node), _image_weight(values, node)
    options, before, after = _convolution(values, node, x, weight.shape[2:])
    if before != after:
        x, options["padding"] = values.builder.add(Pad, x, before=before, after=after), (0, 0)
    tensors = {"weight": weight} | _bias(values, node, 2)
    return values.builder.add(
        Conv, x, hint=node.name, tensors=tensors, channels=weight.shape[0], bias="bias" in tensors, **options
    )


def _conv_transpose(values: Values, node: OnnxNode) -> str:
    x, weight = values.value(node), _image_weight(values, node)
    if "output_shape" in node.attributes:
        raise SpecError(node.where, "a transposed convolution without output_shape", "one with it")
    options, before, after = _convolution(values, node, x, weight.shape[2:])
    if before != after:
        raise SpecError(node.where, "the same padding on both sides", f"{before} and {after}")
    options["output_padding"] = _pair(node, node.attributes.get("output_padding", (0, 0)))
    tensors = {"weight": weight} | _bias(values, node, 2)
    channels = weight.shape[1] * options["groups"]
    return values.builder.add(
        ConvTranspose, x, hint=node.name, tensors=tensors, channels=channels, bias="bias" in tensors, **options
    )


def _convolution(
    values: Values, node: OnnxNode, x: str, kernel: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[int, int], tuple[int, int]]:
    """Options of a convolution or pooling, and its padding before and after."""
    stride = _pair(node, node.attributes.get("strides", (1, 1)))
    dilation = _pair(node, node.attributes.get("dilations", (1, 1)))
    before, after = _padding(values, node, x, kernel, stride, dilation)
    options: dict[str, Any] = {"kernel": tuple(kernel), "stride": stride, "dilation": dilation, "padding": before}
    return options | {"groups": node.attributes.get("group", 1)}, before, after


def _padding(
    values: Values, node: OnnxNode, x: str, kernel: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return (0, 0), (0, 0)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-side // step) - 1) * step + spread * (k - 1) + 1 - side)
            for side, k, step, spread in zip(values.builder.shape(x)[1:], kernel, stride, dilation, strict=True)
        ]
        small, large = _pair(node, [n // 2 for n in total]), _pair(node, [n - n // 2 for n in total])
        return (small, large) if auto == "SAME_UPPER" else (large, small)
    if auto != "NOTSET":
        raise SpecError(f"{node.where}.auto_pad", "NOTSET, VALID, SAME_UPPER or SAME_LOWER", repr(auto))
    pads = tuple(node.attributes.get("pads", (0, 0, 0, 0)))
    if len(pads) != 4:
        raise SpecError(f"{node.where}.pads", "4 numbers, as for images", len(pads))
    return _pair(node, pads[:2]), _pair(node, pads[2:])


def _image_weight(values: Values, node: OnnxNode) -> np.ndarray:
    if node.inputs[1:] and not values.is_known(node.inputs[1]):
        hint = "export a style-modulated convolution as scaled input, plain convolution and scaled output"
        raise SpecError(node.where, "constant weights", "weights computed from the network's input", hint)
    weight = values.constant(node, 1)
    if weight.ndim != 4 or weight.dtype.kind != "f":
        raise SpecError(node.where, "weights of 4 axes, as for images", f"{weight.dtype} with {weight.ndim} axes")
    return weight


def _bias(values: Values, node: OnnxNode, position: int) -> dict[str, np.ndarray]:
    bias = values.optional(node, position)
    return {} if bias is None else {"bias": bias}


def _gemm(values: Values, node: OnnxNode) -> str:
    x, weight = values.value(node), values.constant(node, 1)
    if node.attributes.get("transA", 0) or values.rank(x) != 2 or weight.ndim != 2:
        raise SpecError(node.where, "a product of a sample's features with constant weights", "another one")
    weight = weight * float(node.attributes.get("alpha", 1.0))
    tensors = {"weight": weight if node.attributes.get("transB", 0) else weight.T}
    bias = values.optional(node, 2)
    if bias is not None:
        bias = bias * float(node.attributes.get("beta", 1.0))
        tensors["bias"] = np.broadcast_to(bias.reshape(-1), (len(tensors["weight"]),))
    features = len(tensors["weight"])
    return values.builder.add(Linear, x, hint=node.name, tensors=tensors, features=features, bias=bias is not None)


def _matmul(values: Values, node: OnnxNode) -> str:
    if values.is_known(node.inputs[1]):
        x, weight = values.value(node), values.constant(node, 1)
        if weight.ndim != 2:
            raise SpecError(node.where, "a matrix of constant weights", f"an array of {weight.ndim} axes")
        tensors = {"weight": weight.T}
        return values.builder.add(Linear, x, hint=node.name, tensors=tensors, features=weight.shape[1], bias=False)
    x, y = (values.value(node, position, merged=True) for position in (0, 1))
    if (x in values.merged) != (y in values.merged):
        raise SpecError(node.where, "two inputs with the batch as their first axis", "one with batch and heads in it")
    return _merged_like(values, x, values.builder.add(MatMul, x, y, hint=node.name))


def _merged_like(values: Values, x: str, result: str) -> str:
    """``result``, whose first axis is merged with the batch if that of ``x`` is."""
    if x in values.merged:
        values.merged.add(result)
    return result


def _batch_norm(values: Values, node: OnnxNode) -> str:
    scale_C, bias_C, mean_C, variance_C = (values.constant(node, i).astype(np.float64) for i in range(1, 5))
    spread_C = variance_C + node.attributes.get("epsilon", 1e-5)
    if not spread_C.min(initial=1.0) > 0.0:
        raise SpecError(node.where, "variances of at least 0", float(variance_C.min()))
    factor_C = scale_C / np.sqrt(spread_C)
    return values.builder.affine(values.value(node), factor_C, bias_C - mean_C * factor_C)


def _instance_norm(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    return _affine_norm(values, node, GroupNorm, x, groups=values.builder.shape(x)[0])


def _group_norm(values: Values, node: OnnxNode) -> str:
    """In opset 18 scale and bias are given for each group, since 21 for each channel."""
    x, groups = values.value(node), node.attributes.get("num_groups", 1)
    channels = values.builder.shape(x)[0]
    tensors = {name: values.constant(node, i) for i, name in ((1, "weight"), (2, "bias"))}
    if all(tensor.shape == (groups,) for tensor in tensors.values()) and groups != channels and channels % groups == 0:
        tensors = {name: np.repeat(tensor, channels // groups) for name, tensor in tensors.items()}
    eps = node.attributes.get("epsilon", 1e-5)
    return values.builder.add(GroupNorm, x, hint=node.name, tensors=tensors, groups=groups, eps=eps)


def _layer_norm(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    first = values.axis(node, node.attributes.get("axis", -1), x)
    shape, bias = values.builder.shape(x)[first:], values.optional(node, 2)
    weight = np.broadcast_to(values.constant(node, 1), shape)
    tensors = {"weight": weight, "bias": np.zeros(shape) if bias is None else np.broadcast_to(bias, shape)}
    eps = node.attributes.get("epsilon", 1e-5)
    return values.builder.add(LayerNorm, x, hint=node.name, tensors=tensors, axes=len(shape), eps=eps)


def _affine_norm(values: Values, node: OnnxNode, kind: type[Operation], x: str, **fields: Any) -> str:
    tensors = {name: values.constant(node, position) for position, name in ((1, "weight"), (2, "bias"))}
    eps = node.attributes.get("epsilon", 1e-5)
    return values.builder.add(kind, x, hint=node.name, tensors=tensors, eps=eps, **fields)


def _function(name: str) -> Handler:
    return lambda values, node: values.builder.activation(values.value(node), name)


def _leaky_relu(values: Values, node: OnnxNode) -> str:
    return values.builder.activation(values.value(node), "leaky_relu", slope=node.attributes.get("alpha", 0.01))


def _elu(values: Values, node: OnnxNode) -> str:
    return values.builder.activation(values.value(node), "elu", slope=node.attributes.get("alpha", 1.0))


def _gelu(values: Values, node: OnnxNode) -> str:
    tanh = node.attributes.get("approximate", "none") == "tanh"
    return values.builder.activation(values.value(node), "gelu_tanh" if tanh else "gelu")


def _hard_sigmoid(values: Values, node: OnnxNode) -> str:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return values.builder.clamp(values.builder.scale(values.value(node), alpha, beta), 0.0, 1.0)


def _swish(values: Values, node: OnnxNode) -> str:
    if node.attributes.get("alpha", 1.0) != 1.0:
        raise SpecError(f"{node.where}.alpha", "1", node.attributes["alpha"])
    return values.builder.activation(values.value(node), "silu")


def _prelu(values: Values, node: OnnxNode) -> str:
    x, slope = values.value(node), values.constant(node, 1).reshape(-1)
    slope_C = np.broadcast_to(slope, values.builder.shape(x)[:1]) if len(slope) == 1 else slope
    return values.builder.add(PRelu, x, hint=node.name, tensors={"weight": slope_C})


def _clip(values: Values, node: OnnxNode) -> str:
    bounds = [values.optional(node, position) for position in (1, 2)]
    low, high = (None if bound is None else float(bound.reshape(())) for bound in bounds)
    return values.builder.add(Clamp, values.value(node), hint=node.name, low=low, high=high)


def _pow(values: Values, node: OnnxNode) -> str:
    exponent = values.constant(node, 1)
    functions = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    number = float(exponent.reshape(-1)[0]) if exponent.size == 1 else float("nan")
    if number == 1.0:
        return values.value(node)
    if number not in functions:
        raise SpecError(node.where, "an exponent of 2, 1, 0.5, -0.5 or -1", number)
    return values.builder.activation(values.value(node), functions[number])


def _binary(op: str) -> Handler:
    def apply(values: Values, node: OnnxNode) -> str:
        if len(node.inputs) != 2:
            raise SpecError(node.where, "two inputs", len(node.inputs))
        return values.combine(node, op)

    return apply


def _concat(values: Values, node: OnnxNode) -> str:
    parts = [values.value(node, position) for position in range(len(node.inputs))]
    return values.builder.concat(*parts, axis=values.axis(node, node.attributes.get("axis", 0), parts[0]))


def _split(values: Values, node: OnnxNode) -> list[str]:
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


def _slice(values: Values, node: OnnxNode) -> str:
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


def _gather(values: Values, node: OnnxNode) -> str:
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


def _one_hot(values: Values, node: OnnxNode) -> str:
    if node.inputs[0] not in values.labels:
        raise SpecError(node.where, "class numbers", "other values")
    depth, (off, on) = int(values.constant(node, 1).reshape(-1)[0]), values.constant(node, 2).reshape(-1)[:2]
    if not 1 <= depth <= 65_536:
        raise SpecError(node.where, "1 to 65536 classes", depth)
    return _embed(values, node, np.where(np.eye(depth, dtype=bool), on, off))


def _embed(values: Values, node: OnnxNode, table: np.ndarray) -> str:
    fields = {"classes": table.shape[0], "features": table.shape[1]}
    return values.builder.add(Embedding, "label", hint=node.name, tensors={"weight": table}, **fields)


def _reshape(values: Values, node: OnnxNode) -> str:
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


def _flatten(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    if node.attributes.get("axis", 1) != 1:
        raise SpecError(f"{node.where}.axis", "1", node.attributes["axis"])
    return values.builder.reshape(x, prod(values.builder.shape(x)))


def _transpose(values: Values, node: OnnxNode) -> str:
    x = values.value(node, merged=True)
    order = tuple(node.attributes.get("perm", reversed(range(values.rank(x)))))
    if sorted(order) != list(range(values.rank(x))) or order[0] != 0:
        raise SpecError(node.where, "an order of axes that keeps the batch first", " ".join(map(str, order[:8])))
    if x in values.merged:
        return _merged_like(values, x, values.builder.permute(x, *order))
    return values.builder.permute(x, *(axis - 1 for axis in order[1:]))


def _squeeze(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    shape = values.builder.shape(x)
    given = values.optional(node, 1)
    axes = None if given is None else {values.axis(node, int(axis), x) for axis in given.reshape(-1)}
    kept = [side for axis, side in enumerate(shape) if (side != 1 if axes is None else axis not in axes)]
    return values.builder.reshape(x, *kept)


def _unsqueeze(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    added = values.integers(node, 1)
    rank = values.rank(x) + len(added)
    axes = {axis + rank if axis < 0 else axis for axis in added}
    if 0 in axes or not axes <= set(range(rank)) or len(axes) < len(added):
        raise SpecError(node.where, f"distinct axes from 1 to {rank - 1}", " ".join(map(str, added[:8])))
    sides = iter(values.builder.shape(x))
    return values.builder.reshape(x, *(1 if axis in axes else next(sides) for axis in range(1, rank)))


def _expand(values: Values, node: OnnxNode) -> str:
    """Only along the batch, which every value has already."""
    x, shape = values.value(node), values.integers(node, 1)
    own = (BATCH, *values.builder.shape(x))
    tail = shape[1:] if len(shape) == len(own) else shape
    padded = (1,) * (len(own) - 1 - len(tail)) + tail
    if len(tail) > len(own) - 1 or any(b not in (1, a) for a, b in zip(own[1:], padded, strict=True)):
        raise SpecError(node.where, "an expansion along the batch alone", " x ".join(map(str, shape[:8])))
    return x


def _resize(values: Values, node: OnnxNode) -> str:
    x, mode = values.value(node), node.attributes.get("mode", "nearest")
    channels, *sides = _image(values, node, x)
    scales, sizes = values.optional(node, 2), values.optional(node, 3)
    if sizes is not None:
        target = tuple(int(side) for side in sizes.reshape(-1))
    elif scales is not None and scales.size:
        numbers = tuple(float(scale) for scale in scales.reshape(-1))
        own = (channels, *sides)
        target = tuple(int(np.floor(s * n)) for s, n in zip((1, *own), numbers, strict=False))
        if len(numbers) != 4 or numbers[0] != 1.0:
            raise SpecError(node.where, "scales of height and width", " ".join(map(str, numbers[:8])))
    else:
        raise SpecError(node.where, "scales or sizes", "neither")
    if len(target) != 4 or target[1] != channels:
        raise SpecError(node.where, "another height and width alone", " x ".join(map(str, target[:8])))
    _check_resize(node, mode, tuple(sides), target[2:])
    kind = "nearest" if mode == "nearest" else "bilinear"
    return values.builder.add(Resize, x, hint=node.name, size=target[2:], mode=kind)


def _check_resize(node: OnnxNode, mode: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """Raise ``SpecError`` unless the resizing is that of torch: for whole factors all kinds of nearest agree."""
    transformation = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get("nearest_mode", "round_prefer_floor")
    whole = all(large % small == 0 for small, large in zip(before, after, strict=True))
    if mode == "nearest":
        as_torch = transformation == "asymmetric" and rounding == "floor"
        same = whole and transformation in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")
        if not (as_torch or same):
            raise SpecError(node.where, "nearest of torch", f"{transformation}, {rounding}")
    elif mode == "linear":
        if transformation not in ("half_pixel", "pytorch_half_pixel"):
            raise SpecError(node.where, "half_pixel coordinates", transformation)
        if node.attributes.get("antialias", 0):
            raise SpecError(node.where, "bilinear resizing without antialias", "antialias")
    else:
        raise SpecError(f"{node.where}.mode", "nearest or linear", repr(mode))


def _depth_to_space(values: Values, node: OnnxNode) -> str:
    x, factor = values.value(node), int(node.attributes.get("blocksize", 0))
    if node.attributes.get("mode", "DCR") == "CRD":
        return values.builder.add(PixelShuffle, x, hint=node.name, factor=factor)
    channels, height, width = _image(values, node, x)
    if factor < 1 or channels % factor**2:
        raise SpecError(f"{node.where}.blocksize", f"a number whose square divides {channels}", factor)
    x = values.builder.reshape(x, factor**2, channels // factor**2, height, width)
    x = values.builder.reshape(values.builder.permute(x, 1, 0, 2, 3), channels, height, width)
    return values.builder.add(PixelShuffle, x, hint=node.name, factor=factor)


def _space_to_depth(values: Values, node: OnnxNode) -> str:
    """Channels are in the order (row, column, channel), in a pixel unshuffle (channel, row, column)."""
    x, factor = values.value(node), int(node.attributes.get("blocksize", 0))
    channels, _, _ = _image(values, node, x)
    x = values.builder.add(PixelUnshuffle, x, hint=node.name, factor=factor)
    deep, height, width = values.builder.shape(x)
    x = values.builder.reshape(x, channels, factor**2, height, width)
    return values.builder.reshape(values.builder.permute(x, 1, 0, 2, 3), deep, height, width)


def _pool(kind: str) -> Handler:
    def apply(values: Values, node: OnnxNode) -> str:
        x, kernel = values.value(node), _pair(node, node.attributes.get("kernel_shape", ()))
        options, before, after = _convolution(values, node, x, kernel)
        padded = before != (0, 0)
        if before != after or options["dilation"] != (1, 1) or node.attributes.get("ceil_mode", 0):
            raise SpecError(node.where, "pooling without dilation and ceil_mode, equally padded", "another one")
        if kind == "average" and padded and node.attributes.get("count_include_pad", 0):
            x, before = values.builder.add(Pad, x, before=before, after=after), (0, 0)
        fields = {"kind": kind, "kernel": kernel, "stride": options["stride"], "padding": before}
        return values.builder.add(Pool, x, hint=node.name, **fields)

    return apply


def _global_average(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    _image(values, node, x)
    return values.builder.add(Reduce, x, hint=node.name, op="mean", axes=(1, 2))


def _reduce(op: str) -> Handler:
    def apply(values: Values, node: OnnxNode) -> str:
        x = values.value(node)
        given = values.optional(node, 1)
        axes = node.attributes.get("axes") if given is None else [int(axis) for axis in given.reshape(-1)]
        if axes is None:
            raise SpecError(node.where, "axes inside a sample", "all axes, the batch among them")
        inner = tuple(values.axis(node, axis, x) for axis in axes)
        keep = bool(node.attributes.get("keepdims", 1))
        return values.builder.add(Reduce, x, hint=node.name, op=op, axes=inner, keep=keep)

    return apply


def _softmax(values: Values, node: OnnxNode) -> str:
    x = values.value(node, merged=True)
    axis = values.axis(node, node.attributes.get("axis", -1), x)
    return _merged_like(values, x, values.builder.add(Softmax, x, hint=node.name, axis=axis))


def _pad(values: Values, node: OnnxNode) -> str:
    x, pads, number = values.value(node), values.integers(node, 1), values.optional(node, 2)
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = node.attributes.get("mode", "constant")
    if mode not in modes:
        raise SpecError(f"{node.where}.mode", "constant, reflect or edge", repr(mode))
    _image(values, node, x)
    if values.optional(node, 3) is not None or len(pads) != 8 or any(pads[i] for i in (0, 1, 4, 5)) or min(pads) < 0:
        raise SpecError(node.where, "padding of height and width alone", " ".join(map(str, pads[:8])))
    value = 0.0 if number is None or not number.size else float(number.reshape(-1)[0])
    fields: dict[str, Any] = {"before": pads[2:4], "after": pads[6:8], "mode": modes[mode], "value": value}
    return values.builder.add(Pad, x, hint=node.name, **fields)


def _identity(values: Values, node: OnnxNode) -> str:
    return values.value(node)


def _image(values: Values, node: OnnxNode, x: str) -> tuple[int, int, int]:
    shape = values.builder.shape(x)
    if len(shape) != 3:
        raise SpecError(node.where, "images (batch, channels, height, width)", f"{len(shape) + 1} axes")
    return shape


def _pair(node: OnnxNode, numbers: Any) -> tuple[int, int]:
    if len(numbers) != 2:
        raise SpecError(node.where, "2 numbers, as for images", len(numbers))
    return int(numbers[0]), int(numbers[1])


HANDLERS: dict[str, Handler] = {
    "Abs": _function("abs"),
    "Add": _binary("add"),
    "AveragePool": _pool("average"),
    "BatchNormalization": _batch_norm,
    "Cast": _identity,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Cos": _function("cos"),
    "DepthToSpace": _depth_to_space,
    "Div": _binary("div"),
    "Dropout": _identity,
    "Elu": _elu,
    "Erf": _function("erf"),
    "Exp": _function("exp"),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function("hard_silu"),
    "Identity": _identity,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "Max": _binary("maximum"),
    "MaxPool": _pool("max"),
    "Min": _binary("minimum"),
    "Mish": _function("mish"),
    "Mul": _binary("mul"),
    "Neg": _function("neg"),
    "OneHot": _one_hot,
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _pow,
    "Reciprocal": _function("reciprocal"),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Relu": _function("relu"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Selu": _function("selu"),
    "Sigmoid": _function("sigmoid"),
    "Sin": _function("sin"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _function("softplus"),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": _function("sqrt"),
    "Squeeze": _squeeze,
    "Sub": _binary("sub"),
    "Swish": _swish,
    "Tanh": _function("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
