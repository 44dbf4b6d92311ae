"""Converts an ONNX model to a graph, operator by operator; what is known beforehand is folded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.graph import LABEL
from generator.models.autoencoders.graphs.operations import Embedding
from generator.models.autoencoders.graphs.shapes import Shape
from generator.models.converters.builder import BuiltGraph, GraphBuilder
from generator.models.converters.onnx.constants import evaluate
from generator.models.converters.onnx.model import MAX_ELEMENTS, OnnxInput, OnnxModel, OnnxNode, read_onnx
from generator.models.converters.onnx.operators import HANDLERS
from generator.models.converters.onnx.values import BATCH, Values
from generator.models.converters.rewrites import simplify
from generator.spec.image_size import AnySize, ImageSize, as_size, format_size

_FACTORS = (1, 2, 4, 8, 16, 32, 64)  # by which decoders enlarge a code, tried in this order


@dataclass(frozen=True, eq=False)
class ConvertedOnnx:
    """Encoder (if given) and decoder; ``classes`` of a decoder that takes class numbers, else 0."""

    encoder: BuiltGraph | None
    decoder: BuiltGraph
    classes: int


def convert_onnx(
    decoder: Path, encoder: Path | None = None, *, size: AnySize | None = None, symmetric: bool = False
) -> ConvertedOnnx:
    """The networks in ONNX files. ``size``: of the images, a side or (width, height), where the files leave it open.

    ``symmetric``: they speak of pixels in [-1, 1] instead of [0, 1]. Raises ``SpecError`` naming the node.
    """
    encoded, code, wanted = None, None, None if size is None else as_size(size)
    if encoder is not None:
        model = read_onnx(encoder, "encoder")
        image = _only_input(model, "encoder")
        shape = _image_shape(image, wanted)
        encoded = _convert_network(model, "encoder", {image.name: "image"}, {"image": shape}, symmetric=symmetric)
        code = encoded.graph.shapes()[encoded.graph.output]
    model = read_onnx(decoder, "decoder")
    code_input, label_input = _decoder_inputs(model)
    classes = 0 if label_input is None else _count_classes(model, label_input)
    names = {code_input.name: "code"} | ({} if label_input is None else {label_input.name: LABEL})
    labels: dict[str, Shape] = {} if label_input is None else {LABEL: ()}

    def convert(code: Shape) -> BuiltGraph:
        return _convert_network(model, "decoder", names, {"code": code} | labels, symmetric=symmetric, classes=classes)

    if code is not None or None not in code_input.shape[1:]:
        return ConvertedOnnx(encoded, convert(code or _known(code_input)), classes)
    return ConvertedOnnx(encoded, _convert_open(convert, code_input, wanted), classes)


def _convert_open(convert: Callable[[Shape], BuiltGraph], code: OnnxInput, size: ImageSize | None) -> BuiltGraph:
    """The decoder whose code leaves height and width open: the first factor that gives images of ``size``."""
    channels = code.shape[1]
    if channels is None or len(code.shape) != 4:
        raise SpecError(f"decoder.{code.name}", "a code whose channels are known", " x ".join(map(str, code.shape[1:])))
    if size is None:
        raise SpecError("size", "the size of the images, which this file leaves open", "none", "give --size")
    tried = []
    for factor in _FACTORS:
        if size.width % factor == 0 and size.height % factor == 0:
            built = convert((channels, size.height // factor, size.width // factor))
            *_, height, width = built.graph.shapes()[built.graph.output]
            if (width, height) == size:
                return built
            tried.append(format_size((width, height)))
    raise SpecError("size", "a size that the decoder can make", size, f"it makes {', '.join(tried[:8])}")


def _convert_network(
    model: OnnxModel,
    field: str,
    names: dict[str, str],
    inputs: dict[str, Shape],
    *,
    symmetric: bool,
    classes: int = 0,
) -> BuiltGraph:
    builder = GraphBuilder(field, **inputs)
    values = Values(builder, dict(model.initializers))
    for entry in model.inputs:
        name = names[entry.name]
        if name == LABEL and entry.is_integer:
            values.labels.add(entry.name)
        elif name == LABEL:  # one-hot rows
            table = np.eye(classes, dtype=np.float32)
            row = builder.add(Embedding, LABEL, tensors={"weight": table}, classes=classes, features=classes)
            values.graph[entry.name] = row
        else:
            values.graph[entry.name] = builder.scale(name, 2.0, -1.0) if symmetric and name == "image" else name
        if entry.shape and entry.shape[0] is not None:
            values.fixed_batch = entry.shape[0]
    for node in model.nodes:
        _convert_node(values, node)
    output = values.graph.get(model.output)
    if output is None:
        raise SpecError(field, "an output that depends on the input", f"{model.output[:120]}, which does not")
    if field == "decoder":
        output = builder.clamp(builder.scale(output, 0.5, 0.5) if symmetric else output, 0.0, 1.0)
    return simplify(builder.finish(output))


def _convert_node(values: Values, node: OnnxNode) -> None:
    for name in node.outputs:
        if name and (name in values.graph or name in values.constants or name in values.labels):
            raise SpecError(node.where, "outputs of names of their own", f"{name[:120]}, which exists")
    if missing := [name for name in node.inputs if name and not _is_defined(values, name)]:
        raise SpecError(node.where, "inputs that come before it", f"{missing[0][:120]}, which does not")
    if node.op == "Shape" and node.inputs and node.inputs[0] in values.graph | dict.fromkeys(values.labels):
        shape = (
            (BATCH, *values.builder.shape(values.graph[node.inputs[0]])) if node.inputs[0] in values.graph else (BATCH,)
        )
        part = shape[node.attributes.get("start", 0) : node.attributes.get("end")]
        values.constants[node.outputs[0]] = np.array(part, dtype=np.int64)
        return
    if node.op in ("Cast", "Identity", "Squeeze", "Reshape") and node.inputs and node.inputs[0] in values.labels:
        values.labels.add(node.outputs[0])
        return
    if all(values.is_known(name) for name in node.inputs):
        _fold(values, node)
        return
    _handle(values, node)


def _handle(values: Values, node: OnnxNode) -> None:
    """Say a node in operations of the graph. Raises ``SpecError`` naming it."""
    handler = HANDLERS.get(node.op)
    if handler is None:
        raise SpecError(node.where, f"one of the operators {', '.join(HANDLERS)}", node.op)
    try:
        results = handler(values, node)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError, AttributeError) as unfit:
        raise SpecError(node.where, "inputs and attributes that fit the operator", str(unfit)[:200]) from unfit
    for name, result in zip(node.outputs, [results] if isinstance(results, str) else results, strict=False):
        values.graph[name] = result


def _fold(values: Values, node: OnnxNode) -> None:
    """Evaluate a node whose inputs are all known. Arrays along the batch are kept for one sample."""
    inputs = [values.constants[name] if name else None for name in node.inputs]
    if node.op in ("ConstantOfShape", "Expand") and len(inputs) > (position := int(node.op == "Expand")):
        shape = inputs[position]
        if shape is not None and BATCH in shape.reshape(-1):
            inputs[position] = np.where(shape == BATCH, 1, shape)
    outputs = evaluate(node, inputs)
    if outputs is None:  # computed by the network, as it is not worth an evaluation of its own
        _handle(values, node)
        return
    values.folded += sum(output.size for output in outputs)
    if values.folded > MAX_ELEMENTS:
        raise SpecError(node.where, f"constants of at most {MAX_ELEMENTS} numbers in all", "more")
    values.constants |= dict(zip(node.outputs, outputs, strict=False))


def _is_defined(values: Values, name: str) -> bool:
    return name in values.graph or name in values.constants or name in values.labels


def _only_input(model: OnnxModel, field: str) -> OnnxInput:
    if len(model.inputs) != 1 or model.inputs[0].is_integer or len(model.inputs[0].shape) != 4:
        got = ", ".join(f"{entry.name[:50]} of {len(entry.shape)} axes" for entry in model.inputs[:5]) or "none"
        raise SpecError(field, "one input, images (batch, channels, height, width)", got)
    return model.inputs[0]


def _image_shape(image: OnnxInput, size: ImageSize | None) -> Shape:
    """(channels, height, width): what the file says, and ``size`` where it leaves sides open."""
    channels, *stated = image.shape[1:]
    wanted = [None, None] if size is None else [size.height, size.width]
    sides = [side if side is not None else other for side, other in zip(stated, wanted, strict=True)]
    known = [side for side in sides if side is not None]
    if channels not in (1, 3) or len(known) < 2 or (size is not None and known != wanted):
        got = " x ".join("?" if side is None else str(side) for side in image.shape[1:])
        expected = "images of 1 or 3 channels" + (f" and size {size}" if size is not None else "")
        raise SpecError(f"encoder.{image.name[:50]}", expected, got, "give --size" if len(known) < 2 else "")
    return (channels, *known)


def _decoder_inputs(model: OnnxModel) -> tuple[OnnxInput, OnnxInput | None]:
    """The input of codes, and that of class numbers or one-hot rows, if there is one."""
    floats = [entry for entry in model.inputs if not entry.is_integer]
    integers = [entry for entry in model.inputs if entry.is_integer]
    if len(model.inputs) == 1 and floats and len(floats[0].shape) in (2, 4):
        return floats[0], None
    if len(model.inputs) == 2 and len(floats) == 1 and len(integers) == 1 and len(floats[0].shape) in (2, 4):
        return floats[0], integers[0]
    if len(floats) == len(model.inputs) == 2 and len(floats[1].shape) == 2 and len(floats[0].shape) in (2, 4):
        return floats[0], floats[1]
    got = ", ".join(f"{entry.name[:50]} of {len(entry.shape)} axes" for entry in model.inputs[:5]) or "none"
    raise SpecError("decoder", "an input of codes, and at most one of classes", got)


def _count_classes(model: OnnxModel, label: OnnxInput) -> int:
    """The width of one-hot rows, or the rows of the table that class numbers select from."""
    if not label.is_integer:
        if not label.shape[1]:
            raise SpecError(f"decoder.{label.name[:50]}", "rows with one number a class", "an open width")
        return label.shape[1]
    names, constants = {label.name}, dict(model.initializers)
    for node in model.nodes:
        if node.op == "Constant" and "value" in node.attributes:
            constants[node.outputs[0]] = node.attributes["value"]
        if node.op in ("Cast", "Identity", "Squeeze", "Reshape") and node.inputs and node.inputs[0] in names:
            names.add(node.outputs[0])
        if node.op == "Gather" and len(node.inputs) > 1 and node.inputs[1] in names and node.inputs[0] in constants:
            return len(constants[node.inputs[0]])
        if node.op == "OneHot" and node.inputs[0] in names and node.inputs[1] in constants:
            return int(constants[node.inputs[1]].reshape(-1)[0])
    raise SpecError(f"decoder.{label.name[:50]}", "class numbers that select rows of a table", "another use")


def _known(code: OnnxInput) -> Shape:
    shape = tuple(side for side in code.shape[1:] if side is not None)
    if prod(shape) > 65_536:
        raise SpecError(f"decoder.{code.name[:50]}", "a code of at most 65536 numbers", prod(shape))
    return shape
