"""What the handlers of operators share: common attributes, and checks of their values."""

from __future__ import annotations

from typing import Any

from generator.errors import SpecError
from generator.models.converters.onnx.model import OnnxNode
from generator.models.converters.onnx.values import Values


def pair(node: OnnxNode, numbers: Any) -> tuple[int, int]:
    if len(numbers) != 2:
        raise SpecError(node.where, "2 numbers, as for images", len(numbers))
    return int(numbers[0]), int(numbers[1])


def image_shape(values: Values, node: OnnxNode, x: str) -> tuple[int, int, int]:
    shape = values.builder.shape(x)
    if len(shape) != 3:
        raise SpecError(node.where, "images (batch, channels, height, width)", f"{len(shape) + 1} axes")
    return shape


def merged_like(values: Values, x: str, result: str) -> str:
    """``result``, whose first axis is merged with the batch if that of ``x`` is."""
    if x in values.merged:
        values.merged.add(result)
    return result


def convolution(
    values: Values, node: OnnxNode, x: str, kernel: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[int, int], tuple[int, int]]:
    """Options of a convolution or pooling, and its padding before and after."""
    stride = pair(node, node.attributes.get("strides", (1, 1)))
    dilation = pair(node, node.attributes.get("dilations", (1, 1)))
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
        small, large = pair(node, [n // 2 for n in total]), pair(node, [n - n // 2 for n in total])
        return (small, large) if auto == "SAME_UPPER" else (large, small)
    if auto != "NOTSET":
        raise SpecError(f"{node.where}.auto_pad", "NOTSET, VALID, SAME_UPPER or SAME_LOWER", repr(auto))
    pads = tuple(node.attributes.get("pads", (0, 0, 0, 0)))
    if len(pads) != 4:
        raise SpecError(f"{node.where}.pads", "4 numbers, as for images", len(pads))
    return pair(node, pads[:2]), pair(node, pads[2:])
