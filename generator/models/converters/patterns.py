"""Rules that recognise what exporters write in many small operations: norms, activations, attention."""

from __future__ import annotations

import math

import numpy as np

from generator.models.autoencoders.graphs.operations import (
    Activation,
    Attention,
    Binary,
    Constant,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    Operation,
    Permute,
    PixelNorm,
    Reduce,
    Reshape,
    Scale,
    Softmax,
)
from generator.models.converters.builder import Tensors
from generator.models.converters.rewriter import Replacement, Rewriter

_TOLERANCE = 1e-4  # relative, for constants such as the square root of 2


def find_square(at: Rewriter, node: Operation) -> Replacement | None:  # noqa: ARG001  # rules are called alike
    """x * x."""
    if isinstance(node, Binary) and node.op == "mul" and node.inputs[0] == node.inputs[1]:
        return _activation(node, node.inputs[0], "square")
    return None


def find_rsqrt(at: Rewriter, node: Operation) -> Replacement | None:
    """1 / sqrt(x)."""
    if isinstance(node, Activation) and node.function == "reciprocal":
        root = at.producer(node.inputs[0], Activation, function="sqrt")
        return None if root is None else _activation(node, root.inputs[0], "rsqrt")
    return None


def find_pixel_norm(at: Rewriter, node: Operation) -> Replacement | None:
    """x * rsqrt(mean of x^2 along one axis + eps)."""
    if not isinstance(node, Binary) or node.op not in ("mul", "div"):
        return None
    for x, gain in (node.inputs, node.inputs[::-1])[: 2 if node.op == "mul" else 1]:
        root = at.producer(gain, Activation, function="rsqrt" if node.op == "mul" else "sqrt")
        added = at.producer(root.inputs[0], Scale, factor=1.0) if root is not None else None
        mean = at.producer(added.inputs[0], Reduce, op="mean", keep=True) if added is not None else None
        square = at.producer(mean.inputs[0], Activation, function="square") if mean is not None else None
        if added is None or mean is None or square is None or square.inputs != (x,) or len(mean.axes) != 1:
            continue
        if 0.0 <= added.offset <= 1.0:
            fields = {"name": node.name, "inputs": (x,), "axis": mean.axes[0], "eps": added.offset}
            return Replacement(PixelNorm.model_validate(fields), {})
    return None


def find_silu(at: Rewriter, node: Operation) -> Replacement | None:
    """x * sigmoid(x)."""
    if not isinstance(node, Binary) or node.op != "mul":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        if (gate := at.producer(other, Activation, function="sigmoid")) and gate.inputs == (value,):
            return _activation(node, value, "silu")
    return None


def find_gelu(at: Rewriter, node: Operation) -> Replacement | None:
    """x * (1 + erf(x / sqrt(2))) * 0.5, whatever the order of the factors."""
    outer = 1.0
    last: Operation | None = node
    if isinstance(node, Scale) and node.offset == 0.0:
        outer, last = node.factor, at.producer(node.inputs[0], Binary, op="mul")
    if not isinstance(last, Binary) or last.op != "mul":
        return None
    for left, right in (last.inputs, last.inputs[::-1]):
        gate = at.producer(right, Scale)
        erf = at.producer(gate.inputs[0], Activation, function="erf") if gate is not None else None
        inner = at.producer(erf.inputs[0], Scale, offset=0.0) if erf is not None else None
        if gate is None or inner is None or not math.isclose(inner.factor, math.sqrt(0.5), rel_tol=_TOLERANCE):
            continue
        half = at.producer(left, Scale, offset=0.0)
        x, factor = (left, 1.0) if left == inner.inputs[0] else (half.inputs[0], half.factor) if half else ("", 0.0)
        whole = outer * factor * gate.factor
        if x == inner.inputs[0] and gate.factor == gate.offset and math.isclose(whole, 0.5, rel_tol=_TOLERANCE):
            return _activation(node, x, "gelu")
    return None


def find_group_norm(at: Rewriter, node: Operation) -> Replacement | None:
    """Reshape to (groups, rest), an instance norm with factors of 1, and back."""
    if not isinstance(node, Reshape):
        return None
    norm = at.producer(node.inputs[0], GroupNorm)
    before = at.producer(norm.inputs[0], Reshape) if norm is not None else None
    if norm is None or before is None or norm.groups != before.shape[0] or not _is_plain(at, norm):
        return None
    shape = at.shapes[before.inputs[0]]
    if shape[:1] != node.shape[:1] or shape[0] % norm.groups:
        return None
    fields = {"name": node.name, "groups": norm.groups, "eps": norm.eps, "affine": False}
    if shape == node.shape:
        return Replacement(GroupNorm.model_validate(fields | {"inputs": before.inputs}), {})
    shaped = Reshape(name=f"{node.name}_shaped", inputs=before.inputs, shape=node.shape)
    return Replacement(GroupNorm.model_validate(fields | {"inputs": (shaped.name,)}), {}, ((shaped, {}),))


def find_layer_norm(at: Rewriter, node: Operation) -> Replacement | None:
    """(x - mean) / sqrt(mean of (x - mean)^2 + eps) over the last axis or axes."""
    if not isinstance(node, Binary) or node.op not in ("div", "mul"):
        return None
    centred, spread = node.inputs
    difference = at.any_producer(centred, Binary, op="sub")
    root = at.producer(spread, Activation, function="sqrt" if node.op == "div" else "rsqrt")
    added = at.producer(root.inputs[0], Scale, factor=1.0) if root is not None else None
    variance = at.producer(added.inputs[0], Reduce, op="mean", keep=True) if added is not None else None
    square = at.producer(variance.inputs[0], Activation, function="square") if variance is not None else None
    if difference is None or added is None or variance is None or square is None or square.inputs != (centred,):
        return None
    x, rank = difference.inputs[0], len(at.shapes[difference.inputs[0]])
    mean = at.producer(difference.inputs[1], Reduce, op="mean", keep=True)
    axes = tuple(sorted(variance.axes))
    if mean is None or mean.inputs != (x,) or tuple(sorted(mean.axes)) != axes or at.uses(centred) != 2:
        return None
    if axes != tuple(range(rank - len(axes), rank)) or not 0.0 <= added.offset <= 1.0:
        return None
    fields = {"name": node.name, "inputs": (x,), "axes": len(axes), "eps": added.offset, "affine": False}
    return Replacement(LayerNorm.model_validate(fields), {})


