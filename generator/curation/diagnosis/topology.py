"""Rings and holes in the codes: persistent homology on landmarks, compared with Gaussian clouds."""

from __future__ import annotations

import numpy as np
from ripser import ripser
from scipy.spatial.distance import pdist, squareform

from generator.curation.diagnosis.knn import k_nearest_others
from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.spec.canonical import FrozenModel

MIN_CODES = 40
LANDMARKS, REFERENCES = 128, 8
_CLASS_SETTINGS, _MAX_CLASSES = (80, 4), 10  # landmarks and references for one class; maximum number of classes
_OUTLIER_SHARE = 0.1  # share of codes left out as outliers, because farthest-first landmarks would select them
MIN_BAR = 0.4  # in units of the landmarks' scale
MIN_RATIO = 3.0  # death over birth of a bar: size of the hole over gaps in its rim; small for scattered codes
MIN_OVER_REFERENCE = 1.5  # relative to the longest bar of all references


class Loop(FrozenModel):
    """``bar``: the longest H1 bar (death minus birth), in units of the landmarks' median distance from
    their median.

    ``reference``: the longest such bar in Gaussian clouds of the same covariance, over all repetitions.
    """

    bar: float
    ratio: float  # its death over its birth
    reference: float
    ring: bool


def measure_loop(
    codes_SD: np.ndarray, *, seed: int = 0, landmarks: int = LANDMARKS, references: int = REFERENCES
) -> Loop | Unmeasured:
    """The longest H1 bar of the Vietoris-Rips complex (Edelsbrunner, Letscher & Zomorodian, 2002; Tralie, Saul &
    Bar-On, "Ripser.py", JOSS 2018) on landmarks chosen farthest first (de Silva & Carlsson, 2004).

    Noise gives bars too, so ``ring`` is set only if the bar is long, and much longer than in several Gaussian clouds
    with the same number of codes and the same covariance, which have no hole. One dimension has no rings.
    """
    if codes_SD.shape[1] < 2:
        return Unmeasured(why="one dimension has no rings")
    if len(np.unique(codes_SD, axis=0)) < MIN_CODES:
        return Unmeasured(why=f"fewer than {MIN_CODES} distinct codes")
    rng = np.random.default_rng(seed)
    mean_D, covariance_DD = codes_SD.mean(axis=0), np.cov(codes_SD.T)
    bar, ratio = _longest_bar(codes_SD, landmarks)
    clouds = (rng.multivariate_normal(mean_D, covariance_DD, len(codes_SD)) for _ in range(references))
    reference = max(_longest_bar(cloud_SD, landmarks)[0] for cloud_SD in clouds)
    ring = bar > MIN_BAR and ratio > MIN_RATIO and bar > MIN_OVER_REFERENCE * reference
    return Loop(bar=bar, ratio=ratio, reference=reference, ring=ring)


def ring_classes(codes_SD: np.ndarray, labels_S: np.ndarray, names: tuple[str, ...], *, seed: int = 0) -> list[str]:
    """The classes whose own codes form a ring, among the ten largest, with fewer landmarks and references."""
    count_C = np.bincount(labels_S, minlength=len(names))
    landmarks, references = _CLASS_SETTINGS
    found = []
    for label in np.sort(np.argsort(-count_C, kind="stable")[:_MAX_CLASSES]).tolist():
        measured = measure_loop(codes_SD[labels_S == label], seed=seed, landmarks=landmarks, references=references)
        if isinstance(measured, Loop) and measured.ring:
            found.append(names[label])
    return found


def _longest_bar(codes_SD: np.ndarray, landmarks: int) -> tuple[float, float]:
    """The longest bar in units of the landmarks' scale, and its death over its birth; zeros without bars."""
    landmark_LD = farthest_first(_drop_outliers(codes_SD), landmarks)
    scale = float(np.median(np.linalg.norm(landmark_LD - np.median(landmark_LD, axis=0), axis=1)))
    is_wide = landmark_LD.shape[1] > len(landmark_LD)  # such points look transposed to ripser, which warns
    points = squareform(pdist(landmark_LD)) if is_wide else landmark_LD
    bars_B2 = ripser(points, maxdim=1, distance_matrix=is_wide)["dgms"][1]
    if not len(bars_B2) or scale == 0.0:
        return 0.0, 0.0
    birth, death = bars_B2[(bars_B2[:, 1] - bars_B2[:, 0]).argmax()].tolist()
    return (death - birth) / scale, death / max(birth, 1e-12 * death)


def _drop_outliers(codes_SD: np.ndarray) -> np.ndarray:
    distance_S = k_nearest_others(codes_SD, min(5, len(codes_SD) - 1))[:, -1]
    dense_RD: np.ndarray = codes_SD[distance_S <= np.quantile(distance_S, 1.0 - _OUTLIER_SHARE)]
    return dense_RD


def farthest_first(codes_SD: np.ndarray, count: int) -> np.ndarray:
    """Up to ``count`` codes, each the farthest from those before it; the first is the nearest to the mean."""
    distance_S = np.linalg.norm(codes_SD - codes_SD.mean(axis=0), axis=1)
    rows = [int(distance_S.argmin())]
    distance_S = np.linalg.norm(codes_SD - codes_SD[rows[0]], axis=1)
    while len(rows) < min(count, len(codes_SD)):
        rows.append(int(distance_S.argmax()))
        distance_S = np.minimum(distance_S, np.linalg.norm(codes_SD - codes_SD[rows[-1]], axis=1))
    landmark_LD: np.ndarray = codes_SD[rows]
    return landmark_LD
