"""Resizes an array of images; images that already have the size and channels asked for are left unchanged."""

from __future__ import annotations

import numpy as np
from PIL import Image

from generator.sources.base import ProgressCallback, native_side
from generator.sources.pixels import to_square

_STEP = 1024


def resize_array(
    images_NHWC: np.ndarray, *, size: int | None, channels: int | None, field: str, progress: ProgressCallback | None
) -> np.ndarray:
    """uint8 ``(N, H, W, 1 or 3)`` to ``(N, size, size, channels)``; ``None`` keeps what the array has.

    Without ``size`` the images must be square. Raises ``SourceError`` with ``field``.
    """
    count, height, width, native_channels = images_NHWC.shape
    side = size if size is not None else native_side(width, height, field=field)
    channels = channels or native_channels
    if (side, side, channels) == (height, width, native_channels):
        return images_NHWC
    resized_NHWC = np.empty((count, side, side, channels), dtype=np.uint8)
    for row, image_HWC in enumerate(images_NHWC):
        image = Image.fromarray(image_HWC[:, :, 0] if native_channels == 1 else image_HWC)
        resized_NHWC[row] = to_square(image, side, channels).reshape(side, side, channels)
        if progress is not None and ((row + 1) % _STEP == 0 or row + 1 == count):
            progress(row + 1, count)
    return resized_NHWC
