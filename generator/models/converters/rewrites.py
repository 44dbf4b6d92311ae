"""Makes a graph shorter and faster without changing what it computes, up to rounding.

Exporters write a normalisation or an attention in many small operations, and networks enlarge an image before they
convolve it.

Each rule looks at one node and the nodes it depends on, which must have no other use; it gives the node that replaces
them. Rules are tried until none applies.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, final

import numpy as np

from generator.models.autoencoders.graphs.graph import NetworkGraph
from generator.models.autoencoders.graphs.operations import (
    Activation,
    Affine,
    Attention,
    Binary,
    Constant,
    Conv,
    ConvTranspose,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    Operation,
    Permute,
    PixelNorm,
    Reduce,
    Reshape,
    Resize,
    Scale,
    Softmax,
)
from generator.models.autoencoders.graphs.shapes import Shape
from generator.models.converters.builder import BuiltGraph, Tensors, name_tensors

Kind = TypeVar("Kind", bound=Operation)
_TOLERANCE = 1e-4  # relative, for constants such as the square root of 2


@dataclass(frozen=True)
class _Replacement:
    """A node, its tensors, and nodes that must come before it; or the name of a value that is the same (``node``)."""

    node: Any
    tensors: Tensors
    before: tuple[tuple[Any, Tensors], ...] = ()


def simplify(built: BuiltGraph) -> BuiltGraph:
    """The same network with fewer operations."""
    rewriter = _Rewriter(built)
    while rewriter.apply_rules():
        pass
    return rewriter.result()


@final
class _Rewriter:
    def __init__(self, built: BuiltGraph) -> None:
        self._inputs, self._output = built.graph.inputs, built.graph.output
        self._nodes: dict[str, Any] = {node.name: node for node in built.graph.nodes}
        self._tensors = {
            node.name: {name: built.tensors[f"graph.nodes.{number}.{name}"] for name in wanted}
            for number, node in enumerate(built.graph.nodes)
            for wanted in [built.graph.tensor_shapes().get(node.name, {})]
        }
        self.shapes: dict[str, Shape] = dict(built.graph.shapes())
        self._uses = self._count_uses()

    def apply_rules(self) -> bool:
        """One pass over all nodes; whether anything changed."""
        changed = False
        for name in list(self._nodes):
            node = self._nodes.get(name)
            if node is None:
                continue
            for rule in _RULES:
                replacement = rule(self, node)
                if replacement is not None and not self._clashes(replacement):
                    self._replace(name, replacement)
                    changed = True
                    break
        self._remove_unused()
        return changed

    def result(self) -> BuiltGraph:
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
        return self._tensors[node.name]

    def is_output(self, name: str) -> bool:
        return name == self._output

    def uses(self, name: str) -> int:
        return self._uses[name]

    def _replace(self, name: str, replacement: _Replacement) -> None:
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

    def _clashes(self, replacement: _Replacement) -> bool:
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


def _fold_affine(at: _Rewriter, node: Operation) -> _Replacement | None:
    """A convolution or linear layer followed by one factor and offset a channel: a batch norm, or a bias."""
    if not isinstance(node, Affine):
        return None
    factor_C, offset_C = (at.tensors(node)[name].astype(np.float64) for name in ("weight", "bias"))
    shape = at.shapes[node.inputs[0]]
    for kind, axis in ((Conv, 0), (ConvTranspose, 1), (Linear, 0)):
        layer = at.producer(node.inputs[0], kind)
        if layer is None or (isinstance(layer, Linear) and len(shape) != 1):
            continue
        if isinstance(layer, ConvTranspose) and layer.groups > 1:
            continue
        tensors = at.tensors(layer)
        view = [1] * tensors["weight"].ndim
        view[axis] = -1
        weight = tensors["weight"].astype(np.float64) * factor_C.reshape(view)
        bias = tensors.get("bias", np.zeros(len(offset_C))).astype(np.float64) * factor_C + offset_C
        folded = layer.model_copy(update={"name": node.name, "bias": True})
        return _Replacement(folded, {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)})
    return None


def _join_upsampling(at: _Rewriter, node: Operation) -> _Replacement | None:
    """An image of twice the size by ``nearest``, then a convolution of 3 x 3: one transposed convolution of 4 x 4 and
    stride 2, whose taps are sums of those that meet the same pixel; less than half of the multiplications."""
    if not isinstance(node, Conv) or (node.kernel, node.padding) != ((3, 3), (1, 1)) or node.groups != 1:
        return None
    resize = at.producer(node.inputs[0], Resize, mode="nearest")
    if resize is None or node.stride != (1, 1) or node.dilation != (1, 1):
        return None
    before, height, width = at.shapes[resize.inputs[0]]
    if resize.size != (2 * height, 2 * width):
        return None
    tensors = at.tensors(node)
    taps_UK = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=np.float64)
    weight = np.einsum("uk,vl,oikl->iouv", taps_UK, taps_UK, tensors["weight"].astype(np.float64), optimize=True)
    fields = {"name": node.name, "inputs": resize.inputs, "channels": node.channels, "bias": node.bias}
    grown = ConvTranspose.model_validate(fields | {"kernel": (4, 4), "stride": (2, 2), "padding": (1, 1)})
    assert weight.shape == (before, node.channels, 4, 4)
    return _Replacement(grown, tensors | {"weight": weight.astype(np.float32)})


def _fold_linear_bias(at: _Rewriter, node: Operation) -> _Replacement | None:
    """A product with a matrix, and a constant added along the last axis."""
    if not isinstance(node, Binary) or node.op != "add":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        layer, constant = at.producer(value, Linear, bias=False), at.any_producer(other, Constant)
        if layer is None or constant is None or constant.shape[:-1] != (1,) * (len(constant.shape) - 1):
            continue
        if constant.shape[-1] == layer.features:
            tensors = at.tensors(layer) | {"bias": at.tensors(constant)["value"].reshape(-1)}
            return _Replacement(layer.model_copy(update={"name": node.name, "bias": True}), tensors)
    return None


def _join_reshapes(at: _Rewriter, node: Operation) -> _Replacement | None:
    """A reshaping of a reshaped value, or to the same shape."""
    if not isinstance(node, Reshape):
        return None
    (x,) = node.inputs
    if at.shapes[x] == node.shape and not at.is_output(node.name):
        return _Replacement(x, {})
    first = at.any_producer(x, Reshape)
    return None if first is None else _Replacement(node.model_copy(update={"inputs": first.inputs}), {})


def _find_square(at: _Rewriter, node: Operation) -> _Replacement | None:  # noqa: ARG001  # rules are called alike
    """x * x."""
    if isinstance(node, Binary) and node.op == "mul" and node.inputs[0] == node.inputs[1]:
        return _activation(node, node.inputs[0], "square")
    return None


def _find_rsqrt(at: _Rewriter, node: Operation) -> _Replacement | None:
    """1 / sqrt(x)."""
    if isinstance(node, Activation) and node.function == "reciprocal":
        root = at.producer(node.inputs[0], Activation, function="sqrt")
        return None if root is None else _activation(node, root.inputs[0], "rsqrt")
    return None


def _find_pixel_norm(at: _Rewriter, node: Operation) -> _Replacement | None:
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
            return _Replacement(PixelNorm.model_validate(fields), {})
    return None


def _find_silu(at: _Rewriter, node: Operation) -> _Replacement | None:
    """x * sigmoid(x)."""
    if not isinstance(node, Binary) or node.op != "mul":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        if (gate := at.producer(other, Activation, function="sigmoid")) and gate.inputs == (value,):
            return _activation(node, value, "silu")
    return None


def _find_gelu(at: _Rewriter, node: Operation) -> _Replacement | None:
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


def _find_group_norm(at: _Rewriter, node: Operation) -> _Replacement | None:
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
        return _Replacement(GroupNorm.model_validate(fields | {"inputs": before.inputs}), {})
    shaped = Reshape(name=f"{node.name}_shaped", inputs=before.inputs, shape=node.shape)
    return _Replacement(GroupNorm.model_validate(fields | {"inputs": (shaped.name,)}), {}, ((shaped, {}),))


def _fold_norm_affine(at: _Rewriter, node: Operation) -> _Replacement | None:
    """A group norm followed by one factor and offset a channel."""
    if not isinstance(node, Affine):
        return None
    norm = at.producer(node.inputs[0], GroupNorm)
    if norm is None:
        return None
    tensors = _joined(at.tensors(norm), at.tensors(node)) if norm.affine else at.tensors(node)
    return _Replacement(norm.model_copy(update={"name": node.name, "affine": True}), tensors)


def _join_affine(at: _Rewriter, node: Operation) -> _Replacement | None:
    """Two steps of a factor and an offset a channel."""
    if not isinstance(node, Affine):
        return None
    first = at.producer(node.inputs[0], Affine)
    if first is None:
        return None
    joined = node.model_copy(update={"inputs": first.inputs})
    return _Replacement(joined, _joined(at.tensors(first), at.tensors(node)))


def _join_scale(at: _Rewriter, node: Operation) -> _Replacement | None:
    """Two steps of one factor and one offset."""
    if not isinstance(node, Scale):
        return None
    first = at.producer(node.inputs[0], Scale)
    if first is None:
        return None
    factor, offset = first.factor * node.factor, first.offset * node.factor + node.offset
    return _Replacement(node.model_copy(update={"inputs": first.inputs, "factor": factor, "offset": offset}), {})


def _find_layer_norm(at: _Rewriter, node: Operation) -> _Replacement | None:
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
    return _Replacement(LayerNorm.model_validate(fields), {})


def _find_attention(at: _Rewriter, node: Operation) -> _Replacement | None:
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
        return _Replacement(Attention.model_validate(fields), {})
    return _join_heads(at, node, query, swapped, scale) if rank == 3 else None


def _join_heads(at: _Rewriter, node: MatMul, query: str, keys: Permute, scale: float) -> _Replacement | None:
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
    return _Replacement(result, {}, ((Attention.model_validate(fields), {}), (parts, {})))


def _find_demodulation(at: _Rewriter, node: Operation) -> _Replacement | None:
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
        return _Replacement(shaped, {}, before)
    return None


def _drop_unit_axis(at: _Rewriter, node: Operation) -> _Replacement | None:
    """(1, a, b) to (a, b) to (b, a) to (1, b, a): one order of axes."""
    if not isinstance(node, Reshape) or len(node.shape) != 3:
        return None
    swapped = at.producer(node.inputs[0], Permute, axes=(1, 0))
    flat = at.producer(swapped.inputs[0], Reshape) if swapped is not None else None
    if flat is None or at.shapes[flat.inputs[0]] != (1, *flat.shape) or node.shape != (1, *flat.shape[::-1]):
        return None
    return _Replacement(Permute(name=node.name, inputs=flat.inputs, axes=(0, 2, 1)), {})


def _joined(first: Tensors, second: Tensors) -> Tensors:
    """Factor and offset of two steps after each other."""
    weight = first["weight"].astype(np.float64) * second["weight"]
    bias = first["bias"].astype(np.float64) * second["weight"] + second["bias"]
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def _unscaled(at: _Rewriter, name: str, scale: float) -> tuple[str, float]:
    scaled = at.producer(name, Scale, offset=0.0)
    return (name, scale) if scaled is None else (scaled.inputs[0], scale * scaled.factor)


def _is_plain(at: _Rewriter, norm: GroupNorm) -> bool:
    """Whether a norm has no factors, or factors of 1 and offsets of 0."""
    tensors = at.tensors(norm)
    return not norm.affine or bool((tensors["weight"] == 1.0).all() and (tensors["bias"] == 0.0).all())


def _activation(node: Operation, x: str, function: str) -> _Replacement:
    return _Replacement(Activation.model_validate({"name": node.name, "inputs": (x,), "function": function}), {})


_RULES: tuple[Callable[[_Rewriter, Operation], _Replacement | None], ...] = (
    _fold_affine,
    _join_upsampling,
    _fold_linear_bias,
    _join_affine,
    _join_scale,
    _join_reshapes,
    _find_square,
    _find_rsqrt,
    _find_silu,
    _find_gelu,
    _find_group_norm,
    _fold_norm_affine,
    _find_layer_norm,
    _find_pixel_norm,
    _drop_unit_axis,
    _find_attention,
    _find_demodulation,
)
