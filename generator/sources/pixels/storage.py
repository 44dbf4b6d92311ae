"""Where the pixels of a source lie: in memory, or in a file, of which parts are read when they are asked for."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from math import prod
from typing import Any, cast, final

import numpy as np
from numpy.typing import DTypeLike

from generator.spec.machine import available_memory

_READ_AT_ONCE = 512  # images
Allocate = Callable[[tuple[int, ...]], np.ndarray]

_SHARE, _MOST = 0.5, 2**28  # pixels in memory: at most half of what is available, and a quarter of a gibibyte


def allocate_images(shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> np.ndarray:
    """An uninitialised array of pixels, or of features of images. A large one is a file in the directory for temporary
    files (``TMPDIR``), which has no name any more and ends with the process. Raises ``OSError`` or ``MemoryError`` if
    there is no room."""
    size = prod(shape) * np.dtype(dtype).itemsize
    if size <= min(_MOST, _SHARE * available_memory()):
        return np.empty(shape, dtype=dtype)
    with tempfile.TemporaryFile(prefix="latentmill-images-") as file:
        reserve(file.fileno(), size)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def reserve(descriptor: int, size: int) -> None:
    """Give a new file ``size`` bytes of disk. ``OSError`` if there is no room: writing through a mapping of a file
    without blocks would end the process instead."""
    if size:
        os.posix_fallocate(descriptor, 0, size)


def is_on_disk(array: np.ndarray) -> bool:
    """Whether an array is a file, or a part of one."""
    return _mapped(array) is not None


def _mapped(array: np.ndarray) -> np.memmap | None:
    """The array of a whole mapped file that ``array`` is, or is a part of."""
    base: Any = array
    found = None
    while isinstance(base, np.ndarray):
        found = base if isinstance(base, np.memmap) else found
        base = base.base
    return found


@contextmanager
def _reading_alone(array: np.ndarray, rows_N: np.ndarray) -> Iterator[None]:
    """Rows that do not follow each other are read alone, and all at once. By default the system reads megabytes around
    each, one after the other, and where memory does not hold the whole file, they are thrown away unused."""
    whole = _mapped(array)
    mapping: mmap.mmap | None = getattr(whole, "_mmap", None)
    if whole is None or mapping is None or not hasattr(mmap, "MADV_RANDOM"):
        yield
        return
    first = _address(array) - _address(whole)
    with suppress(OSError):  # the system need not take advice
        mapping.madvise(mmap.MADV_RANDOM)
        for row in rows_N.tolist():
            begin = first + (row % len(array)) * array.strides[0]
            page = begin - begin % mmap.PAGESIZE
            mapping.madvise(mmap.MADV_WILLNEED, page, begin + array.strides[0] - page)
    try:
        yield
    finally:
        with suppress(OSError):
            mapping.madvise(mmap.MADV_NORMAL)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _follow_each_other(rows_N: np.ndarray) -> bool:
    return bool((np.diff(rows_N) == 1).all())


def keep_images(images_NHWC: np.ndarray, kept_N: np.ndarray) -> np.ndarray:
    """Only the rows ``kept_N`` (ascending); those on disk are moved together in place."""
    if len(kept_N) == len(images_NHWC):
        return images_NHWC
    if not is_on_disk(images_NHWC):
        kept: np.ndarray = images_NHWC[kept_N]
        return kept
    for row, old in enumerate(kept_N.tolist()):
        if row != old:
            images_NHWC[row] = images_NHWC[old]
    return images_NHWC[: len(kept_N)]


def image_rows(images_NHWC: np.ndarray, rows_N: np.ndarray) -> np.ndarray:
    """Rows of an array of images: a copy or, for images on disk, an ``ImageRows`` that reads them when asked."""
    return take_rows(images_NHWC if not is_on_disk(images_NHWC) else cast(np.ndarray, ImageRows(images_NHWC)), rows_N)


def take_rows(points: np.ndarray, rows_N: np.ndarray) -> np.ndarray:
    """``points[rows_N]``; of an ``ImageRows``, or of an array on disk, without reading them."""
    if isinstance(points, ImageRows):
        return cast(np.ndarray, points.take(rows_N))
    if is_on_disk(points):
        return cast(np.ndarray, ImageRows(points, rows_N))
    rows: np.ndarray = points[rows_N]
    return rows


def flat_pixels(images_NHWC: np.ndarray) -> np.ndarray:
    """Images as points: ``(N, H * W * C)``, for arrays of any shape; of images on disk as an ``ImageRows``."""
    numbers = prod(images_NHWC.shape[1:])
    if not isinstance(images_NHWC, ImageRows) and not is_on_disk(images_NHWC):
        return images_NHWC.reshape(len(images_NHWC), numbers)
    return map_rows(images_NHWC, lambda some: some.reshape(len(some), numbers), (numbers,), images_NHWC.dtype)


def map_rows(
    images_NHWC: np.ndarray, compute: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], dtype: DTypeLike
) -> np.ndarray:
    """What ``compute`` makes of some images, for each of them an array of ``shape``, computed when asked."""
    images = images_NHWC if isinstance(images_NHWC, ImageRows) else ImageRows(images_NHWC)
    return cast(np.ndarray, images.map(compute, shape, dtype))


@final
class ImageRows:
    """Some rows of an array of images on disk, or what is computed of them. It knows its shape and can be indexed along
    its first axis, like an array; nothing is read before."""

    def __init__(self, images_NHWC: np.ndarray, rows_N: np.ndarray | None = None) -> None:
        self._images_NHWC, self._rows_N = images_NHWC, rows_N
        self._computes: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()
        self.shape = (len(images_NHWC) if rows_N is None else len(rows_N), *images_NHWC.shape[1:])
        self.dtype: np.dtype = images_NHWC.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return len(self._images_NHWC) if self._rows_N is None else len(self._rows_N)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple) or key is Ellipsis or key is None:
            raise TypeError(
                f"rows of images are read by one index, got {key!r}; use map_rows for what lies inside them"
            )
        at = np.arange(*key.indices(len(self))) if isinstance(key, slice) else np.asarray(key)
        at = at.astype(np.int64) if at.size == 0 else at
        if at.dtype == bool:
            at = np.flatnonzero(at)
        rows_N = np.ravel(at if self._rows_N is None else self._rows_N[at])
        found = np.empty((len(rows_N), *self.shape[1:]), dtype=self.dtype)
        for begin in range(0, len(rows_N), _READ_AT_ONCE):
            part = self._read(rows_N[begin : begin + _READ_AT_ONCE])
            for compute in self._computes:
                part = compute(part)
            found[begin : begin + _READ_AT_ONCE] = part
        return found.reshape((*at.shape, *self.shape[1:]))

    def _read(self, rows_N: np.ndarray) -> np.ndarray:
        with nullcontext() if _follow_each_other(rows_N) else _reading_alone(self._images_NHWC, rows_N):
            images_NHWC: np.ndarray = self._images_NHWC[rows_N]
            return images_NHWC

    def take(self, rows_N: np.ndarray) -> ImageRows:
        """Only some of the rows, in a new order."""
        taken = ImageRows(self._images_NHWC, rows_N if self._rows_N is None else self._rows_N[rows_N])
        taken._computes, taken.shape, taken.dtype = self._computes, (len(rows_N), *self.shape[1:]), self.dtype
        return taken

    def map(self, compute: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], dtype: DTypeLike) -> ImageRows:
        """What ``compute`` makes of rows: for each an array of ``shape`` and ``dtype``."""
        mapped = ImageRows(self._images_NHWC, self._rows_N)
        mapped._computes = (*self._computes, compute)
        mapped.shape, mapped.dtype = (self.shape[0], *shape), np.dtype(dtype)
        return mapped
