"""PNG and JPEG: one uint8 image to marked bytes, and bytes back to an image."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from generator.errors import IntegrityError
from generator.images.marking import xmp_packet
from generator.spec import JpegSettings, PngSettings

Encode = Callable[[np.ndarray], bytes]

MAX_PIXELS = 2**24  # of an image that is decoded; ours have 128 x 128 at most, previews some hundred thousand
_EXTENSIONS = {"png": "png", "jpeg": "jpg"}


def extension(image_format: str) -> str:
    """File extension without a dot of ``png`` or ``jpeg``: ``png`` or ``jpg``."""
    return _EXTENSIONS[image_format]


def image_encoder(settings: PngSettings | JpegSettings, recipe_version: int) -> Encode:
    """A function from one image (uint8, HWC, C in {1, 3}) to marked file bytes, deterministic in one environment."""
    packet = xmp_packet(recipe_version)
    if settings.format == "png":
        return _png_encoder(settings.level, packet)
    return _jpeg_encoder(settings.quality, settings.subsampling, packet)


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


def _png_encoder(level: int, packet: bytes) -> Encode:
    marks = PngInfo()
    marks.add_itxt("XML:com.adobe.xmp", packet.decode())

    def encode(image_HWC: np.ndarray) -> bytes:
        out = io.BytesIO()
        _pil(image_HWC).save(out, "PNG", compress_level=level, pnginfo=marks)
        return out.getvalue()

    return encode


def _jpeg_encoder(quality: int, subsampling: str, packet: bytes) -> Encode:
    def encode(image_HWC: np.ndarray) -> bytes:
        out = io.BytesIO()
        _pil(image_HWC).save(out, "JPEG", quality=quality, subsampling=subsampling, xmp=packet)
        return out.getvalue()

    return encode


def _pil(image_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC)
