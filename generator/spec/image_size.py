"""The size of images as people write it: ``64`` for a square, ``96x64`` for 96 pixels of width and 64 of height."""

from __future__ import annotations

import re
from typing import NamedTuple

from generator.errors import InputError, SpecError
from generator.spec.canonical import short_repr

MIN_SIDE, MAX_SIDE = 8, 512  # pixels

_TEXT = re.compile(r"([0-9]{1,9})(?:[xX]([0-9]{1,9}))?")


class ImageSize(NamedTuple):
    """Width and height in pixels, in this order, as in ``96x64``."""

    width: int
    height: int

    @property
    def is_square(self) -> bool:
        return self.width == self.height

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def __str__(self) -> str:
        return format_size(self)


AnySize = int | tuple[int, int]  # the side of squares, or (width, height)


def as_size(size: AnySize) -> ImageSize:
    """A side, or (width, height), as a size. Sides are not checked."""
    return ImageSize(size, size) if isinstance(size, int) else ImageSize(*size)


def size_of(images_shape: tuple[int, ...]) -> ImageSize:
    """The size of images in an array of shape (N, H, W, C)."""
    _, height, width, _ = images_shape
    return ImageSize(width, height)


def parse_size(
    text: str, *, field: str = "size", error: type[InputError] = SpecError, largest: int = MAX_SIDE
) -> ImageSize:
    """``64`` or ``96x64`` (width x height) as a size.

    Raises ``error`` naming ``field`` for other texts and for sides that are not 8 to ``largest`` pixels.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise error(field, "a size in pixels, such as 64, or 96x64 for width x height", short_repr(text))
    width = int(match[1])
    return check_sides(
        ImageSize(width, width if match[2] is None else int(match[2])), field=field, error=error, largest=largest
    )


def format_size(size: tuple[int, int]) -> str:
    """(width, height) as ``parse_size`` reads it: ``64`` for a square, else ``96x64``."""
    width, height = size
    return str(width) if width == height else f"{width}x{height}"


def check_sides(
    size: ImageSize, *, field: str = "size", error: type[InputError] = SpecError, largest: int = MAX_SIDE
) -> ImageSize:
    """``size`` itself; raises ``error`` naming ``field`` unless both sides have 8 to ``largest`` pixels."""
    if not all(MIN_SIDE <= side <= largest for side in size):
        raise error(field, f"{MIN_SIDE} to {largest} pixels a side", format_size(size))
    return size
