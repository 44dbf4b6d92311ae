"""Covariances that rest on few codes, made usable: a floor for the least variance, and a common prior."""

from __future__ import annotations

import numpy as np

_FLOOR = 1e-6  # least variance in any direction, as a share of the class's mean variance


def variance_floor(codes_ND: np.ndarray) -> float:
    """What is added to every variance, so that also codes in a hyperplane have a density."""
    return _FLOOR * float(codes_ND.var(axis=0).mean())


def shrink(covariance_KDD: np.ndarray, weight_K: np.ndarray, count: int) -> np.ndarray:
    """Covariances drawn to what the clusters of a class have in common, the more the fewer codes a cluster has.

    Each is the posterior mode under an inverse-Wishart prior worth D / 2 codes, half of them spread as the pooled
    covariance of the clusters and half as its diagonal. ``count``: codes of the class.
    """
    pooled_DD = (weight_K[:, None, None] * covariance_KDD).sum(axis=0)
    strength, codes_K11 = covariance_KDD.shape[-1] / 4.0, count * weight_K[:, None, None]
    prior_DD = strength * (pooled_DD + np.diag(np.diag(pooled_DD)))
    shrunk_KDD: np.ndarray = (codes_K11 * covariance_KDD + prior_DD) / (codes_K11 + 2.0 * strength)
    return shrunk_KDD


def shrink_diagonals(variance_KD: np.ndarray, weight_K: np.ndarray, count: int) -> np.ndarray:
    """The same of diagonal covariances: each variance under a prior worth D / 2 codes spread as the pooled ones."""
    prior, codes_K1 = variance_KD.shape[-1] / 2.0, count * weight_K[:, None]
    shrunk_KD: np.ndarray = (codes_K1 * variance_KD + prior * (weight_K @ variance_KD)) / (codes_K1 + prior)
    return shrunk_KD
