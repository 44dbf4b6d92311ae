"""Are synthetic images new, or copies of training images?

The holdout says what is normal: real images that were not trained on lie this near to the training set. Copies are
searched in the whole of it. Distances are Euclidean, on flattened pixels or on features. Legend: N synthetic, T
training, H held-out images, D dimensions, F folds of the training set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from generator.curation.quality.shifts import ImageShape, shifted_distances
from generator.curation.quality.validation import check_points
from generator.models.features.neighbours import nearest_neighbours
from generator.spec.seeding import permutation

COPY_QUANTILE = 0.001
_MAX_LISTED = 100  # copies named
_SHIFT_CANDIDATES = 4  # training images looked at again under shifts
_MAX_FOLDS = 10  # at most: subsamples of the training set that protection is measured against
_CONFIDENCE = 0.95

OnStage = Callable[[str], None]  # called with what is done next


@dataclass(frozen=True)
class Protection:
    """``score`` is 1 where no more samples lie nearer to training images than to held-out ones, 0 where all do.

    ``low`` and ``high`` bound it with 95% confidence, where the training set has room for two subsamples or more.
    ``share``: of the samples, those nearer to a training image. ``size``: images in a subsample.
    """

    score: float
    low: float | None
    high: float | None
    share: float
    subsamples: int
    size: int


@dataclass(frozen=True)
class ShiftedCopies:
    """Copies that do not mind a shift of one pixel: ``threshold`` and distances are the smallest under any shift."""

    threshold: float
    copies: int
    share: float
    nearest_copies: tuple[int, ...]


@dataclass(frozen=True)
class Novelty:
    """``copies``: samples nearer to a training image than ``threshold``, or equal to one, and their ``share``; of a
    perfect generator it is about 0.001. ``identical``: those at distance 0. ``nearest_copies``: rows of copies, nearest
    first, at most 100. ``median`` and ``holdout_median``: of the distances to the nearest training image.
    ``authenticity``: share of samples that are no copies in the sense of Alaa et al.; ``holdout_authenticity``: that of
    real unseen images.
    """

    threshold: float
    copies: int
    share: float
    identical: int
    nearest_copies: tuple[int, ...]
    median: float
    holdout_median: float
    authenticity: float
    holdout_authenticity: float
    protection: Protection
    shifted: ShiftedCopies | None = None


def novelty(
    synthetic_ND: np.ndarray,
    train_TD: np.ndarray,
    holdout_HD: np.ndarray,
    *,
    seed: int = 0,
    shape: ImageShape | None = None,
    on_stage: OnStage = lambda _: None,
) -> Novelty:
    """Copies, authenticity, and protection from overfitting; all three sets in the same dimensions.

    Copies: nearer to a training image than the 0.1% quantile of the holdout's own distances. Authenticity: a sample is
    a copy when it is nearer to its training image than any other training image is (Alaa et al., "How faithful is
    your synthetic data?", ICML 2022, section 4.3). With ``shape``, (H, W, C) of pixels, copies are searched a second
    time under shifts of one pixel, among the nearest of a few parts of the training set. Raises ``MeasureError``.
    """
    train_TD = check_points("train", train_TD)
    synthetic_ND = check_points("synthetic", synthetic_ND, like=train_TD)
    holdout_HD = check_points("holdout", holdout_HD, like=train_TD)
    folds = make_folds(len(train_TD), len(holdout_HD), seed)
    on_stage(f"{len(synthetic_ND)} samples against {len(train_TD)} training images")
    ours = _search_folds(synthetic_ND, train_TD, folds)
    on_stage(f"samples and training images against {len(holdout_HD)} held-out ones")
    theirs = _search_folds(holdout_HD, train_TD, folds)
    to_holdout_N = _holdout_distances(synthetic_ND, holdout_HD, folds, seed)
    ours_N, theirs_H = ours.distances(), theirs.distances()
    concerned_R = np.union1d(ours.nearest_rows(), theirs.nearest_rows())
    on_stage(f"{len(concerned_R)} training images against all others")
    own_T = _nearest_other(train_TD, concerned_R)
    threshold = _quantile(theirs_H)
    copies_C = _copy_rows(ours_N, threshold)
    return Novelty(
        threshold=threshold,
        copies=len(copies_C),
        share=len(copies_C) / len(ours_N),
        identical=int((ours_N == 0.0).sum()),
        nearest_copies=tuple(copies_C[:_MAX_LISTED].tolist()),
        median=float(np.median(ours_N)),
        holdout_median=float(np.median(theirs_H)),
        authenticity=float((ours_N > own_T[ours.nearest_rows()]).mean()),
        holdout_authenticity=float((theirs_H > own_T[theirs.nearest_rows()]).mean()),
        protection=protection([near_N < to_holdout_N for near_N in ours.distances_FQ[: len(folds.rows)]], folds.size),
        shifted=None if shape is None else _shifted_copies((synthetic_ND, ours), (holdout_HD, theirs), train_TD, shape),
    )


def copy_threshold(train_TD: np.ndarray, holdout_HD: np.ndarray) -> float:
    """The distance below which an image is a copy: the 0.1% quantile of the holdout's own. Raises ``MeasureError``."""
    train_TD = check_points("train", train_TD)
    return _quantile(
        nearest_neighbours(check_points("holdout", holdout_HD, like=train_TD), train_TD).distances_QK[:, 0]
    )


def _quantile(distances_H: np.ndarray) -> float:
    return float(np.quantile(distances_H, COPY_QUANTILE, method="lower"))


@dataclass(frozen=True, eq=False)
class Folds:
    """Disjoint random subsamples of ``size`` training images, and the ``rest``."""

    size: int
    rows: tuple[np.ndarray, ...]
    rest: np.ndarray


def make_folds(train: int, holdout: int, seed: int) -> Folds:
    """As many subsamples of the holdout's size as fit, at most ten; where the holdout is larger, one: everything."""
    size = min(train, holdout)
    count = min(_MAX_FOLDS, train // size)
    order_T = permutation(seed, stream=0, size=train)
    rows = tuple(np.sort(order_T[fold * size : (fold + 1) * size]) for fold in range(count))
    return Folds(size, rows, np.sort(order_T[count * size :]))


def protection(nearer: list[np.ndarray], size: int) -> Protection:
    """The score of SDMetrics' DCROverfittingProtection, min(1, 2 (1 - share)), over subsamples of the training set.

    ``nearer``: of each subsample, which samples lie nearer to it than to a holdout of the *same size*. Against a larger
    training set a perfect generator would lose too: its samples are nearer to whatever is more. The interval is that of
    a new pair of subsample and holdout: Student's t for a mean of F, widened by what the one holdout adds.
    """
    shares_F = np.array([float(near_N.mean()) for near_N in nearer])
    count, share = len(shares_F), float(shares_F.mean())

    def score(at: float) -> float:
        return min(1.0, max(0.0, 2.0 * (1.0 - at)))

    if count < 2:
        return Protection(score(share), None, None, share, count, size)
    wide = float(student.ppf(0.5 + _CONFIDENCE / 2, count - 1) * shares_F.std(ddof=1)) * math.sqrt(1.0 + 1.0 / count)
    return Protection(score(share), score(share + wide), score(share - wide), share, count, size)


@dataclass(frozen=True, eq=False)
class _FoldNeighbours:
    """Of each query the nearest training image, and the nearest of each fold, of the rest too."""

    rows_FQ: np.ndarray  # int64
    distances_FQ: np.ndarray  # float64 distances

    def distances(self) -> np.ndarray:
        """distances_Q to the whole training set."""
        least_Q: np.ndarray = self.distances_FQ.min(axis=0)
        return least_Q

    def nearest_rows(self) -> np.ndarray:
        """rows_Q of the nearest training images."""
        return self.candidates(1)[:, 0]

    def candidates(self, count: int) -> np.ndarray:
        """rows_QM: the nearest of the ``count`` best folds, nearest first."""
        order_MQ = np.argsort(self.distances_FQ, axis=0, kind="stable")[:count]
        return np.take_along_axis(self.rows_FQ, order_MQ, axis=0).T


def _search_folds(queries_QD: np.ndarray, train_TD: np.ndarray, folds: Folds) -> _FoldNeighbours:
    """One search of the whole training set, in the parts that ``protection`` needs."""
    parts = [fold for fold in (*folds.rows, folds.rest) if len(fold)]
    found = [(fold, nearest_neighbours(queries_QD, train_TD[fold])) for fold in parts]
    return _FoldNeighbours(
        np.stack([fold[near.rows_QK[:, 0]] for fold, near in found]),
        np.stack([near.distances_QK[:, 0] for _, near in found]),
    )


def _shifted_copies(
    ours: tuple[np.ndarray, _FoldNeighbours],
    theirs: tuple[np.ndarray, _FoldNeighbours],
    train_TD: np.ndarray,
    shape: ImageShape,
) -> ShiftedCopies:
    near_N, near_H = (
        shifted_distances(points, train_TD, found.candidates(_SHIFT_CANDIDATES), shape)
        for points, found in (ours, theirs)
    )
    threshold = _quantile(near_H)
    copies_C = _copy_rows(near_N, threshold)
    return ShiftedCopies(threshold, len(copies_C), len(copies_C) / len(near_N), tuple(copies_C[:_MAX_LISTED].tolist()))


def _copy_rows(distances_N: np.ndarray, threshold: float) -> np.ndarray:
    """Rows nearer than ``threshold`` or equal to a training image, nearest first."""
    copies_C = np.flatnonzero((distances_N < threshold) | (distances_N == 0.0))
    return copies_C[np.argsort(distances_N[copies_C], kind="stable")]


def _holdout_distances(synthetic_ND: np.ndarray, holdout_HD: np.ndarray, folds: Folds, seed: int) -> np.ndarray:
    """Distances to the holdout, or to as many of it as there are training images."""
    rows_S = np.sort(permutation(seed, stream=1, size=len(holdout_HD))[: folds.size])
    return nearest_neighbours(synthetic_ND, holdout_HD[rows_S]).distances_QK[:, 0]


def _nearest_other(train_TD: np.ndarray, rows_R: np.ndarray) -> np.ndarray:
    """Of the training images ``rows_R`` the distance to their nearest other one; NaN for all others."""
    own_T = np.full(len(train_TD), np.nan)
    own_T[rows_R] = nearest_neighbours(train_TD[rows_R], train_TD, but_Q=rows_R).distances_QK[:, 0]
    return own_T
