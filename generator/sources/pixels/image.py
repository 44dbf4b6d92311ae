"""Converts one image to uint8 of a given size: orientation, transparency, bit depth, colour, size.

Colour profiles are not applied, and only the first frame of an animation is used. Formats that Pillow passes to another
program (EPS, to Ghostscript) are not opened.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from generator.errors import SourceError
from generator.sources.files.content import BytesContent, Content, file_content
from generator.sources.pixels.depth import FULL_WHITE, Scale, check_depth, deep_raw_mode
from generator.sources.pixels.formats import FORMATS, UNKNOWN_FORMATS, is_pointer_head
from generator.spec.reading import Resize

MAX_PIXELS = 89_478_485  # Pillow's limit: a quarter of a gigabyte of RGB
_MAX_JPEG_PIXELS, _MAX_PROGRESSIVE_PIXELS = 2**31, 200_000_000
_MAX_TEXT_BYTES = 2**26  # of one text or profile in a PNG, decompressed; Pillow allows 2^20
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
_TURNED = frozenset({5, 6, 7, 8})  # orientations that swap width and height
_OTHER_BYTE_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


@dataclass(frozen=True)
class TargetShape:
    """What every image of a source becomes. ``scale``: for more than 8 bits; ``None`` scales each image by its type,
    as the first rules did."""

    width: int
    height: int
    channels: int  # 1 (grey) or 3 (RGB)
    resize: Resize = "crop"
    scale: Scale | None = None
    upright: bool = True  # whether sizes are compared after the EXIF orientation is applied


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Limits of latentmill in place of Pillow's own, metadata warnings ignored. Enter once, outside all threads: these
    are global variables."""
    Image.init()
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        Image.MAX_IMAGE_PIXELS = None  # ``open_image`` checks
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = _MAX_TEXT_BYTES, 2 * _MAX_TEXT_BYTES
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


@contextmanager
def open_image(
    data: Path | bytes | Content, target: TargetShape | None = None, *, name: str = ""
) -> Iterator[Image.Image]:
    """The image with its header read, but not yet its pixels. ``name``: its ending tells TGA, which has no mark.

    JPEG above ``MAX_PIXELS`` is decoded at a half, a quarter or an eighth of its size, no smaller than twice
    ``target``; other formats above it are a ``SourceError``.
    """
    content = file_content(data) if isinstance(data, Path) else BytesContent(data) if isinstance(data, bytes) else data
    with content.open() as stream:
        check_has_bytes(stream)
        formats = FORMATS if ".tga" in name.lower()[-120:] else UNKNOWN_FORMATS
        with Image.open(stream, formats=formats) as image:
            check_depth(image)
            if image.width * image.height > MAX_PIXELS:
                _reduce(image, target)
            yield image


def check_has_bytes(stream: BinaryIO) -> None:
    """``OSError`` for a stream without bytes, ``SourceError`` for a Git LFS pointer."""
    head = stream.read(64)
    if not head:
        raise OSError("no bytes")
    if is_pointer_head(head):
        raise SourceError("image", "a readable image", "a Git LFS pointer", "Fetch the files: git lfs pull.")
    stream.seek(0)


def image_error(file: str, error: Exception) -> SourceError:
    """An error of Pillow or the file system for ``file`` as ``SourceError``, without paths and stream names."""
    expected = "a readable image"
    if isinstance(error, SourceError):
        return SourceError(file, error.expected, error.got, error.hint)
    if isinstance(error, UnidentifiedImageError):
        heic = file.lower().rstrip(")").endswith((".heic", ".heif"))
        return SourceError(file, expected, "a HEIC photograph" if heic else "bytes of no known image format")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SourceError(file, expected, reason or type(error).__name__)


def has_colour(mode: str) -> bool:
    """Whether images of a Pillow mode count as colour; palettes do, whatever their colours."""
    return mode not in _GREY_MODES and not mode.startswith("I;16")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the EXIF orientation is applied; of an image whose pixels are not loaded yet."""
    try:
        exif = Image.Image.getexif(image)  # not that of PNG, which loads the pixels
        turned = exif.get(_ORIENTATION_TAG, 1) in _TURNED
    except Exception:
        turned = False
    return (image.height, image.width) if turned else (image.width, image.height)


def fit_image(image: Image.Image, target: TargetShape) -> np.ndarray:
    """``image`` turned upright, on a white background, brought to the size of ``target`` (Lanczos).

    Returns uint8, ``(height, width)`` for one channel, ``(height, width, 3)`` (RGB) for three. The pixels of an image
    that already has this size are unchanged.
    """
    deep = _deep_colour(image, target.scale)
    image.load()
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)  # after ``load``, where Pillow itself rotates TIFF
    upright = _upright(deep or image, orientation)
    converted = _flatten(upright, "L" if target.channels == 1 else "RGB", target.scale)
    return np.asarray(_resize(converted, target))


def deep_values(image: Image.Image) -> np.ndarray | None:
    """The pixels of an image with more than 8 bits a channel, as numbers, without transparency; ``None`` for others."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image.load()
        return np.asarray(image)
    values = _deep_pixels(image)
    return None if values is None else values[..., :3]


