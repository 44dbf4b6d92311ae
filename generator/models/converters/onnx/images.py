"""Operators of ONNX that resize, pool, pad and reduce images, as operations of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from generator.errors import SpecError
from generator.models.autoencoders.graphs.operations import (
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Pool,
    Reduce,
    Resize,
    Softmax,
)
from generator.models.converters.onnx.arguments import convolution, image_shape, merged_like, pair
from generator.models.converters.onnx.model import OnnxNode
from generator.models.converters.onnx.values import Handler, Values


def resize(values: Values, node: OnnxNode) -> str:
    x, mode = values.value(node), node.attributes.get("mode", "nearest")
    channels, *sides = image_shape(values, node, x)
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


def depth_to_space(values: Values, node: OnnxNode) -> str:
    x, factor = values.value(node), int(node.attributes.get("blocksize", 0))
    if node.attributes.get("mode", "DCR") == "CRD":
        return values.builder.add(PixelShuffle, x, hint=node.name, factor=factor)
    channels, height, width = image_shape(values, node, x)
    if factor < 1 or channels % factor**2:
        raise SpecError(f"{node.where}.blocksize", f"a number whose square divides {channels}", factor)
    x = values.builder.reshape(x, factor**2, channels // factor**2, height, width)
    x = values.builder.reshape(values.builder.permute(x, 1, 0, 2, 3), channels, height, width)
    return values.builder.add(PixelShuffle, x, hint=node.name, factor=factor)


def space_to_depth(values: Values, node: OnnxNode) -> str:
    """Channels are in the order (row, column, channel), in a pixel unshuffle (channel, row, column)."""
    x, factor = values.value(node), int(node.attributes.get("blocksize", 0))
    channels, _, _ = image_shape(values, node, x)
    x = values.builder.add(PixelUnshuffle, x, hint=node.name, factor=factor)
    deep, height, width = values.builder.shape(x)
    x = values.builder.reshape(x, channels, factor**2, height, width)
    return values.builder.reshape(values.builder.permute(x, 1, 0, 2, 3), deep, height, width)


def pool(kind: str) -> Handler:
    def apply(values: Values, node: OnnxNode) -> str:
        x, kernel = values.value(node), pair(node, node.attributes.get("kernel_shape", ()))
        options, before, after = convolution(values, node, x, kernel)
        padded = before != (0, 0)
        if before != after or options["dilation"] != (1, 1) or node.attributes.get("ceil_mode", 0):
            raise SpecError(node.where, "pooling without dilation and ceil_mode, equally padded", "another one")
        if kind == "average" and padded and node.attributes.get("count_include_pad", 0):
            x, before = values.builder.add(Pad, x, before=before, after=after), (0, 0)
        fields = {"kind": kind, "kernel": kernel, "stride": options["stride"], "padding": before}
        return values.builder.add(Pool, x, hint=node.name, **fields)

    return apply


def global_average(values: Values, node: OnnxNode) -> str:
    x = values.value(node)
    image_shape(values, node, x)
    return values.builder.add(Reduce, x, hint=node.name, op="mean", axes=(1, 2))


def reduce_axes(op: str) -> Handler:
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


def softmax(values: Values, node: OnnxNode) -> str:
    x = values.value(node, merged=True)
    axis = values.axis(node, node.attributes.get("axis", -1), x)
    return merged_like(values, x, values.builder.add(Softmax, x, hint=node.name, axis=axis))


def pad(values: Values, node: OnnxNode) -> str:
    x, pads, number = values.value(node), values.integers(node, 1), values.optional(node, 2)
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = node.attributes.get("mode", "constant")
    if mode not in modes:
        raise SpecError(f"{node.where}.mode", "constant, reflect or edge", repr(mode))
    image_shape(values, node, x)
    if values.optional(node, 3) is not None or len(pads) != 8 or any(pads[i] for i in (0, 1, 4, 5)) or min(pads) < 0:
        raise SpecError(node.where, "padding of height and width alone", " ".join(map(str, pads[:8])))
    value = 0.0 if number is None or not number.size else float(number.reshape(-1)[0])
    fields: dict[str, Any] = {"before": pads[2:4], "after": pads[6:8], "mode": modes[mode], "value": value}
    return values.builder.add(Pad, x, hint=node.name, **fields)
