"""Results for many rows, computed some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


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
