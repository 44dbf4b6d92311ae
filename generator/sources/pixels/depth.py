"""Pixels of more than 8 bits: one scale for all images of a source.

Cameras and scanners store 10, 12 or 14 bits in files of 16, and scientific images 0 to 255 as floats. A scale of each
file's own would make images incomparable, and the scale of the file's type nearly black.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from generator.errors import SourceError

_BITS = (8, 10, 12, 14, 16)
FULL_WHITE = 65535.0
_BITS_TAG, _PHOTOMETRIC_TAG, _PLANES_TAG = 258, 262, 284  # TIFF 6.0
_UNIT_LIMIT = 1.0 + 1e-6


@dataclass(frozen=True)
class Scale:
    """The pixel values that become 0 and 255; values beyond them are clipped."""

    white: float
    black: float = 0.0

    def to_8_bit(self, values: np.ndarray) -> np.ndarray:
        """Numbers of any type to uint8, rounded to the nearest. Raises ``ValueError`` for NaN and infinities."""
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError("pixels that are not finite numbers")
        scaled = (values.astype(np.float64) - self.black) * (255.0 / (self.white - self.black))
        return np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)

    def describe(self) -> str:
        """In words, for people."""
        low = f"{self.black:g} is black and " if self.black else ""
        bits = next((f" ({bits} bits)" for bits in _BITS if self.white == 2**bits - 1), "")
        return f"{low}{self.white:g} is white{bits}"


@dataclass(frozen=True)
class ValueRange:
    """The smallest pixel value of some images, and the largest ones of those with integers and of those with floats."""

    low: float
    high_integer: float = -1.0
    high_float: float = -1.0

    @property
    def high(self) -> float:
        return max(self.high_integer, self.high_float)

    def join(self, other: ValueRange | None) -> ValueRange:
        if other is None:
            return self
        highs = max(self.high_integer, other.high_integer), max(self.high_float, other.high_float)
        return ValueRange(min(self.low, other.low), *highs)


def range_of(values: np.ndarray) -> ValueRange:
    """The range of an array of numbers. Raises ``ValueError`` for NaN and infinities."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("pixels that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    return ValueRange(low, high_float=high) if values.dtype.kind == "f" else ValueRange(low, high_integer=high)


def find_scale(values: ValueRange, *, field: str) -> Scale:
    """The scale of a source: white is 1 for fractions, else the largest value of the fewest bits that hold all values.

    Raises ``SourceError`` where there is more than one reading: negative values, and values above 16 bits.
    """
    if values.low < 0:
        hint = "State the range: --black and --white are the values that become black and white."
        raise SourceError(field, "pixels of at least 0", f"{values.low:g} to {values.high:g}", hint)
    fractions = 0 <= values.high_float <= _UNIT_LIMIT
    if fractions and values.high_integer > _UNIT_LIMIT:
        got = f"fractions beside integers up to {values.high_integer:g}"
        raise SourceError(field, "images of one scale", got, "State the value that is white: --white.")
    if values.high <= _UNIT_LIMIT:
        return Scale(1.0)  # fractions, and masks of 0 and 1
    bits = next((bits for bits in _BITS if values.high <= 2**bits - 1), None)
    if bits is None:
        hint = "State the value that is white: --white."
        raise SourceError(field, "pixels of at most 16 bits", f"{values.low:g} to {values.high:g}", hint)
    return Scale(float(2**bits - 1))


def is_deep(image: Image.Image) -> bool:
    """Whether an image (its header read, its pixels not) has more than 8 bits a channel, or floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or deep_raw_mode(image) is not None


def check_depth(image: Image.Image) -> None:
    """``ValueError`` for TIFF with 16 bits of which Pillow makes something else: by planes, white as 0, or CMYK."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return
    bits = tags.get(_BITS_TAG, (1,))
    if max(bits if isinstance(bits, tuple) else (bits,)) <= 8:
        return
    if tags.get(_PLANES_TAG, 1) != 1 and image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        raise ValueError("more than 8 bits a channel in planes, which are not read")
    if tags.get(_PHOTOMETRIC_TAG, 1) == 0:
        raise ValueError("more than 8 bits with white as 0, which are not read")
    if image.mode == "CMYK":
        raise ValueError("CMYK with more than 8 bits, which is not read")


def deep_raw_mode(image: Image.Image) -> str | None:
    """The raw mode of colour with 16 bits a channel, of which Pillow keeps the upper 8; ``None`` for other images."""
    for tile in getattr(image, "tile", ()):
        args = tile[3]
        raw = args[0] if isinstance(args, tuple) and args else args
        if isinstance(raw, str) and ";16" in raw and image.mode in ("RGB", "RGBA", "RGBX", "LA"):
            return raw
    return None
