"""PNG and JPEG: uint8 images to marked bytes, and bytes back to an image."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from generator.errors import IntegrityError
from generator.production.images.encoder import ImageEncoder
from generator.production.images.jpeg import JpegEncoder
from generator.production.images.png import PngEncoder
from generator.production.images.xmp import xmp_packet
from generator.spec.recipe import JpegSettings, PngSettings

MAX_PIXELS = 2**24  # maximum of an image to decode; ours have at most 1024 x 1024
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
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            pixels = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as broken:
        raise IntegrityError(field, "a PNG or JPEG image", f"bytes that do not decode ({broken})") from broken
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
