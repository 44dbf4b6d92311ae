"""Images that are stored as numbers, to uint8 of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from generator.errors import SourceError
from generator.sources.base import ProgressCallback, native_size
from generator.sources.pixels.decode import DecodedImages, DecodeSettings
from generator.sources.pixels.depth import Scale, ValueRange, find_scale, range_of
from generator.sources.pixels.image import TargetShape, fit_image
from generator.sources.pixels.storage import Allocate

_STEP = 1024


@dataclass(frozen=True)
class ArrayImages:
    """Images that are stored as numbers. Each call of ``blocks`` reads them from the start, in blocks of rows."""

    name: str
    shape: tuple[int, int, int, int]  # N, H, W, C
    dtype: np.dtype
    blocks: Callable[[], Iterator[np.ndarray]]  # (n, H, W, C) of ``dtype``


def convert_arrays(
    images: ArrayImages, settings: DecodeSettings, *, allocate: Allocate, progress: ProgressCallback | None
) -> DecodedImages:
    """Numbers to uint8 by one scale (``find_scale``; uint8 is taken as it is), then to the size asked for.

    Without a size, images keep theirs; without channels, too. Raises ``SourceError``.
    """
    count, height, width, native_channels = images.shape
    field = images.name
    width_out, height_out = settings.size or native_size(width, height, field=field)
    channels = settings.channels or native_channels
    target = TargetShape(width_out, height_out, channels, settings.reading.resize)
    scale = _scale(images, settings, field)
    out_NHWC = allocate((count, height_out, width_out, channels))
    keeps = (width_out, height_out, channels) == (width, height, native_channels)
    done = 0
    for block in _steps(images):
        levels = block if scale is None else _to_levels(block, scale, field)
        if done + len(block) > count:
            break
        out = out_NHWC[done : done + len(block)]
        if keeps:
            out[...] = levels
        else:
            for row, image_HWC in enumerate(levels):
                image = Image.fromarray(image_HWC[:, :, 0] if native_channels == 1 else image_HWC)
                out[row] = fit_image(image, target).reshape(out[row].shape)
        done += len(block)
        if progress is not None:
            progress(done, count)
    if done != count:
        raise SourceError(field, f"{count} images, as announced", done)
    modes = Counter({"L" if native_channels == 1 else "RGB": count})
    kept_N = np.arange(count, dtype=np.int64)
    return DecodedImages(out_NHWC, kept_N, (), Counter({(width, height): count}), modes, scale)


def _scale(images: ArrayImages, settings: DecodeSettings, field: str) -> Scale | None:
    stated = settings.reading.white
    if stated is not None:
        return None if images.dtype == np.uint8 else Scale(stated, settings.reading.black or 0.0)
    if images.dtype == np.uint8:
        return None
    if images.dtype.kind == "b":
        return Scale(1.0)
    values: ValueRange | None = None
    for block in _steps(images):
        try:
            values = range_of(block).join(values)
        except ValueError as error:
            raise SourceError(field, "finite numbers", str(error)) from error
    return None if values is None else find_scale(values, field=field)


def _to_levels(block: np.ndarray, scale: Scale, field: str) -> np.ndarray:
    try:
        return scale.to_8_bit(block)
    except ValueError as error:
        raise SourceError(field, "finite numbers", str(error)) from error


def _steps(images: ArrayImages) -> Iterator[np.ndarray]:
    for block in images.blocks():
        for begin in range(0, len(block), _STEP):
            yield block[begin : begin + _STEP]
