"""Converts one image to a uint8 square: orientation, transparency, bit depth, colour, size.

Colour profiles are not applied, and only the first frame of an animation is used. Formats that Pillow passes to another
program (EPS, to Ghostscript) are not opened.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from generator.errors import SourceError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM", "JPEG2000")
_ENDINGS = "png apng jpg jpeg jpe jfif mpo gif bmp dib tif tiff webp avif ppm pgm pbm pnm pfm jp2 j2k"
_UNREAD_ENDINGS = "heic heif"  # listed so that such photographs cause an error instead of being ignored
SUFFIXES = frozenset(f".{ending}" for ending in f"{_ENDINGS} {_UNREAD_ENDINGS}".split())

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
_ORIENTATION_TAG = 0x0112
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Oversized images are errors; metadata warnings are ignored. Enter once, outside all threads (global state)."""
    Image.init()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def open_image(data: Path | bytes) -> Iterator[Image.Image]:
    """The image with its header read, but not yet its pixels."""
    if isinstance(data, Path) and not data.is_file():
        raise OSError("no regular file")  # reading a pipe would block
    if not (data.stat().st_size if isinstance(data, Path) else data):
        raise OSError("no bytes")
    stream = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
    with stream, Image.open(stream, formats=FORMATS) as image:
        yield image


def image_error(file: str, error: Exception) -> SourceError:
    """An error of Pillow or the file system for ``file`` as ``SourceError``, without paths and stream names."""
    expected = "a readable image"
    if isinstance(error, UnidentifiedImageError):
        return SourceError(file, expected, "bytes of no known image format")
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return SourceError(file, f"an image of at most {Image.MAX_IMAGE_PIXELS} pixels", "a larger one")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SourceError(file, expected, reason or type(error).__name__)


def has_colour(mode: str) -> bool:
    """Whether images of a Pillow mode count as colour; palettes do, whatever their colours."""
    return mode not in _GREY_MODES and not mode.startswith("I;16")


def to_square(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """``image`` turned upright, on a white background, centre-cropped to a square and resized to ``size`` (Lanczos).

    Returns uint8, ``(size, size)`` for one channel, ``(size, size, 3)`` (RGB) for three. The pixels of an image that
    already has this size are unchanged.
    """
    image.load()
    converted = _flatten(_upright(image), "L" if channels == 1 else "RGB")
    side = min(converted.size)
    left, top = (converted.width - side) // 2, (converted.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(converted.resize((size, size), Image.Resampling.LANCZOS, box=box))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Call it after ``load``, where Pillow itself rotates TIFF.

    ``ImageOps.exif_transpose`` would also rewrite the EXIF data, and fail on photographs with intact pixels.
    """
    method = _TRANSPOSE_BY_ORIENTATION.get(image.getexif().get(_ORIENTATION_TAG, 1))
    return image.transpose(method) if method is not None else image


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert(mode)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert(mode)
    return image.convert(mode)


def _to_8_bit(values_HW: np.ndarray) -> np.ndarray:
    """Grey with more than 8 bits to uint8, scaled by the full range of its type, so that images stay comparable.

    Integers range over 0 .. 65535 (Pillow reads 16-bit PGM as 32-bit integers); floats over 0 .. 1, or over 0 .. 255 if
    one is above 1. Raises ``ValueError`` for values outside.
    """
    low, high = values_HW.min(), values_HW.max()
    full = 65535.0 if values_HW.dtype.kind in "iu" else 1.0 if high <= 1.0 else 255.0
    if not (low >= 0 and high <= full):
        raise ValueError(f"pixels from {low} to {high}, outside 0 to {full:g}")
    return np.rint(values_HW * (255.0 / full)).astype(np.uint8)
