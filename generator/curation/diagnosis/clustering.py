"""Measures of clustering: Hopkins statistic, silhouette, and agreement of clusters with classes."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from sklearn.metrics import silhouette_score

from generator.curation.diagnosis.knn import k_nearest, k_nearest_others
from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.spec.canonical import FrozenModel

MIN_CODES = 30
_PROBES, _NEIGHBOURS = 200, 10
BOX_DIMS = 5  # in more dimensions nearly all of the bounding box is empty for any codes


class Hopkins(FrozenModel):
    """``against_uniform``: the classical statistic: 0.5 for codes uniform in their bounding box, near 1 for clusters.

    It says little above ``BOX_DIMS`` dimensions, where even one Gaussian cloud leaves most of the box empty and scores
    near 1. ``against_gaussian``: the same with probes from one Gaussian with the codes' covariance, so 0.5 means as
    clustered as one Gaussian, in any dimension. ``caveat``: a warning for people; empty if there is none.
    """

    against_uniform: float
    against_gaussian: float
    caveat: str = ""


def hopkins(codes_SD: np.ndarray, *, seed: int = 0) -> Hopkins | Unmeasured:
    """The Hopkins statistic: Hopkins & Skellam (Annals of Botany, 1954).

    Distances are taken to the power D as in Cross & Jain (1982). Wright ("Will the real Hopkins statistic please stand
    up?", R Journal, 2022) shows why that power matters.
    """
    if len(codes_SD) < MIN_CODES:
        return Unmeasured(why=f"{len(codes_SD)} codes, fewer than {MIN_CODES}")
    rng, dims = np.random.default_rng(seed), int(codes_SD.shape[1])
    probes = min(_PROBES, len(codes_SD) // 5)
    own_P = k_nearest_others(codes_SD, 1)[rng.choice(len(codes_SD), probes, replace=False), 0]
    low_D, high_D = codes_SD.min(axis=0), codes_SD.max(axis=0)
    box_P = k_nearest(codes_SD, rng.uniform(low_D, high_D, (probes, dims)), 1)[0][:, 0]
    gaussian_PD = rng.multivariate_normal(codes_SD.mean(axis=0), np.atleast_2d(np.cov(codes_SD.T)), probes)
    cloud_P = k_nearest(codes_SD, gaussian_PD, 1)[0][:, 0]
    if not own_P.any():
        return Unmeasured(why="most codes are equal")
    return Hopkins(
        against_uniform=_hopkins_ratio(box_P, own_P, dims),
        against_gaussian=float(cloud_P.sum() / (cloud_P.sum() + own_P.sum())),
        caveat="" if dims <= BOX_DIMS else f"in {dims} dimensions the classical statistic is near 1 for any codes",
    )


def _hopkins_ratio(probe_P: np.ndarray, own_P: np.ndarray, power: int) -> float:
    """sum(probe^power) / (sum(probe^power) + sum(own^power)), without overflow."""
    with np.errstate(divide="ignore"):
        probe, own = logsumexp(power * np.log(probe_P)), logsumexp(power * np.log(own_P))
    return float(1.0 / (1.0 + np.exp(min(700.0, own - probe))))


def silhouette(codes_SD: np.ndarray, groups_S: np.ndarray) -> float | Unmeasured:
    """Mean silhouette width, -1 to 1: Rousseeuw, Journal of Computational and Applied Mathematics, 1987.

    Near 1: groups are far apart; 0: they overlap; below 0: codes are nearer to another group. Groups of one code are
    left out.
    """
    _, inverse_S, count_G = np.unique(groups_S, return_inverse=True, return_counts=True)
    kept = count_G[inverse_S] > 1
    if len(np.unique(inverse_S[kept])) < 2:
        return Unmeasured(why="fewer than two groups of two codes or more")
    return float(silhouette_score(codes_SD[kept], inverse_S[kept]))


def agreement(
    train_ND: np.ndarray, train_labels_N: np.ndarray, codes_SD: np.ndarray, labels_S: np.ndarray
) -> float | Unmeasured:
    """Share of a code's ten nearest training codes that have its class, mean over classes.

    1 for pure clusters; 1 / number of classes if the classes are mixed at random.
    """
    classes = np.unique(labels_S)
    if len(classes) < 2:
        return Unmeasured(why="fewer than two classes")
    k = min(_NEIGHBOURS, len(train_ND))
    distance_SK, row_SK = k_nearest(train_ND, codes_SD, min(k + 1, len(train_ND)))
    same_SK = (train_labels_N[row_SK] == labels_S[:, None]).astype(np.float64)
    itself_S = distance_SK[:, 0] == 0.0  # the shape may be measured on training codes
    own_S = np.where(itself_S, same_SK[:, 1:].mean(axis=1), same_SK[:, :k].mean(axis=1))
    return float(np.mean([own_S[labels_S == label].mean() for label in classes]))
