"""Fitting the clusters of ``transport``: k-means in the directions of most variance, then moments.

The codes of a class are whitened by the factor of the base. Within a class, clusters are found by k-means (Lloyd, 1982)
on the unwhitened numbers of the first ``_COMPARED`` directions. Each cluster has its own mean, and in the first
``RANK`` directions its own covariance, shrunk towards the pooled one of the class's clusters. Columns of the base's
factor that belong to the other directions are scaled down by the variance between the clusters, so the class keeps its
variance.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from generator.models.latents.codes import ClassCodes
from generator.models.latents.gaussian_base import Rotation

RANK = 32  # directions in which a cluster has a covariance of its own
MIN_CODES = 100  # a cluster, on average
_COMPARED, _ITERATIONS = 64, 50
_SMALLEST_REST = 0.05  # share of the variance that is left within clusters, at least
_FLOOR = 1e-6  # smallest variance in any direction, as a share of the mean variance


@dataclass(frozen=True)
class ClusterFit:
    """The number of clusters of each class, and the arrays that replace ``factor`` of the base or join it."""

    clusters: tuple[int, ...]
    rank: int
    arrays: dict[str, np.ndarray]


def fit_clusters(classes: list[ClassCodes], arrays: dict[str, np.ndarray], wanted: int, *, seed: int) -> ClusterFit:
    """At most ``wanted`` clusters a class for a base of low rank with these ``arrays``; fewer where codes are few."""
    rotation = Rotation(arrays["reflectors"], arrays["reflections"])
    basis_DE = rotation.columns(arrays["factor"].shape[1])
    rank = min(RANK, basis_DE.shape[1])
    parts = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for class_codes, mean_D, factor_EE in zip(classes, arrays["mean"], arrays["factor"], strict=True):
            codes_NE = (class_codes.codes_ND - mean_D) @ basis_DE
            parts.append(_fit_class(codes_NE, factor_EE, wanted, rank, seed))
    factor, weight, mean, own = zip(*parts, strict=True)
    fitted = {
        "factor": np.stack(factor),
        "cluster_weight": np.concatenate(weight),
        "cluster_mean": np.concatenate(mean),
        "cluster_factor": np.concatenate(own),
    }
    return ClusterFit(tuple(map(len, weight)), rank, arrays | fitted)


def _fit_class(
    codes_NE: np.ndarray, factor_EE: np.ndarray, wanted: int, rank: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(factor of the class, weight_K, mean_KE, factor_KRR)."""
    from scipy.linalg import solve_triangular  # slow to import

    w_NE = solve_triangular(factor_EE, codes_NE.T, lower=True).T
    cluster_N = _assign(codes_NE[:, :_COMPARED], max(1, min(wanted, len(codes_NE) // MIN_CODES)), seed)
    count_K = np.bincount(cluster_N)
    mean_KE = np.stack([w_NE[cluster_N == cluster].mean(axis=0) for cluster in range(len(count_K))])
    weight_K = count_K / count_K.sum()
    rest_E = np.sqrt(np.maximum(1.0 - weight_K @ np.square(mean_KE), _SMALLEST_REST))
    rest_E[:rank] = 1.0
    within_NR = (w_NE - mean_KE[cluster_N])[:, :rank]
    return factor_EE * rest_E, weight_K, mean_KE / rest_E, _own_factors(within_NR, cluster_N, len(count_K))


def _assign(codes_NP: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """cluster_N int64: numbers without gaps, from 0."""
    if clusters == 1:
        return np.zeros(len(codes_NP), dtype=np.int64)
    found = KMeans(clusters, n_init=1, max_iter=_ITERATIONS, random_state=seed).fit_predict(codes_NP)
    numbers_N: np.ndarray = np.unique(found, return_inverse=True)[1]
    return numbers_N.astype(np.int64)


def _own_factors(within_NR: np.ndarray, cluster_N: np.ndarray, clusters: int) -> np.ndarray:
    """factor_KRR. A prior with the weight of R codes (R / 2 for the pooled covariance) stands in for missing codes."""
    count, rank = within_NR.shape
    pooled_RR = within_NR.T @ within_NR / count
    pooled_RR = (count * pooled_RR + 0.5 * rank * np.diag(np.diag(pooled_RR))) / (count + 0.5 * rank)
    floor_RR = _FLOOR * float(np.trace(pooled_RR)) / rank * np.eye(rank)
    factors = []
    for cluster in range(clusters):
        own_QR = within_NR[cluster_N == cluster]
        covariance_RR = (own_QR.T @ own_QR + rank * pooled_RR) / (len(own_QR) + rank)
        factors.append(np.linalg.cholesky(covariance_RR + floor_RR))
    return np.stack(factors)
