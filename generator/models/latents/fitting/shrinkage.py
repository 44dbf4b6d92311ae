"""Regularised covariances for few codes: a variance floor, and shrinkage towards a common prior."""

from __future__ import annotations

import numpy as np

_FLOOR = 1e-6  # minimum variance in any direction, as a share of the class's mean variance


def variance_floor(codes_ND: np.ndarray) -> float:
    """The value added to every variance, so that codes that lie in a hyperplane also have a density."""
    return _FLOOR * float(codes_ND.var(axis=0).mean())


def shrink(covariance_KDD: np.ndarray, weight_K: np.ndarray, count: int) -> np.ndarray:
    """Shrinks each cluster's covariance towards the pooled one of its class, more strongly the fewer codes it has.

    The result is the posterior mode under an inverse-Wishart prior with the weight of D / 2 codes: half with the pooled
    covariance of the clusters, half with its diagonal. ``count``: codes of the class.
    """
    pooled_DD = (weight_K[:, None, None] * covariance_KDD).sum(axis=0)
    strength, codes_K11 = covariance_KDD.shape[-1] / 4.0, count * weight_K[:, None, None]
    prior_DD = strength * (pooled_DD + np.diag(np.diag(pooled_DD)))
    shrunk_KDD: np.ndarray = (codes_K11 * covariance_KDD + prior_DD) / (codes_K11 + 2.0 * strength)
    return shrunk_KDD


def shrink_diagonals(variance_KD: np.ndarray, weight_K: np.ndarray, count: int) -> np.ndarray:
    """The same for diagonal covariances: a prior with the weight of D / 2 codes and the pooled variances."""
    prior, codes_K1 = variance_KD.shape[-1] / 2.0, count * weight_K[:, None]
    shrunk_KD: np.ndarray = (codes_K1 * variance_KD + prior * (weight_K @ variance_KD)) / (codes_K1 + prior)
    return shrunk_KD
