"""Convexity: the share of midpoints between codes, or of samples, that are off the support of the codes.

A point is *off support* if its distance to the fifth nearest training code of its class, in units of that class's
median, exceeds the 95% quantile of held-out codes. So 5% of held-out codes are off support. This is the distance rule
of Kynkaanniemi et al. ("Improved precision and recall", NeurIPS 2019), calibrated on the holdout. Like every such rule,
it detects little in many dimensions, where all distances are similar.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.curation.diagnosis.code_subset import CodeSubset
from generator.curation.diagnosis.knn import k_nearest, k_nearest_others
from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.spec.canonical import FrozenModel

NEIGHBOURS = 5
HOLDOUT_QUANTILE = 0.95
MIN_CODES = 20
_MIDPOINTS = 2_000


class OffSupport(FrozenModel):
    """The share of points that are off support, and its standard error."""

    share: float
    error: float


@dataclass(frozen=True, eq=False)
class Support:
    """The support of the codes: training codes and distance scale of each class, and the common limit."""

    codes: dict[int, np.ndarray]
    scale: dict[int, float]
    limit: float

    def measure_off_support(self, points_BD: np.ndarray, labels_B: np.ndarray) -> OffSupport | Unmeasured:
        """The share of ``points_BD`` off the support of their class. Classes without support are left out."""
        ratio_B = self.distance_ratios(points_BD, labels_B)
        ratio_R = ratio_B[~np.isnan(ratio_B)]
        if not len(ratio_R):
            return Unmeasured(why="no class has enough codes")
        share = float((ratio_R > self.limit).mean())
        return OffSupport(share=share, error=float(np.sqrt(share * (1.0 - share) / len(ratio_R))))

    def distance_ratios(self, points_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): distance to the K-th nearest training code of the class, in units of the class's scale.

        NaN for a class without support.
        """
        ratio_B = np.full(len(points_BD), np.nan)
        for label in np.unique(labels_B).tolist():
            if label in self.codes:
                rows = labels_B == label
                ratio_B[rows] = k_nearest(self.codes[label], points_BD[rows], NEIGHBOURS)[0][:, -1] / self.scale[label]
        return ratio_B


def fit_support(subset: CodeSubset) -> Support | Unmeasured:
    """The support of the training codes, with its limit calibrated on the held-out codes."""
    codes, scale = {}, {}
    for label in np.unique(subset.train_labels_N).tolist():
        of_class_ND = subset.train_ND[subset.train_labels_N == label]
        if len(of_class_ND) < MIN_CODES:
            continue
        median = float(np.median(k_nearest_others(of_class_ND, NEIGHBOURS)[:, -1]))
        if median > 0.0:
            codes[label], scale[label] = of_class_ND, median
    unlimited = Support(codes, scale, np.inf)
    ratio_H = unlimited.distance_ratios(subset.holdout_HD, subset.holdout_labels_H)
    ratio_R = ratio_H[~np.isnan(ratio_H)]
    if not codes:
        return Unmeasured(why=f"no class has {MIN_CODES} distinct training codes")
    if len(ratio_R) < MIN_CODES:
        return Unmeasured(why=f"{len(ratio_R)} held-out codes, fewer than {MIN_CODES}")
    return Support(codes, scale, float(np.quantile(ratio_R, HOLDOUT_QUANTILE)))


def midpoints(codes_SD: np.ndarray, labels_S: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(points_BD, labels_B): midpoints of random pairs of codes of the same class; classes in their proportions."""
    rng = np.random.default_rng(seed)
    first_B = rng.permutation(len(codes_SD))
    first_B = np.tile(first_B, -(-_MIDPOINTS // max(1, len(first_B))))[:_MIDPOINTS]
    second_B = np.empty_like(first_B)
    for label in np.unique(labels_S):
        of_class = np.flatnonzero(labels_S == label)
        rows = np.flatnonzero(labels_S[first_B] == label)
        second_B[rows] = rng.choice(of_class, len(rows))
    different = first_B != second_B
    first_B, second_B = first_B[different], second_B[different]
    return (codes_SD[first_B] + codes_SD[second_B]) / 2.0, labels_S[first_B]
