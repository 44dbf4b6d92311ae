"""Many encoded pictures to one array: in order, in threads, one decoded picture per thread in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from generator.errors import SourceError
from generator.sources.base import ProgressCallback, SkippedImage, native_side
from generator.sources.pixels import has_colour, image_error, open_image, strict_pillow, to_square

CHUNK = 256
_THREAD_BATCH = 16
_MAX_THREADS = 8


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image and what people call it."""

    file: str
    data: Path | bytes


@dataclass(frozen=True)
class EncodedImages:
    """Encoded pictures, read from the start each time ``chunks`` is called, in lists of at most ``CHUNK``."""

    name: str
    total: int
    chunks: Callable[[], Iterator[list[EncodedImage]]]


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """The pictures that could be read, and which of the album's they are."""

    images_NHWC: np.ndarray  # uint8
    kept_N: np.ndarray  # int64, ascending positions in the album
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class _TargetShape:
    size: int
    channels: int
    native: tuple[int, int] | None  # (width, height) every picture must have, where none is resized


def decode_images(
    album: EncodedImages, *, size: int | None, channels: int | None, skip_bad: bool, progress: ProgressCallback | None
) -> DecodedImages:
    """All pictures of ``album``. Without ``size``, they must be squares of one size; without ``channels``, one
    picture in colour makes all of them RGB.

    Raises ``SourceError`` naming the first broken picture, unless ``skip_bad``.
    """
    with strict_pillow():
        target = _find_target(album, size, channels, skip_bad)
        images_NHWC = _allocate(album, target)
        read = partial(_decode_run, target=target, skip_bad=skip_bad)
        skipped: dict[int, SkippedImage] = {}
        done = 0
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
            for chunk in album.chunks():
                first, done = done, done + len(chunk)
                if done > album.total:
                    break
                runs = [slice(begin, begin + _THREAD_BATCH) for begin in range(0, len(chunk), _THREAD_BATCH)]
                outcomes = pool.map(read, (chunk[run] for run in runs), (images_NHWC[first:done][run] for run in runs))
                skipped |= {row: bad for row, bad in enumerate(chain(*outcomes), first) if bad is not None}
                if progress is not None:
                    progress(done, album.total)
    if done != album.total:
        raise SourceError(
            f"{album.name}:images",
            f"{album.total} images, as announced",
            f"{done} or more" if done > album.total else done,
        )
    kept_N = np.setdiff1d(np.arange(album.total, dtype=np.int64), np.fromiter(skipped, np.int64))
    return DecodedImages(images_NHWC[kept_N] if skipped else images_NHWC, kept_N, tuple(skipped.values()))


def _find_target(album: EncodedImages, size: int | None, channels: int | None, skip_bad: bool) -> _TargetShape:
    """Read headers for as long as they can change the answer: to the first readable one, or the first in colour."""
    native: tuple[int, int] | None = None
    colour = channels == 3
    for picture in (picture for chunk in album.chunks() for picture in chunk):
        header = _header(picture, skip_bad)
        if header is not None:
            native = native or header[0]
            colour = colour or (channels is None and has_colour(header[1]))
            if colour or channels is not None:
                break
    if native is None:
        raise SourceError(f"{album.name}:images", "at least 2 readable images", f"none among {album.total}")
    if size is not None:
        return _TargetShape(size, 3 if colour else 1, native=None)
    return _TargetShape(native_side(*native, field=f"{album.name}:images"), 3 if colour else 1, native=native)


def _header(picture: EncodedImage, skip_bad: bool) -> tuple[tuple[int, int], str] | None:
    try:
        with open_image(picture.data) as image:
            return image.size, image.mode
    except Exception as error:  # as in _decode_one
        if not skip_bad:
            raise image_error(picture.file, error) from error
        return None


def _decode_run(
    pictures: list[EncodedImage], out_NHWC: np.ndarray, target: _TargetShape, skip_bad: bool
) -> list[SkippedImage | None]:
    return [
        _decode_one(picture, out_HWC, target, skip_bad) for picture, out_HWC in zip(pictures, out_NHWC, strict=True)
    ]


def _decode_one(
    picture: EncodedImage, out_HWC: np.ndarray, target: _TargetShape, skip_bad: bool
) -> SkippedImage | None:
    try:
        with open_image(picture.data) as image:
            native = image.size
            out_HWC[...] = to_square(image, target.size, target.channels).reshape(out_HWC.shape)
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them to
        bad = image_error(picture.file, error)
        if not skip_bad:
            raise bad from error
        return SkippedImage(picture.file, bad.got)
    if target.native not in (None, native):
        expected = f"{target.size}x{target.size} like the images before it, or a size to bring all of them to"
        raise SourceError(picture.file, expected, f"{native[0]}x{native[1]}", "Give a size.")
    return None


def _allocate(album: EncodedImages, target: _TargetShape) -> np.ndarray:
    shape = (album.total, target.size, target.size, target.channels)
    try:
        return np.empty(shape, dtype=np.uint8)
    except (MemoryError, ValueError) as error:
        gib = float(np.prod(shape, dtype=np.float64)) / 2**30
        raise SourceError(f"{album.name}:images", "images that fit in memory", f"{gib:.0f} GiB of pixels") from error
