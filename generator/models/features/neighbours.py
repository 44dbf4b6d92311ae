"""Exact nearest-neighbour search among many points, in bounded memory, on all cores.

A float32 matrix product first gives squared distances up to a constant per query, |p|^2 - 2 q p (the scores). The best
few candidates of each query are then measured again in float64. A neighbour can be missed only if more than
``_EXTRA_CANDIDATES`` other points are as near within float32 rounding; the returned distance is then that close to the
true one.

Legend: Q queries, P points, D dimensions, K neighbours, M candidates. Points may be uint8 pixels or float features.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from generator.errors import MeasureError
from generator.spec.machine import usable_cores

_QUERY_BLOCK, _POINT_BLOCK, _FIRST_BLOCK = 1024, 8192, 1024  # 32 MiB of scores at a time per core
_QUERY_BYTES, _POINT_BYTES = 2**26, 2**25  # of float32, at a time
_CENTRED_ROWS = 256  # float64
_EXTRA_CANDIDATES = 4
_RERANK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The K nearest points of each query, nearest first: ``rows_QK`` int64, Euclidean ``distances_QK`` float64."""

    rows_QK: np.ndarray
    distances_QK: np.ndarray


def nearest_neighbours(
    queries_QD: np.ndarray,
    points_PD: np.ndarray,
    k: int = 1,
    *,
    exclude_Q: np.ndarray | None = None,
) -> Neighbours:
    """The ``k`` nearest points of each query. ``exclude_Q``: one row per query to exclude, such as the query itself.

    Points and queries must be finite, and may be an ``ImageRows`` of images on disk. Peak memory: 64 MiB of queries, 32
    MiB of points, and 100 MiB per core. Raises ``MeasureError``.
    """
    min_points = k + (exclude_Q is not None)
    if len(points_PD) < min_points or k < 1:
        raise MeasureError(
            "points", f"at least {min_points} of them", len(points_PD), "give more images, or a smaller k"
        )
    if queries_QD.ndim != 2 or queries_QD.shape[1] != points_PD.shape[1]:
        raise MeasureError("queries", f"{points_PD.shape[1]} dimensions", f"shape {queries_QD.shape}")
    index = _Index(points_PD, k)
    step = max(1, _QUERY_BYTES // (4 * (queries_QD.shape[1] + 1) * _QUERY_BLOCK)) * _QUERY_BLOCK
    with threadpool_limits(1), ThreadPoolExecutor(usable_cores()) as pool:
        some = [slice(begin, begin + step) for begin in range(0, len(queries_QD), step)]
        parts = [index.search(queries_QD[rows], None if exclude_Q is None else exclude_Q[rows], pool) for rows in some]
    return Neighbours(
        np.concatenate([np.empty((0, k), np.int64), *(part.rows_QK for part in parts)]),
        np.concatenate([np.empty((0, k)), *(part.distances_QK for part in parts)]),
    )


@final
class _Index:
    """The points, read block by block: centred, which keeps float32 sums small, with their squared lengths as an extra
    column."""

    def __init__(self, points_PD: np.ndarray, k: int) -> None:
        self._points_PD, self._k = points_PD, k
        self._candidates = min(k + _EXTRA_CANDIDATES, len(points_PD))
        self._step = max(1, min(_POINT_BLOCK, _POINT_BYTES // (4 * (points_PD.shape[1] + 1))))
        self._centre_D = np.zeros(points_PD.shape[1])
        for begin in range(0, len(points_PD), self._step):
            self._centre_D += points_PD[begin : begin + self._step].sum(axis=0, dtype=np.float64)
        self._centre_D /= len(points_PD)

    def search(self, queries_QD: np.ndarray, exclude_Q: np.ndarray | None, pool: ThreadPoolExecutor) -> Neighbours:
        """The nearest points of some queries, whose blocks are searched by the threads of ``pool``."""
        blocks = [
            _QueryBlock(
                queries_QD[begin : begin + _QUERY_BLOCK],
                None if exclude_Q is None else exclude_Q[begin : begin + _QUERY_BLOCK],
                self._centre_D,
                self._candidates,
            )
            for begin in range(0, len(queries_QD), _QUERY_BLOCK)
        ]
        begin, size = 0, min(_FIRST_BLOCK, self._step)
        while begin < len(self._points_PD):
            augmented_BE = self._augment(self._points_PD[begin : begin + size])
            list(pool.map(lambda block: block.compare(augmented_BE, begin), blocks))  # noqa: B023 - consumed here
            begin, size = begin + len(augmented_BE), self._step
        found = list(pool.map(lambda block: self._rerank(block.queries_QD, block.candidates, block.exclude_Q), blocks))
        return Neighbours(
            np.concatenate([each.rows_QK for each in found]), np.concatenate([each.distances_QK for each in found])
        )

    def _augment(self, points_BD: np.ndarray) -> np.ndarray:
        augmented_BE = np.empty((len(points_BD), points_BD.shape[1] + 1), dtype=np.float32)
        for begin in range(0, len(points_BD), _CENTRED_ROWS):
            rows = slice(begin, begin + _CENTRED_ROWS)
            centred_RD = points_BD[rows] - self._centre_D
            augmented_BE[rows, :-1] = centred_RD
            augmented_BE[rows, -1] = np.einsum("rd,rd->r", centred_RD, centred_RD)
        return augmented_BE

    def _rerank(self, queries_QD: np.ndarray, candidates: _Candidates, exclude_Q: np.ndarray | None) -> Neighbours:
        squared_QM = np.empty(candidates.rows_QM.shape)
        step = max(1, _RERANK_BYTES // (8 * candidates.rows_QM.shape[1] * queries_QD.shape[1]))
        for begin in range(0, len(queries_QD), step):
            rows = slice(begin, begin + step)
            difference_BMD = queries_QD[rows, None, :].astype(np.float64) - self._points_PD[candidates.rows_QM[rows]]
            squared_QM[rows] = np.einsum("bmd,bmd->bm", difference_BMD, difference_BMD)
        if exclude_Q is not None:
            squared_QM[candidates.rows_QM == exclude_Q[:, None]] = np.inf
        order_QK = np.lexsort((candidates.rows_QM, squared_QM), axis=1)[:, : self._k]  # ties: the lower row first
        rows_QK = np.take_along_axis(candidates.rows_QM, order_QK, axis=1)
        return Neighbours(rows_QK, np.sqrt(np.take_along_axis(squared_QM, order_QK, axis=1)))


@final
class _QueryBlock:
    """Some queries, and the best candidates that were found for them so far."""

    def __init__(
        self, queries_QD: np.ndarray, exclude_Q: np.ndarray | None, centre_D: np.ndarray, candidates: int
    ) -> None:
        self.queries_QD, self.exclude_Q = queries_QD, exclude_Q
        self.candidates = _Candidates(len(queries_QD), candidates)
        self._query_QE = np.ones((len(queries_QD), queries_QD.shape[1] + 1), dtype=np.float32)
        self._query_QE[:, :-1] = -2.0 * (queries_QD - centre_D)

    def compare(self, augmented_BE: np.ndarray, first: int) -> None:
        """Compare with the points ``first ..``."""
        score_QB = self._query_QE @ augmented_BE.T
        if self.exclude_Q is not None:
            inside = np.flatnonzero((self.exclude_Q >= first) & (self.exclude_Q < first + score_QB.shape[1]))
            score_QB[inside, self.exclude_Q[inside] - first] = np.inf
        self.candidates.add(score_QB, first)


@final
class _Candidates:
    """The M best candidates of each query so far, unordered."""

    def __init__(self, queries: int, candidates: int) -> None:
        self._limit = candidates
        self.rows_QM = np.zeros((queries, 0), dtype=np.int64)
        self._score_QM = np.zeros((queries, 0), dtype=np.float32)

    def add(self, score_QB: np.ndarray, first: int) -> None:
        """Add the scores of points ``first ..``; those below the worst kept score replace it."""
        if self.rows_QM.shape[1] < self._limit:
            rows_B = np.arange(first, first + score_QB.shape[1])
            self._merge(np.arange(len(score_QB)), score_QB, np.broadcast_to(rows_B, score_QB.shape), grow=True)
            return
        queries_Q, columns = np.nonzero(score_QB < self._score_QM.max(axis=1)[:, None])
        if len(queries_Q) == 0:
            return
        scores = score_QB[queries_Q, columns]
        changed_C, starts_C, counts_C = np.unique(queries_Q, return_index=True, return_counts=True)
        columns_in_group = np.arange(len(queries_Q)) - np.repeat(starts_C, counts_C)
        groups = np.repeat(np.arange(len(changed_C)), counts_C)
        score_CB = np.full((len(changed_C), counts_C.max()), np.inf, dtype=np.float32)
        rows_CB = np.zeros(score_CB.shape, dtype=np.int64)
        score_CB[groups, columns_in_group], rows_CB[groups, columns_in_group] = scores, columns + first
        self._merge(changed_C, score_CB, rows_CB, grow=False)

    def _merge(self, queries_C: np.ndarray, score_CB: np.ndarray, rows_CB: np.ndarray, *, grow: bool) -> None:
        score_CA = np.concatenate([self._score_QM[queries_C], score_CB], axis=1)
        rows_CA = np.concatenate([self.rows_QM[queries_C], rows_CB], axis=1)
        kept = min(self._limit, score_CA.shape[1])
        if kept < score_CA.shape[1]:
            chosen_CM = np.argpartition(score_CA, kept - 1, axis=1)[:, :kept]
            score_CA = np.take_along_axis(score_CA, chosen_CM, axis=1)
            rows_CA = np.take_along_axis(rows_CA, chosen_CM, axis=1)
        if grow:
            self._score_QM, self.rows_QM = score_CA, rows_CA
        else:
            self._score_QM[queries_C], self.rows_QM[queries_C] = score_CA, rows_CA
