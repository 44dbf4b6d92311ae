"""k-nearest-neighbour search."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

_TREE_DIMS = 8  # up to this dimension a k-d tree is faster than brute force


def k_nearest(reference_ND: np.ndarray, query_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(distances_BK, rows_BK) of the ``k`` nearest points of ``reference_ND``, ascending; ``k`` is at most N."""
    algorithm = "kd_tree" if reference_ND.shape[1] <= _TREE_DIMS else "brute"
    found = NearestNeighbors(n_neighbors=k, algorithm=algorithm).fit(reference_ND)
    distance_BK, row_BK = found.kneighbors(query_BD)
    return distance_BK, row_BK


def k_nearest_others(codes_ND: np.ndarray, k: int) -> np.ndarray:
    """distances_NK of each code to its ``k`` nearest other codes, ascending; ``k`` is at most N - 1."""
    algorithm = "kd_tree" if codes_ND.shape[1] <= _TREE_DIMS else "brute"
    found = NearestNeighbors(n_neighbors=k, algorithm=algorithm).fit(codes_ND)
    distance_NK: np.ndarray = found.kneighbors()[0]
    return distance_NK
