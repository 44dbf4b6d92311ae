"""Reads an ONNX file into plain values. External data is never opened, and subgraphs are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from generator.errors import SpecError

MIN_OPSET = 13
MAX_FILE_BYTES = 2**31 - 1  # of a protobuf message
MAX_NODES = 20_000
MAX_ELEMENTS = 2**28  # of one tensor
_DOMAINS = ("", "ai.onnx")
_TYPES = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
_INTEGERS = {onnx.TensorProto.INT64, onnx.TensorProto.INT32}


@dataclass(frozen=True)
class OnnxNode:
    """One node of the model in ``field``."""

    field: str
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def where(self) -> str:
        """How errors name it."""
        return f"{self.field}.{self.name} ({self.op})"


@dataclass(frozen=True)
class OnnxInput:
    """An input of the model; ``None`` in ``shape`` for a symbolic side. ``is_integer``: class numbers."""

    name: str
    shape: tuple[int | None, ...]
    is_integer: bool


@dataclass(frozen=True)
class OnnxModel:
    """A model: nodes in the order of computation, initialisers by name, inputs that are not initialisers."""

    nodes: tuple[OnnxNode, ...]
    initializers: dict[str, np.ndarray]
    inputs: tuple[OnnxInput, ...]
    output: str
    opset: int


def read_onnx(path: Path, field: str) -> OnnxModel:
    """The model in the file at ``path``. Raises ``SpecError``; ``field`` names the file in errors."""
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise SpecError(field, f"at most {MAX_FILE_BYTES} bytes", f"{size} bytes")
        data = path.read_bytes()
    except OSError as missing:
        raise SpecError(field, "an ONNX file that can be read", f"{path} ({missing.strerror})") from missing
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as broken:
        raise SpecError(field, "an ONNX file", f"{path}, which does not parse") from broken
    if not proto.graph.node:
        raise SpecError(field, "an ONNX file with nodes", f"{path}, which has none (or is not an ONNX file)")
    if proto.functions:
        raise SpecError(field, "a model without functions", f"{len(proto.functions)} functions", "export it inlined")
    return _convert(proto, field)


def _convert(proto: onnx.ModelProto, field: str) -> OnnxModel:
    graph = proto.graph
    opset = next((entry.version for entry in proto.opset_import if entry.domain in _DOMAINS), 0)
    if opset < MIN_OPSET:
        raise SpecError(field, f"opset {MIN_OPSET} or later", f"opset {opset}", "export it again with a later opset")
    if len(graph.node) > MAX_NODES:
        raise SpecError(field, f"at most {MAX_NODES} nodes", len(graph.node))
    if graph.sparse_initializer:
        raise SpecError(field, "dense initialisers", f"{len(graph.sparse_initializer)} sparse ones")
    initializers = dict[str, np.ndarray]()
    for tensor in graph.initializer:
        if tensor.name in initializers:
            raise SpecError(f"{field}.{_text(tensor.name)}", "an initialiser of a name of its own", "two of this name")
        initializers[tensor.name] = read_tensor(tensor, f"{field}.{_text(tensor.name)}")
    if len(graph.output) != 1:
        raise SpecError(field, "a model with one output", f"{len(graph.output)} outputs")
    return OnnxModel(
        nodes=tuple(_read_node(node, number, field) for number, node in enumerate(graph.node)),
        initializers=initializers,
        inputs=tuple(_read_input(value, field) for value in graph.input if value.name not in initializers),
        output=graph.output[0].name,
        opset=opset,
    )


def read_tensor(tensor: onnx.TensorProto, where: str) -> np.ndarray:
    """A tensor inside the file as an array; half precision as float32. Raises ``SpecError``."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise SpecError(where, "a tensor inside the file", "external data", "save the model as one file")
    if any(side < 0 for side in tensor.dims) or prod(tensor.dims) > MAX_ELEMENTS:
        shape = " x ".join(map(str, list(tensor.dims)[:8]))
        raise SpecError(where, f"a tensor of at most {MAX_ELEMENTS} numbers", shape)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as broken:
        raise SpecError(where, "a tensor whose data fit its shape", str(broken)[:200]) from broken
    if array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float16"):
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise SpecError(where, "finite numbers", "NaN or infinity")
    elif array.dtype.kind not in "iub":
        raise SpecError(where, "a tensor of numbers", array.dtype.name)
    return array


def _read_node(node: onnx.NodeProto, number: int, field: str) -> OnnxNode:
    name = _text(node.name) or f"node {number}"
    where = f"{field}.{name} ({_text(node.op_type)})"
    if node.domain not in _DOMAINS:
        raise SpecError(where, "an operator of ONNX itself", f"one of {_text(node.domain)}")
    attributes = dict[str, Any]()
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise SpecError(where, "a node without subgraphs", f"the attribute {_text(attribute.name)}")
        if attribute.type == onnx.AttributeProto.TENSOR:
            attributes[attribute.name] = read_tensor(attribute.t, f"{where}.{_text(attribute.name)}")
            continue
        try:
            value = onnx.helper.get_attribute_value(attribute)
        except ValueError as unknown:
            raise SpecError(where, "attributes of a known type", _text(attribute.name)) from unknown
        if value is None:
            raise SpecError(where, "attributes of a known type", _text(attribute.name))
        attributes[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return OnnxNode(field, name, _text(node.op_type), tuple(node.input), tuple(node.output), attributes)


def _read_input(value: onnx.ValueInfoProto, field: str) -> OnnxInput:
    tensor, where = value.type.tensor_type, f"{field}.{_text(value.name)}"
    if tensor.elem_type not in _TYPES | _INTEGERS:
        raise SpecError(where, "an input of floats, or of class numbers", f"ONNX type {tensor.elem_type}")
    if not tensor.HasField("shape"):
        raise SpecError(where, "an input of a known shape", "none")
    sides = [side.dim_value if side.HasField("dim_value") else None for side in tensor.shape.dim]
    if any(side is not None and not 1 <= side <= 2**24 for side in sides):
        raise SpecError(where, "sides from 1 to 16777216", " x ".join(map(str, sides[:8])))
    return OnnxInput(value.name, tuple(sides), tensor.elem_type in _INTEGERS)


def _text(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:120])