def find_attention(at: Rewriter, node: Operation) -> Replacement | None:
    """softmax(scale * q k^T) v of matrices (positions, features), or of (heads, positions, features)."""
    if not isinstance(node, MatMul):
        return None
    weights = at.producer(node.inputs[0], Softmax)
    rank = len(at.shapes[node.name])
    if weights is None or weights.axis != rank - 1:
        return None
    scores, scale = weights.inputs[0], 1.0
    if (scaled := at.producer(scores, Scale, offset=0.0)) is not None:
        scores, scale = scaled.inputs[0], scaled.factor
    product = at.producer(scores, MatMul)
    if product is None:
        return None
    query, scale = _unscaled(at, product.inputs[0], scale)
    keys, scale = _unscaled(at, product.inputs[1], scale)
    swapped = at.producer(keys, Permute)
    if swapped is None or not 0.0 < scale <= 1000.0:
        return None
    if rank == 2 and swapped.axes == (1, 0):
        inputs = (query, swapped.inputs[0], node.inputs[1])
        fields = {"name": node.name, "inputs": inputs, "heads": 1, "scale": scale}
        return Replacement(Attention.model_validate(fields), {})
    return _join_heads(at, node, query, swapped, scale) if rank == 3 else None


def _join_heads(at: Rewriter, node: MatMul, query: str, keys: Permute, scale: float) -> Replacement | None:
    """Heads split from and joined to (positions, features): the attention of whole rows, split again afterwards."""
    sources = []
    orders = {query: ((1, 0, 2),), node.inputs[1]: ((1, 0, 2),), keys.name: ((1, 2, 0), (0, 2, 1))}
    for name in (query, keys.name, node.inputs[1]):
        permuted = at.producer(name, Permute)
        if permuted is None or permuted.axes not in orders[name]:
            return None
        if name == keys.name and permuted.axes == (0, 2, 1):
            permuted = at.producer(permuted.inputs[0], Permute, axes=(1, 0, 2))
        split = at.producer(permuted.inputs[0], Reshape) if permuted is not None else None
        if split is None or len(at.shapes[split.inputs[0]]) != 2 or len(split.shape) != 3:
            return None
        if split.shape[0] != at.shapes[split.inputs[0]][0]:
            return None
        sources.append(split)
    heads = sources[0].shape[1]
    if any(split.shape[1] != heads for split in sources):
        return None
    positions, features = at.shapes[node.name][1:]
    rows = f"{node.name}_rows"
    fields = {"name": rows, "inputs": tuple(s.inputs[0] for s in sources), "heads": heads, "scale": scale}
    parts = Reshape(name=f"{node.name}_heads", inputs=(rows,), shape=(positions, heads, features))
    result = Permute(name=node.name, inputs=(parts.name,), axes=(1, 0, 2))
    return Replacement(result, {}, ((Attention.model_validate(fields), {}), (parts, {})))


def find_demodulation(at: Rewriter, node: Operation) -> Replacement | None:
    """Sum over input channels and kernel of (weight * style)^2 (Karras et al., CVPR 2020), as a small product."""
    if not isinstance(node, Reduce) or node.op != "sum" or node.axes != (1, 2, 3):
        return None
    square = at.producer(node.inputs[0], Activation, function="square")
    product = at.any_producer(square.inputs[0], Binary, op="mul") if square is not None else None
    if product is None:
        return None
    for style, weight in (product.inputs, product.inputs[::-1]):
        constant, shape = at.any_producer(weight, Constant), at.shapes[style]
        if constant is None or len(constant.shape) != 4 or shape != (1, constant.shape[1], 1, 1):
            continue
        power_OI = np.square(at.tensors(constant)["value"].astype(np.float64)).sum(axis=(2, 3))
        outputs, inputs = power_OI.shape
        flat = Reshape(name=f"{node.name}_style", inputs=(style,), shape=(inputs,))
        squared = Activation(name=f"{node.name}_square", inputs=(flat.name,), function="square")
        total = Linear(name=f"{node.name}_sum", inputs=(squared.name,), features=outputs, bias=False)
        shaped = Reshape(name=node.name, inputs=(total.name,), shape=at.shapes[node.name])
        before = ((flat, Tensors()), (squared, Tensors()), (total, {"weight": power_OI.astype(np.float32)}))
        return Replacement(shaped, {}, before)
    return None


def _unscaled(at: Rewriter, name: str, scale: float) -> tuple[str, float]:
    scaled = at.producer(name, Scale, offset=0.0)
    return (name, scale) if scaled is None else (scaled.inputs[0], scale * scaled.factor)


def _is_plain(at: Rewriter, norm: GroupNorm) -> bool:
    """Whether a norm has no factors, or factors of 1 and offsets of 0."""
    tensors = at.tensors(norm)
    return not norm.affine or bool((tensors["weight"] == 1.0).all() and (tensors["bias"] == 0.0).all())


def _activation(node: Operation, x: str, function: str) -> Replacement:
    return Replacement(Activation.model_validate({"name": node.name, "inputs": (x,), "function": function}), {})
