"""PNG and JPEG: uint8 images to marked bytes, and bytes back to an image."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

from generator.errors import IntegrityError
from generator.production.images.encoder import ImageEncoder
from generator.production.images.jpeg import JpegEncoder
from generator.production.images.png import PngEncoder
from generator.production.images.xmp import xmp_packet
from generator.spec.recipe import JpegSettings, PngSettings

MAX_PIXELS = 2**24  # maximum of an image to decode; ours have at most 1024 x 1024
_JPEG = b"\xff\xd8\xff"
_JPEG_SPACES = {"Gray": "GRAY", "YCbCr": "RGB"}
_EXTENSIONS = {"png": "png", "jpeg": "jpg"}


def extension(image_format: str) -> str:
    """File extension without a dot of ``png`` or ``jpeg``: ``png`` or ``jpg``."""
    return _EXTENSIONS[image_format]


def image_encoder(
    settings: PngSettings | JpegSettings, recipe_version: int, build_id: str | None = None
) -> ImageEncoder:
    """The encoder of ``settings``: images to marked file bytes, deterministic within one environment.

    ``build_id``: the build that the mark names, if any.
    """
    packet = xmp_packet(recipe_version, build_id)
    if settings.format == "png":
        return PngEncoder(settings.level, packet)
    return JpegEncoder(settings.quality, settings.subsampling, packet)


def decode_image(data: bytes, *, field: str) -> np.ndarray:
    """File bytes to an image (uint8, HWC, C in {1, 3}). Raises ``IntegrityError`` naming ``field``."""
    try:
        return _decode_jpeg(data) if data.startswith(_JPEG) else _decode(data)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as broken:
        raise IntegrityError(field, "a PNG or JPEG image", f"bytes that do not decode ({broken})") from broken


def _decode_jpeg(data: bytes) -> np.ndarray:
    """By libjpeg-turbo itself, in half of Pillow's time, which calls it too and gives the same pixels."""
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    if (wanted := _JPEG_SPACES.get(space)) is None:
        return _decode(data)
    _check_pixels(width, height)
    image_HWC: np.ndarray = simplejpeg.decode_jpeg(data, wanted)
    return image_HWC


def _decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        _check_pixels(image.width, image.height)
        pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, more than {MAX_PIXELS}")
