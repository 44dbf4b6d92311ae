"""Results for many rows, computed some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_PIXELS = 2**20  # at one time: 1,024 images of 32 pixels a side, 256 of 64


def images_at_once(shape_HWC: tuple[int, ...], most: int) -> int:
    """How many images of ``shape_HWC`` a network takes at one time: ``most``, or fewer of large ones, at least 1.

    The memory of a network of convolutions grows with the pixels of its input [measured: 0.5 GB for 1,000 images of
    64 pixels a side in the first block of a judge].
    """
    height, width = shape_HWC[:2]
    return max(1, min(most, _PIXELS // (height * width)))


def batched_rows(
    compute: Callable[[slice], np.ndarray],
    count: int,
    batch: int,
    allocate: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.empty,
) -> np.ndarray:
    """What ``compute`` gives for the rows ``0 .. count - 1``, for ``batch`` of them at a time, in an array of
    ``allocate``, which takes its shape and dtype.

    Each result is copied into its place at once. Small results that are kept between large temporaries would split the
    heap: the next temporary does not fit where the last one was [measured: 3.8 GB instead of 0.8 for the logits of
    100,000 images].
    """
    first = compute(slice(0, min(batch, count)))
    found = allocate((count, *first.shape[1:]), first.dtype)
    found[: len(first)] = first
    for begin in range(len(first), count, batch):
        found[begin : begin + batch] = compute(slice(begin, begin + batch))
    return found
