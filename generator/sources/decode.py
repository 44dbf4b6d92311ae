"""Decodes encoded images to one array: in order, in threads, with one full-size image per thread in memory."""

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
from generator.sources.storage import allocate_images, keep_images

CHUNK = 256
_THREAD_BATCH = 16
_MAX_THREADS = 8


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image and its name in messages."""

    file: str
    data: Path | bytes


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images. Each call of ``chunks`` reads them from the start, in lists of at most ``CHUNK``."""

    name: str
    total: int
    chunks: Callable[[], Iterator[list[EncodedImage]]]


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """The images that could be read, and their positions among the encoded ones."""

    images_NHWC: np.ndarray  # uint8
    kept_N: np.ndarray  # int64, ascending positions among the encoded images
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class _TargetShape:
    size: int
    channels: int
    native: tuple[int, int] | None  # (width, height) that every image must have if images are not resized


def decode_images(
    encoded: EncodedImages, *, size: int | None, channels: int | None, skip_bad: bool, progress: ProgressCallback | None
) -> DecodedImages:
    """All images of ``encoded``. Without ``size``, they must be squares of one size. Without ``channels``, all of them
    are RGB if at least one has colour.

    Raises ``SourceError`` naming the first unreadable image, unless ``skip_bad``.
    """
    with strict_pillow():
        target = _find_target(encoded, size, channels, skip_bad)
        images_NHWC = _allocate(encoded, target)
        decode = partial(_decode_batch, target=target, skip_bad=skip_bad)
        skipped: dict[int, SkippedImage] = {}
        done = 0
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
            for chunk in encoded.chunks():
                first, done = done, done + len(chunk)
                if done > encoded.total:
                    break
                batches = [slice(begin, begin + _THREAD_BATCH) for begin in range(0, len(chunk), _THREAD_BATCH)]
                results = pool.map(
                    decode, (chunk[batch] for batch in batches), (images_NHWC[first:done][batch] for batch in batches)
                )
                skipped |= {
                    row: skipped_image
                    for row, skipped_image in enumerate(chain(*results), first)
                    if skipped_image is not None
                }
                if progress is not None:
                    progress(done, encoded.total)
    if done != encoded.total:
        raise SourceError(
            f"{encoded.name}:images",
            f"{encoded.total} images, as announced",
            f"{done} or more" if done > encoded.total else done,
        )
    kept_N = np.setdiff1d(np.arange(encoded.total, dtype=np.int64), np.fromiter(skipped, np.int64))
    return DecodedImages(keep_images(images_NHWC, kept_N), kept_N, tuple(skipped.values()))


def _find_target(encoded: EncodedImages, size: int | None, channels: int | None, skip_bad: bool) -> _TargetShape:
    """Read headers until the shape is known: to the first readable image, or to the first image in colour."""
    native: tuple[int, int] | None = None
    colour = channels == 3
    for image in (image for chunk in encoded.chunks() for image in chunk):
        header = _header(image, skip_bad)
        if header is not None:
            native = native or header[0]
            colour = colour or (channels is None and has_colour(header[1]))
            if colour or channels is not None:
                break
    if native is None:
        raise SourceError(f"{encoded.name}:images", "at least 2 readable images", f"none among {encoded.total}")
    if size is not None:
        return _TargetShape(size, 3 if colour else 1, native=None)
    return _TargetShape(native_side(*native, field=f"{encoded.name}:images"), 3 if colour else 1, native=native)


def _header(encoded_image: EncodedImage, skip_bad: bool) -> tuple[tuple[int, int], str] | None:
    try:
        with open_image(encoded_image.data) as image:
            return image.size, image.mode
    except Exception as error:  # as in _decode_one
        if not skip_bad:
            raise image_error(encoded_image.file, error) from error
        return None


def _decode_batch(
    encoded_images: list[EncodedImage], out_NHWC: np.ndarray, target: _TargetShape, skip_bad: bool
) -> list[SkippedImage | None]:
    return [
        _decode_one(encoded_image, out_HWC, target, skip_bad)
        for encoded_image, out_HWC in zip(encoded_images, out_NHWC, strict=True)
    ]


def _decode_one(
    encoded_image: EncodedImage, out_HWC: np.ndarray, target: _TargetShape, skip_bad: bool
) -> SkippedImage | None:
    try:
        with open_image(encoded_image.data) as image:
            native = image.size
            out_HWC[...] = to_square(image, target.size, target.channels).reshape(out_HWC.shape)
    except Exception as error:  # on damaged bytes, Pillow's readers raise exceptions of any type
        source_error = image_error(encoded_image.file, error)
        if not skip_bad:
            raise source_error from error
        return SkippedImage(encoded_image.file, source_error.got)
    if target.native not in (None, native):
        expected = f"{target.size}x{target.size} like the images before it, or a size to resize all of them to"
        raise SourceError(encoded_image.file, expected, f"{native[0]}x{native[1]}", "Give a size.")
    return None


def _allocate(encoded: EncodedImages, target: _TargetShape) -> np.ndarray:
    shape = (encoded.total, target.size, target.size, target.channels)
    try:
        return allocate_images(shape)
    except (MemoryError, ValueError, OSError) as error:
        gib = float(np.prod(shape, dtype=np.float64)) / 2**30
        expected = "images that fit in memory, or in the directory for temporary files"
        raise SourceError(f"{encoded.name}:images", expected, f"{gib:.0f} GiB of pixels") from error
