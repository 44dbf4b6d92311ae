"""Decodes encoded images to one array: in order, in threads, with one full-size image per thread in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np

from generator.errors import OutsideError, SourceError
from generator.sources.base import SIZE_HINT, ProgressCallback, SkippedImage, native_size
from generator.sources.files.content import Content
from generator.sources.pixels.depth import Scale, ValueRange, find_scale, is_deep, range_of
from generator.sources.pixels.image import (
    TargetShape,
    deep_values,
    fit_image,
    has_colour,
    image_error,
    open_image,
    strict_pillow,
    upright_size,
)
from generator.sources.pixels.storage import Allocate
from generator.spec.image_size import ImageSize, format_size
from generator.spec.machine import usable_cores
from generator.spec.reading import Reading, Rules

CHUNK = 256
_THREAD_BATCH = 16
_MAX_THREADS = 8
_REMOTE_THREADS = 32
_LARGE_PIXELS = 2**24  # images above are decoded one at a time, for their memory
_ONE_LARGE = threading.Lock()


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image and its name in messages."""

    file: str
    content: Content


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images. Each call of ``chunks`` reads them from the start, in lists of at most ``CHUNK``.

    ``remote``: whether reading them means waiting for a network.
    """

    name: str
    total: int
    chunks: Callable[[], Iterator[list[EncodedImage]]]
    remote: bool = False


@dataclass(frozen=True)
class DecodeSettings:
    """What the images are to become; ``None``: what they have. ``default_size``: for kinds of sources whose images
    usually differ in size."""

    size: ImageSize | None
    channels: int | None
    reading: Reading
    skip_bad: bool
    default_size: ImageSize | None = None
    rules: Rules = 2


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """The images that could be read, their positions among the encoded ones, and what they were like."""

    images_NHWC: np.ndarray  # uint8; the rows of images that were skipped have no meaning
    kept_N: np.ndarray  # int64, ascending positions among the encoded images
    skipped: tuple[SkippedImage, ...]
    sizes: Counter[tuple[int, int]]  # width, height before resizing
    modes: Counter[str]  # of Pillow
    scale: Scale | None  # of images with more than 8 bits, if there are any


@dataclass
class _Decoded:
    """What one image gave: an error, or its facts; ``values`` if its pixels wait for the scale of the source."""

    skipped: SkippedImage | None = None
    size: tuple[int, int] | None = None
    mode: str = ""
    values: ValueRange | None = None
    deep: bool = False


@dataclass
class _Tally:
    skipped: dict[int, SkippedImage] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    waiting: list[int] = field(default_factory=list)  # rows with more than 8 bits, ascending
    values: ValueRange | None = None
    deep: int = 0  # images with more than 8 bits

    def add(self, row: int, decoded: _Decoded) -> None:
        if decoded.skipped is not None:
            self.skipped[row] = decoded.skipped
            return
        if decoded.size is not None:
            self.sizes[decoded.size] += 1
            self.modes[decoded.mode] += 1
            self.deep += decoded.deep
        if decoded.values is not None:
            self.waiting.append(row)
            self.values = decoded.values.join(self.values)


def decode_images(
    encoded: EncodedImages,
    settings: DecodeSettings,
    *,
    allocate: Allocate,
    progress: ProgressCallback | None,
) -> DecodedImages:
    """All images of ``encoded``. Without a size, they must be of one size. Without ``channels``, all of them are RGB if
    at least one has colour.

    Images with more than 8 bits share one scale: the stated one, or else the one that holds their largest value, for
    which they are decoded twice. ``allocate(shape)`` makes the uint8 array. Raises ``SourceError`` naming the first
    unreadable image, unless ``skip_bad``.
    """
    stated = settings.reading.white
    scale = Scale(stated, settings.reading.black or 0.0) if stated is not None else None
    with strict_pillow():
        target, native = _find_target(encoded, settings, scale)
        images_NHWC = allocate((encoded.total, target.height, target.width, target.channels))
        tally = _Tally()
        waits = scale is None and settings.rules > 1
        decode = partial(_decode_batch, target=target, native=native, skip_bad=settings.skip_bad, waits=waits)
        _run(encoded, images_NHWC, decode, tally, progress)
        if tally.values is not None:
            scale = find_scale(tally.values, field=f"{encoded.name}:images")
            again = replace(target, scale=scale)
            decode = partial(_decode_batch, target=again, native=native, skip_bad=settings.skip_bad, waits=False)
            _run(encoded, images_NHWC, decode, tally, None, rows=tally.waiting)
    kept_N = np.setdiff1d(np.arange(encoded.total, dtype=np.int64), np.fromiter(tally.skipped, np.int64))
    skipped = tuple(tally.skipped[row] for row in sorted(tally.skipped))
    return DecodedImages(images_NHWC, kept_N, skipped, tally.sizes, tally.modes, scale if tally.deep else None)


def _run(
    encoded: EncodedImages,
    images_NHWC: np.ndarray,
    decode: Callable[[list[EncodedImage], Sequence[np.ndarray]], list[_Decoded]],
    tally: _Tally,
    progress: ProgressCallback | None,
    rows: list[int] | None = None,
) -> None:
    """Decode all images, or those of ``rows``, and tally them (in a second pass, only those that are skipped)."""
    done, wanted = 0, set(rows) if rows is not None else None
    threads = _REMOTE_THREADS if encoded.remote else min(_MAX_THREADS, usable_cores())
    with ThreadPoolExecutor(threads) as pool:
        for chunk in encoded.chunks():
            first, done = done, done + len(chunk)
            if done > encoded.total:
                break
            numbers = [row for row in range(first, done) if wanted is None or row in wanted]
            step = 1 if encoded.remote else _THREAD_BATCH
            batches = [numbers[begin : begin + step] for begin in range(0, len(numbers), step)]
            results = pool.map(
                decode,
                [[chunk[row - first] for row in batch] for batch in batches],
                [[images_NHWC[row] for row in batch] for batch in batches],
            )
            for row, decoded in zip(numbers, chain(*results), strict=True):
                if wanted is None or decoded.skipped is not None:
                    tally.add(row, decoded)
            if progress is not None:
                progress(done, encoded.total)
    if done != encoded.total:
        got = f"{done} or more" if done > encoded.total else done
        raise SourceError(f"{encoded.name}:images", f"{encoded.total} images, as announced", got)


def _find_target(
    encoded: EncodedImages, settings: DecodeSettings, scale: Scale | None
) -> tuple[TargetShape, tuple[int, int] | None]:
    """Read headers until the shape is known: to the first readable image, or to the first image in colour.

    The second value is the size that every image must have, if images are not resized.
    """
    native: tuple[int, int] | None = None
    colour = settings.channels == 3
    for image in (image for chunk in encoded.chunks() for image in chunk):
        header = _header(image, settings.skip_bad, settings.rules > 1)
        if header is not None:
            native = native or header[0]
            colour = colour or (settings.channels is None and has_colour(header[1]))
            if colour or settings.channels is not None:
                break
    if native is None:
        raise SourceError(f"{encoded.name}:images", "at least 2 readable images", f"none among {encoded.total}")
    size = settings.size or settings.default_size
    width, height = size or native_size(*native, field=f"{encoded.name}:images")
    target = TargetShape(width, height, 3 if colour else 1, settings.reading.resize, scale, settings.rules > 1)
    return target, native if size is None else None


def _header(encoded_image: EncodedImage, skip_bad: bool, upright: bool) -> tuple[tuple[int, int], str] | None:
    try:
        with open_image(encoded_image.content, name=encoded_image.file) as image:
            return upright_size(image) if upright else image.size, image.mode
    except OutsideError:
        raise
    except Exception as error:  # as in _decode_one
        if not skip_bad:
            raise image_error(encoded_image.file, error) from error
        return None


def _decode_batch(
    encoded_images: list[EncodedImage],
    out: Sequence[np.ndarray],
    *,
    target: TargetShape,
    native: tuple[int, int] | None,
    skip_bad: bool,
    waits: bool,
) -> list[_Decoded]:
    return [
        _decode_one(encoded_image, out_HWC, target, native, skip_bad, waits)
        for encoded_image, out_HWC in zip(encoded_images, out, strict=True)
    ]


def _decode_one(
    encoded_image: EncodedImage,
    out_HWC: np.ndarray,
    target: TargetShape,
    native: tuple[int, int] | None,
    skip_bad: bool,
    waits: bool,
) -> _Decoded:
    values: ValueRange | None = None
    try:
        with open_image(encoded_image.content, target, name=encoded_image.file) as image:
            size, mode = upright_size(image) if target.upright else image.size, image.mode
            deep = is_deep(image)
            if waits and deep:
                pixels = deep_values(image)
                values = range_of(pixels) if pixels is not None else None
            if values is None:
                large = image.width * image.height > _LARGE_PIXELS
                with _ONE_LARGE if large else nullcontext():
                    out_HWC[...] = fit_image(image, target).reshape(out_HWC.shape)
    except OutsideError:
        raise
    except Exception as error:  # on damaged bytes, Pillow's readers raise exceptions of any type
        source_error = image_error(encoded_image.file, error)
        if not skip_bad:
            raise source_error from error
        return _Decoded(skipped=SkippedImage(encoded_image.file, source_error.got))
    if native not in (None, size):
        expected = f"{format_size(native or size)} pixels like the images before it, or a size to resize all of them to"
        raise SourceError(encoded_image.file, expected, f"{size[0]}x{size[1]}", SIZE_HINT)
    return _Decoded(size=size, mode=mode, values=values, deep=deep)
