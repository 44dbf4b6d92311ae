"""Exact nearest neighbours among many points, in bounded memory, on all cores.

Squared distances are first taken with one matrix product in float32, |p|^2 - 2 q p; the best few candidates of each
query are then measured again in float64, directly. A neighbour can be missed only where more than ``_SPARE`` others
lie within the rounding of float32 of it, and then the distance given is that close to the true one.

Legend: Q queries, P points, D dimensions, K neighbours, M candidates. Points may be uint8 pixels or float features.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from generator.errors import MeasureError

_QUERY_BLOCK, _POINT_BLOCK, _FIRST_BLOCK = 1024, 8192, 1024  # 32 MiB of distances at a time and core
_EXTRA_CANDIDATES = 4
_RERANK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of each query the K nearest points, nearest first: ``rows_QK`` int64, Euclidean ``distances_QK`` float64."""

    rows_QK: np.ndarray
    distances_QK: np.ndarray


def nearest_neighbours(
    queries_QD: np.ndarray,
    points_PD: np.ndarray,
    k: int = 1,
    *,
    but_Q: np.ndarray | None = None,
) -> Neighbours:
    """The ``k`` nearest points of each query. ``but_Q`` names one row a query that does not count, as itself.

    Points must be finite. Peak memory: a float32 copy of the points, and 100 MiB a core. Raises ``MeasureError``.
    """
    least = k + (but_Q is not None)
    if len(points_PD) < least or k < 1:
        raise MeasureError("points", f"at least {least} of them", len(points_PD), "give more images, or a smaller k")
    if queries_QD.ndim != 2 or queries_QD.shape[1] != points_PD.shape[1]:
        raise MeasureError("queries", f"{points_PD.shape[1]} dimensions", f"shape {queries_QD.shape}")
    search = _Index(points_PD, k)

    def block(begin: int) -> Neighbours:
        rows = slice(begin, begin + _QUERY_BLOCK)
        return search.search(queries_QD[rows], None if but_Q is None else but_Q[rows])

    with threadpool_limits(1), ThreadPoolExecutor(_cores()) as pool:
        parts = list(pool.map(block, range(0, len(queries_QD), _QUERY_BLOCK)))
    return Neighbours(
        np.concatenate([np.empty((0, k), np.int64), *(part.rows_QK for part in parts)]),
        np.concatenate([np.empty((0, k)), *(part.distances_QK for part in parts)]),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@final
class _Index:
    """Points made ready: centred, which keeps float32 sums small, with their squared lengths as one more column."""

    def __init__(self, points_PD: np.ndarray, k: int) -> None:
        self._points_PD, self._k = points_PD, k
        self._candidates = min(k + _EXTRA_CANDIDATES, len(points_PD))
        self._centre_D = points_PD.mean(axis=0, dtype=np.float64)
        self._ready_PE = np.empty((len(points_PD), points_PD.shape[1] + 1), dtype=np.float32)
        for begin in range(0, len(points_PD), _QUERY_BLOCK):
            rows = slice(begin, begin + _QUERY_BLOCK)
            centred_BD = points_PD[rows] - self._centre_D
            self._ready_PE[rows, :-1] = centred_BD
            self._ready_PE[rows, -1] = np.einsum("bd,bd->b", centred_BD, centred_BD)

    def search(self, queries_QD: np.ndarray, but_Q: np.ndarray | None) -> Neighbours:
        ready_QE = np.ones((len(queries_QD), queries_QD.shape[1] + 1), dtype=np.float32)
        ready_QE[:, :-1] = -2.0 * (queries_QD - self._centre_D)
        best = _Candidates(len(queries_QD), self._candidates)
        begin, size = 0, _FIRST_BLOCK
        while begin < len(self._ready_PE):
            near_QB = ready_QE @ self._ready_PE[begin : begin + size].T
            if but_Q is not None:
                inside = np.flatnonzero((but_Q >= begin) & (but_Q < begin + near_QB.shape[1]))
                near_QB[inside, but_Q[inside] - begin] = np.inf
            best.add(near_QB, begin)
            begin, size = begin + near_QB.shape[1], _POINT_BLOCK
        return self._rerank(queries_QD, best, but_Q)

    def _rerank(self, queries_QD: np.ndarray, best: _Candidates, but_Q: np.ndarray | None) -> Neighbours:
        squared_QM = np.empty(best.rows_QM.shape)
        step = max(1, _RERANK_BYTES // (8 * best.rows_QM.shape[1] * queries_QD.shape[1]))
        for begin in range(0, len(queries_QD), step):
            rows = slice(begin, begin + step)
            apart_BMD = queries_QD[rows, None, :].astype(np.float64) - self._points_PD[best.rows_QM[rows]]
            squared_QM[rows] = np.einsum("bmd,bmd->bm", apart_BMD, apart_BMD)
        if but_Q is not None:
            squared_QM[best.rows_QM == but_Q[:, None]] = np.inf
        order_QK = np.lexsort((best.rows_QM, squared_QM), axis=1)[:, : self._k]  # of equals the first in line
        rows_QK = np.take_along_axis(best.rows_QM, order_QK, axis=1)
        return Neighbours(rows_QK, np.sqrt(np.take_along_axis(squared_QM, order_QK, axis=1)))


@final
class _Candidates:
    """Of each query the M best candidates so far, in no order."""

    def __init__(self, queries: int, candidates: int) -> None:
        self._limit = candidates
        self.rows_QM = np.zeros((queries, 0), dtype=np.int64)
        self._near_QM = np.zeros((queries, 0), dtype=np.float32)

    def add(self, near_QB: np.ndarray, first: int) -> None:
        """Points ``first ..`` with their distances: those that beat the worst one kept take its place."""
        if self.rows_QM.shape[1] < self._limit:
            rows_B = np.arange(first, first + near_QB.shape[1])
            self._merge(np.arange(len(near_QB)), near_QB, np.broadcast_to(rows_B, near_QB.shape), grow=True)
            return
        places_Q, columns = np.nonzero(near_QB < self._near_QM.max(axis=1)[:, None])
        if len(places_Q) == 0:
            return
        near = near_QB[places_Q, columns]
        changed_C, starts_C, counts_C = np.unique(places_Q, return_index=True, return_counts=True)
        slots = np.arange(len(places_Q)) - np.repeat(starts_C, counts_C)
        lines = np.repeat(np.arange(len(changed_C)), counts_C)
        near_CB = np.full((len(changed_C), counts_C.max()), np.inf, dtype=np.float32)
        rows_CB = np.zeros(near_CB.shape, dtype=np.int64)
        near_CB[lines, slots], rows_CB[lines, slots] = near, columns + first
        self._merge(changed_C, near_CB, rows_CB, grow=False)

    def _merge(self, places_C: np.ndarray, near_CB: np.ndarray, rows_CB: np.ndarray, *, grow: bool) -> None:
        near_CA = np.concatenate([self._near_QM[places_C], near_CB], axis=1)
        rows_CA = np.concatenate([self.rows_QM[places_C], rows_CB], axis=1)
        kept = min(self._limit, near_CA.shape[1])
        if kept < near_CA.shape[1]:
            chosen_CM = np.argpartition(near_CA, kept - 1, axis=1)[:, :kept]
            near_CA = np.take_along_axis(near_CA, chosen_CM, axis=1)
            rows_CA = np.take_along_axis(rows_CA, chosen_CM, axis=1)
        if grow:
            self._near_QM, self.rows_QM = near_CA, rows_CA
        else:
            self._near_QM[places_C], self.rows_QM[places_C] = near_CA, rows_CA
