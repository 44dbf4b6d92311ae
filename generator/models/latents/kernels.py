"""Batch-invariant linear algebra: the result for a row does not depend on the other rows, bit for bit.

BLAS chooses its blocking, and so the order of its sums, by the shape of the whole batch. Here every sum is an explicit
loop over latent dimensions of elementwise operations. IEEE 754 rounds these the same way at every position of an array,
so the results do not depend on the processor either. ``np.exp`` and ``np.log`` take different code paths for strided
input, so they are given contiguous arrays only.

Legend: B rows, K components, D latent dimensions. All arrays are float64.
"""

from __future__ import annotations

import math

import numpy as np

_TILE = 256  # rows at a time: the working set of a tile stays in the cache


def factor_columns(factor_KDD: np.ndarray) -> tuple[np.ndarray, ...]:
    """The columns of lower-triangular factors without the zeros: D contiguous arrays, the j-th of shape (K, D - j)."""
    return tuple(np.ascontiguousarray(factor_KDD[:, j:, j]) for j in range(factor_KDD.shape[-1]))


def affine(
    mean_BD: np.ndarray, columns: tuple[np.ndarray, ...], factor_B: np.ndarray, normal_BD: np.ndarray
) -> np.ndarray:
    """z_BD = mean + L[k] @ normal, with k the row's factor in ``factor_B`` and L[k] as ``factor_columns``."""
    z_BD = mean_BD.copy()
    for begin in range(0, len(normal_BD), _TILE):
        rows = slice(begin, begin + _TILE)
        z_TD, factor_T, normal_TD = z_BD[rows], factor_B[rows], normal_BD[rows]
        for j, column_KR in enumerate(columns):
            z_TD[:, j:] += column_KR.take(factor_T, axis=0) * normal_TD[:, j : j + 1]
    return z_BD


def solve(columns: tuple[np.ndarray, ...], factor_B: np.ndarray, centred_BD: np.ndarray) -> np.ndarray:
    """normal_BD that solves L[k] @ normal = centred by forward substitution; k: the row's factor in ``factor_B``."""
    normal_BD = np.empty_like(centred_BD)
    for begin in range(0, len(centred_BD), _TILE):
        rows = slice(begin, begin + _TILE)
        factor_T, rest_TD = factor_B[rows], centred_BD[rows].copy()
        for j, column_KR in enumerate(columns):
            column_TR = column_KR.take(factor_T, axis=0)
            normal_T = rest_TD[:, j] / column_TR[:, 0]
            rest_TD[:, j + 1 :] -= column_TR[:, 1:] * normal_T[:, None]
            normal_BD[rows, j] = normal_T
    return normal_BD


def squared_distances(mean_KD: np.ndarray, columns: tuple[np.ndarray, ...], z_BD: np.ndarray) -> np.ndarray:
    """(K, B): squared Mahalanobis distance of each row to each component, |L[k]^-1 (z - mean[k])|^2.

    Forward substitution, one column of L at a time.
    """
    distance_KB = np.empty((len(mean_KD), len(z_BD)))
    for begin in range(0, len(z_BD), _TILE):
        rows = slice(begin, begin + _TILE)
        distance_KB[:, rows] = _squared_distances(mean_KD, columns, z_BD[rows])
    return distance_KB


def _squared_distances(mean_KD: np.ndarray, columns: tuple[np.ndarray, ...], z_TD: np.ndarray) -> np.ndarray:
    rest_KDT = z_TD.T[None, :, :] - mean_KD[:, :, None]
    distance_KT = np.zeros((len(mean_KD), len(z_TD)))
    for j, column_KR in enumerate(columns):
        white_KT = rest_KDT[:, j] / column_KR[:, :1]
        rest_KDT[:, j + 1 :] -= column_KR[:, 1:, None] * white_KT[:, None, :]
        distance_KT += white_KT * white_KT
    return distance_KT


def log_determinants(columns: tuple[np.ndarray, ...]) -> np.ndarray:
    """(K,): log of the determinant of each factor L."""
    diagonal_DK = np.stack([column_KR[:, 0] for column_KR in columns])
    return np.array([math.fsum(map(math.log, diagonal_D)) for diagonal_D in diagonal_DK.T])


def sum_of_squares(value_BD: np.ndarray) -> np.ndarray:
    """(B,): sum of squares of each row, added from the first dimension to the last."""
    total_B = np.zeros(len(value_BD))
    for value_B in np.ascontiguousarray(value_BD.T):
        total_B += value_B * value_B
    return total_B


def log_sum_exp(value_KB: np.ndarray) -> np.ndarray:
    """(B,): log of the sum of exp(value) over components, added in the order of the components."""
    highest_B = np.ascontiguousarray(value_KB[0])
    for value_B in value_KB[1:]:
        highest_B = np.maximum(highest_B, value_B)
    total_B = np.zeros_like(highest_B)
    for value_B in value_KB:
        total_B += np.exp(value_B - highest_B)
    log_B: np.ndarray = highest_B + np.log(total_B)
    return log_B


def inverse_cdf(cumulative_K: np.ndarray, choice_B: np.ndarray) -> np.ndarray:
    """int64 (B,): inverse CDF, at ``choice_B`` in (0, 1), of a discrete distribution with CDF ``cumulative_K``."""
    return np.minimum(np.searchsorted(cumulative_K, choice_B, side="right"), len(cumulative_K) - 1)
