"""Where the pixels of a source lie: in memory, or in a temporary file if they would take most of the free memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, cast, final

import numpy as np

Allocate = Callable[[tuple[int, ...]], np.ndarray]

_SHARE = 0.5  # of the available memory that pixels may take
_MEMORY = Path("/proc/meminfo")


def allocate_images(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised uint8 array. A large one is a file in the directory for temporary files (``TMPDIR``), which has
    no name any more and ends with the process. Raises ``OSError`` or ``MemoryError`` if there is no room."""
    if prod(shape) <= _SHARE * available_memory():
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile(prefix="latentmill-images-") as file:
        reserve(file.fileno(), prod(shape))
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)


def reserve(descriptor: int, size: int) -> None:
    """Give a new file ``size`` bytes of disk. ``OSError`` if there is no room: writing through a mapping of a file
    without blocks would end the process instead."""
    if size:
        os.posix_fallocate(descriptor, 0, size)


def available_memory() -> float:
    """Bytes that can be used without swapping; infinite where the system does not say."""
    try:
        lines = _MEMORY.read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024.0
    except (OSError, StopIteration, ValueError):
        return float("inf")


def is_on_disk(array: np.ndarray) -> bool:
    """Whether an array is a file, or a part of one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


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
    if not is_on_disk(images_NHWC):
        rows: np.ndarray = images_NHWC[rows_N]
        return rows
    return cast(np.ndarray, ImageRows(images_NHWC, rows_N))


@final
class ImageRows:
    """Some rows of an array of images on disk. It knows its shape and can be indexed, like an array."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, images_NHWC: np.ndarray, rows_N: np.ndarray) -> None:
        self._images_NHWC, self._rows_N = images_NHWC, rows_N
        self.shape = (len(rows_N), *images_NHWC.shape[1:])

    def __len__(self) -> int:
        return len(self._rows_N)

    def __getitem__(self, key: Any) -> np.ndarray:
        selected: np.ndarray = self._images_NHWC[self._rows_N[key]]
        return selected
