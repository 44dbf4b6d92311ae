"""Shapes of values in a graph, for one sample: the batch is left out. Importing this file does not import torch."""

from __future__ import annotations

from math import prod
from typing import Annotated

from pydantic import Field

Shape = tuple[int, ...]

MAX_RANK = 6
MAX_FEATURES = 2**26  # numbers of one value, for one sample

Extent = Annotated[int, Field(ge=1, le=MAX_FEATURES, strict=True)]
Pair = tuple[int, int]


def broadcast(left: Shape, right: Shape) -> Shape:
    """The shape of an elementwise operation on two values of one rank. Raises ``ValueError``."""
    if len(left) != len(right) or any(a != b and 1 not in (a, b) for a, b in zip(left, right, strict=True)):
        raise ValueError(f"shapes that broadcast, not {show(left)} and {show(right)}")
    return tuple(max(a, b) for a, b in zip(left, right, strict=True))


def check_image(shape: Shape) -> None:
    """Raise ``ValueError`` unless ``shape`` is (channels, height, width)."""
    if len(shape) != 3:
        raise ValueError(f"an image (channels, height, width), not {show(shape)}")


def check_axes(axes: tuple[int, ...], rank: int) -> None:
    """Raise ``ValueError`` unless ``axes`` are distinct axes of a value of ``rank``."""
    if len(set(axes)) != len(axes) or not all(0 <= axis < rank for axis in axes):
        raise ValueError(f"distinct axes from 0 to {rank - 1}, not {show(axes)}")


def check_size(shape: Shape) -> None:
    """Raise ``ValueError`` for a value that is empty, of too many axes, or too large."""
    if len(shape) > MAX_RANK:
        raise ValueError(f"at most {MAX_RANK} axes, not {len(shape)}")
    if any(side < 1 for side in shape) or prod(shape) > MAX_FEATURES:
        raise ValueError(f"1 to {MAX_FEATURES} numbers for one sample, not {show(shape)}")


def window(side: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """The output side of a convolution or pooling."""
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def show(shape: Shape) -> str:
    """``shape`` for a message, such as "64 x 8 x 8"."""
    return " x ".join(map(str, shape)) or "a single number"
