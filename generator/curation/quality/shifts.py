"""Shift-invariant distances: an image shifted by a pixel is still a copy.

Legend: Q queries, B a block of them, P points, M candidates, S shifts, H rows, W columns, C channels, D = H * W * C.
"""

from __future__ import annotations

import numpy as np

ImageShape = tuple[int, int, int]  # (H, W, C)

_BLOCK_BYTES = 2**25  # of shifted queries as float64, at a time


def shifted_distances(
    queries_QD: np.ndarray, points_PD: np.ndarray, rows_QM: np.ndarray, shape: ImageShape, *, shift: int = 1
) -> np.ndarray:
    """distances_Q (float64): the smallest Euclidean distance of each query to ``points_PD[rows_QM]`` under any shift.

    Queries are shifted by up to ``shift`` whole pixels along both axes, with the border repeated. The pixels (D) are
    flattened from ``shape``. Peak memory: about 64 MiB, more only for a single image that needs more.
    """
    least_Q = np.empty(len(queries_QD))
    block = max(1, _BLOCK_BYTES // (8 * (2 * shift + 1) ** 2 * queries_QD.shape[1]))
    for begin in range(0, len(queries_QD), block):
        rows = slice(begin, begin + block)
        moved_BSD = _all_shifts(queries_QD[rows].reshape(-1, *shape), shift)
        near_BMD = points_PD[rows_QM[rows]].astype(np.float64)
        moved_BS, near_BM = (np.einsum("bxd,bxd->bx", points_BXD, points_BXD) for points_BXD in (moved_BSD, near_BMD))
        lengths_BSM = moved_BS[:, :, None] + near_BM[:, None, :]
        squared_BSM = lengths_BSM - 2.0 * (moved_BSD @ near_BMD.transpose(0, 2, 1))
        least_Q[rows] = squared_BSM.min(axis=(1, 2))
    return np.sqrt(np.maximum(least_Q, 0.0))


def _all_shifts(images_BHWC: np.ndarray, shift: int) -> np.ndarray:
    """moved_BSD float64: every image under each of the (2 shift + 1)^2 shifts."""
    _, height, width, _ = images_BHWC.shape
    padded = np.pad(images_BHWC, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    span = range(2 * shift + 1)
    moved = [padded[:, y : y + height, x : x + width].reshape(len(images_BHWC), -1) for y in span for x in span]
    return np.stack(moved, axis=1).astype(np.float64)