def _resize(image: Image.Image, target: TargetShape) -> Image.Image:
    size = (target.width, target.height)
    if image.size == size:
        return image
    if target.resize == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    if target.resize == "pad":
        share = min(target.width / image.width, target.height / image.height)
        inner = max(1, round(image.width * share)), max(1, round(image.height * share))
        padded = Image.new(image.mode, size, "white")
        corner = ((target.width - inner[0]) // 2, (target.height - inner[1]) // 2)
        padded.paste(image.resize(inner, Image.Resampling.LANCZOS), corner)
        return padded
    # The largest box of the target's proportions; whole pixels, so that the pixels of a fitting image stay.
    width = min(image.width, max(1, image.height * target.width // target.height))
    height = min(image.height, max(1, image.width * target.height // target.width))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Apply an EXIF orientation.

    ``ImageOps.exif_transpose`` would also rewrite the EXIF data, and fail on photographs with intact pixels.
    """
    method = _TRANSPOSE_BY_ORIENTATION.get(orientation)
    return image.transpose(method) if method is not None else image


def _flatten(image: Image.Image, mode: str, scale: Scale | None) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values_HW = np.asarray(image)
        grey_HW = scale.to_8_bit(values_HW) if scale is not None else _scale_by_type(values_HW)
        return Image.fromarray(grey_HW).convert(mode)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert(mode)
    return image.convert(mode)


def _scale_by_type(values_HW: np.ndarray) -> np.ndarray:
    """Grey with more than 8 bits to uint8, by the full range of its type.

    Integers range over 0 .. 65535 (Pillow reads 16-bit PGM as 32-bit integers); floats over 0 .. 1, or over 0 .. 255 if
    one is above 1. Raises ``ValueError`` for values outside.
    """
    low, high = values_HW.min(), values_HW.max()
    full = FULL_WHITE if values_HW.dtype.kind in "iu" else 1.0 if high <= 1.0 else 255.0
    if not (low >= 0 and high <= full):
        raise ValueError(f"pixels from {low} to {high}, outside 0 to {full:g}")
    return np.rint(values_HW * (255.0 / full)).astype(np.uint8)


def _deep_colour(image: Image.Image, scale: Scale | None) -> Image.Image | None:
    """Colour with 16 bits a channel by ``scale``; ``None`` where Pillow's upper 8 bits are the same or the rule."""
    if scale is None or scale == Scale(FULL_WHITE):
        return None
    values_HWC = _deep_pixels(image)
    if values_HWC is None:
        return None
    colour_HWC = scale.to_8_bit(values_HWC[..., :3])
    if values_HWC.shape[2] == 3:
        return Image.fromarray(colour_HWC)
    alpha_HW1 = values_HWC[..., 3:]
    opaque = Scale(FULL_WHITE) if alpha_HW1.max() > scale.white else scale
    return Image.fromarray(np.concatenate([colour_HWC, opaque.to_8_bit(alpha_HW1)], axis=2))


def _deep_pixels(image: Image.Image) -> np.ndarray | None:
    """uint16 ``(H, W, 3 or 4)`` of an image with 16 bits a channel; ``None`` for others.

    Pillow decodes such colour to the first byte of each number in the order of the file's raw mode, and with the raw
    mode of the other byte order to the second byte.
    """
    raw = deep_raw_mode(image)
    if raw is None:
        return None
    if raw.startswith("LA"):
        raise ValueError("grey with transparency and 16 bits, which is not read")
    other = raw[:-1] + _OTHER_BYTE_ORDER[raw[-1]]
    stream: Any = cast(Any, image).fp
    position = stream.tell()
    stream.seek(0)
    low_image = Image.open(stream, formats=(image.format or "PNG",))
    low_image.tile = [_with_raw_mode(tile, other) for tile in low_image.tile]
    low_image.load()
    low_HWC = np.asarray(low_image, dtype=np.uint16)
    stream.seek(position)
    image.load()
    high_HWC = np.asarray(image, dtype=np.uint16)
    return high_HWC << 8 | low_HWC


def _with_raw_mode(tile: Any, raw: str) -> Any:
    args = tile.args
    return tile._replace(args=(raw, *args[1:]) if isinstance(args, tuple) else raw)


def _reduce(image: Image.Image, target: TargetShape | None) -> None:
    """Have a JPEG decoded at a smaller scale; ``SourceError`` for other formats, and if it is still too large."""
    expected = f"an image of at most {MAX_PIXELS} pixels"
    pixels = image.width * image.height
    progressive = bool(image.info.get("progressive")) and pixels > _MAX_PROGRESSIVE_PIXELS  # all are held at once
    if image.format not in ("JPEG", "MPO") or progressive or pixels > _MAX_JPEG_PIXELS:
        got = f"{image.width}x{image.height}"
        raise SourceError("image", expected, got, "JPEG above this limit is read at a reduced scale.")
    if target is None:
        return  # only the header is wanted
    side = 2 * max(target.width, target.height)
    image.draft(None, (max(side, image.width // 8), max(side, image.height // 8)))
    if image.width * image.height > MAX_PIXELS:
        raise SourceError("image", expected, f"{image.width}x{image.height} at an eighth of its size")
