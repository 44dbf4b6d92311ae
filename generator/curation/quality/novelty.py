"""Novelty: how near synthetic images are to training images, calibrated on the holdout.

Held-out real images show how near to the training set an unseen image is normally. Copies are searched in the whole
training set. Distances are Euclidean, on flattened pixels or on features. Legend: N synthetic, T training, H held-out
images, D dimensions, F folds of the training set, Q queries, C copies, R rows.
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
from generator.sources.pixels.storage import take_rows
from generator.spec.seeding import permutation

COPY_QUANTILE = 0.001
_MAX_LISTED = 100  # copies listed
_SHIFT_CANDIDATES = 4  # training images compared again under shifts
_MAX_FOLDS = 10  # subsamples of the training set that protection is measured against
_CONFIDENCE = 0.95

OnStage = Callable[[str], None]  # called with the name of the next stage


@dataclass(frozen=True)
class Protection:
    """Protection from overfitting.

    ``score``: 1 if at most half of the samples are nearer to training images than to held-out ones, 0 if all are.
    ``low`` and ``high``: its 95% confidence interval; ``None`` with fewer than two subsamples. ``share``: the share of
    samples nearer to a training image. ``subsamples``: of the training set; ``size``: images in each.
    """

    score: float
    low: float | None
    high: float | None
    share: float
    subsamples: int
    size: int


@dataclass(frozen=True)
class ShiftedCopies:
    """Copies by shift-invariant distance: the smallest distance under shifts of up to one pixel."""

    threshold: float
    copies: int
    share: float
    nearest_copies: tuple[int, ...]


@dataclass(frozen=True)
class Novelty:
    """The novelty of a set of samples.

    ``copies``: samples nearer to a training image than ``threshold``, or equal to one; ``share``: their share, about
    0.001 for a perfect generator. ``identical``: samples at distance 0. ``nearest_copies``: rows of copies, nearest
    first, at most 100. ``median``, ``holdout_median``: median distance of samples and of held-out images to the nearest
    training image. ``authenticity``: share of samples that are not copies as defined by Alaa et al.;
    ``holdout_authenticity``: the same share of held-out images.
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
    """Measure copies, authenticity and protection from overfitting. All three sets have the same D.

    A copy is nearer to a training image than the 0.1% quantile of the holdout's distances. For authenticity, a sample
    is a copy if it is nearer to its nearest training image than any other training image is (Alaa et al., "How faithful
    is your synthetic data?", ICML 2022, section 4.3). With ``shape``, the (H, W, C) of the pixels, copies are also
    searched under shifts of one pixel, among the nearest training images of four folds. ``seed`` chooses the folds.
    Raises ``MeasureError``.
    """
    train_TD = check_points("train", train_TD)
    synthetic_ND = check_points("synthetic", synthetic_ND, like=train_TD)
    holdout_HD = check_points("holdout", holdout_HD, like=train_TD)
    folds = make_folds(len(train_TD), len(holdout_HD), seed)
    on_stage(f"{len(synthetic_ND)} samples against {len(train_TD)} training images")
    synthetic_neighbours = _search_folds(synthetic_ND, train_TD, folds)
    on_stage(f"samples and training images against {len(holdout_HD)} held-out ones")
    holdout_neighbours = _search_folds(holdout_HD, train_TD, folds)
    to_holdout_N = _holdout_distances(synthetic_ND, holdout_HD, folds, seed)
    synthetic_distances_N, holdout_distances_H = synthetic_neighbours.distances(), holdout_neighbours.distances()
    needed_R = np.union1d(synthetic_neighbours.nearest_rows(), holdout_neighbours.nearest_rows())
    on_stage(f"{len(needed_R)} training images against all others")
    own_T = _nearest_other(train_TD, needed_R)
    threshold = _quantile(holdout_distances_H)
    copies_C = _copy_rows(synthetic_distances_N, threshold)
    return Novelty(
        threshold=threshold,
        copies=len(copies_C),
        share=len(copies_C) / len(synthetic_distances_N),
        identical=int((synthetic_distances_N == 0.0).sum()),
        nearest_copies=tuple(copies_C[:_MAX_LISTED].tolist()),
        median=float(np.median(synthetic_distances_N)),
        holdout_median=float(np.median(holdout_distances_H)),
        authenticity=float((synthetic_distances_N > own_T[synthetic_neighbours.nearest_rows()]).mean()),
        holdout_authenticity=float((holdout_distances_H > own_T[holdout_neighbours.nearest_rows()]).mean()),
        protection=protection(
            [near_N < to_holdout_N for near_N in synthetic_neighbours.distances_FQ[: len(folds.rows)]], folds.size
        ),
        shifted=None
        if shape is None
        else _shifted_copies((synthetic_ND, synthetic_neighbours), (holdout_HD, holdout_neighbours), train_TD, shape),
    )


def copy_threshold(train_TD: np.ndarray, holdout_HD: np.ndarray) -> float:
    """The distance below which an image is a copy: the 0.1% quantile of held-out images. Raises ``MeasureError``."""
    train_TD = check_points("train", train_TD)
    return _quantile(
        nearest_neighbours(check_points("holdout", holdout_HD, like=train_TD), train_TD).distances_QK[:, 0]
    )


def _quantile(distances_H: np.ndarray) -> float:
    return float(np.quantile(distances_H, COPY_QUANTILE, method="lower"))


@dataclass(frozen=True, eq=False)
class Folds:
    """Rows of disjoint random subsamples of ``size`` training images, and of the remaining ones (``rest``)."""

    size: int
    rows: tuple[np.ndarray, ...]
    rest: np.ndarray


def make_folds(train: int, holdout: int, seed: int) -> Folds:
    """At most ten subsamples of the size of the holdout; one of the whole training set if the holdout is larger."""
    size = min(train, holdout)
    count = min(_MAX_FOLDS, train // size)
    order_T = permutation(seed, stream=0, size=train)
    rows = tuple(np.sort(order_T[fold * size : (fold + 1) * size]) for fold in range(count))
    return Folds(size, rows, np.sort(order_T[count * size :]))


def protection(nearer: list[np.ndarray], size: int) -> Protection:
    """The score of SDMetrics' DCROverfittingProtection, min(1, 2 (1 - share)), over subsamples of the training set.

    ``nearer``: for each subsample a bool array, whether a sample is nearer to it than to a holdout of the *same size*.
    With a larger training set even a perfect generator would get a low score: the larger set is nearer by chance. The
    interval is for a new pair of subsample and holdout: Student's t over F subsamples, widened by the variance of the
    single holdout.
    """
    shares_F = np.array([float(near_N.mean()) for near_N in nearer])
    count, share = len(shares_F), float(shares_F.mean())

    def score(at: float) -> float:
        return min(1.0, max(0.0, 2.0 * (1.0 - at)))

    if count < 2:
        return Protection(score(share), None, None, share, count, size)
    half_width = float(student.ppf(0.5 + _CONFIDENCE / 2, count - 1) * shares_F.std(ddof=1)) * math.sqrt(
        1.0 + 1.0 / count
    )
    return Protection(score(share), score(share + half_width), score(share - half_width), share, count, size)


@dataclass(frozen=True, eq=False)
class _FoldNeighbours:
    """The nearest training image to each query, in each fold and in the rest."""

    rows_FQ: np.ndarray  # int64, rows of the training set
    distances_FQ: np.ndarray  # float64

    def distances(self) -> np.ndarray:
        """distances_Q to the nearest image of the whole training set."""
        least_Q: np.ndarray = self.distances_FQ.min(axis=0)
        return least_Q

    def nearest_rows(self) -> np.ndarray:
        """rows_Q of the nearest training images."""
        return self.candidates(1)[:, 0]

    def candidates(self, count: int) -> np.ndarray:
        """rows_QM: the nearest training images of the ``count`` nearest folds, nearest first."""
        order_MQ = np.argsort(self.distances_FQ, axis=0, kind="stable")[:count]
        return np.take_along_axis(self.rows_FQ, order_MQ, axis=0).T


def _search_folds(queries_QD: np.ndarray, train_TD: np.ndarray, folds: Folds) -> _FoldNeighbours:
    """Search the whole training set once, fold by fold, as ``protection`` needs."""
    parts = [fold for fold in (*folds.rows, folds.rest) if len(fold)]
    found = [(fold, nearest_neighbours(queries_QD, take_rows(train_TD, fold))) for fold in parts]
    return _FoldNeighbours(
        np.stack([fold[near.rows_QK[:, 0]] for fold, near in found]),
        np.stack([near.distances_QK[:, 0] for _, near in found]),
    )


def _shifted_copies(
    synthetic_neighbours: tuple[np.ndarray, _FoldNeighbours],
    holdout_neighbours: tuple[np.ndarray, _FoldNeighbours],
    train_TD: np.ndarray,
    shape: ImageShape,
) -> ShiftedCopies:
    near_N, near_H = (
        shifted_distances(points, train_TD, found.candidates(_SHIFT_CANDIDATES), shape)
        for points, found in (synthetic_neighbours, holdout_neighbours)
    )
    threshold = _quantile(near_H)
    copies_C = _copy_rows(near_N, threshold)
    return ShiftedCopies(threshold, len(copies_C), len(copies_C) / len(near_N), tuple(copies_C[:_MAX_LISTED].tolist()))


def _copy_rows(distances_N: np.ndarray, threshold: float) -> np.ndarray:
    """Rows with a distance below ``threshold`` or equal to 0, nearest first."""
    copies_C = np.flatnonzero((distances_N < threshold) | (distances_N == 0.0))
    return copies_C[np.argsort(distances_N[copies_C], kind="stable")]


def _holdout_distances(synthetic_ND: np.ndarray, holdout_HD: np.ndarray, folds: Folds, seed: int) -> np.ndarray:
    """distances_N to the nearest held-out image, of at most as many as there are training images."""
    rows_S = np.sort(permutation(seed, stream=1, size=len(holdout_HD))[: folds.size])
    return nearest_neighbours(synthetic_ND, take_rows(holdout_HD, rows_S)).distances_QK[:, 0]


def _nearest_other(train_TD: np.ndarray, rows_R: np.ndarray) -> np.ndarray:
    """own_T: the distance of training images ``rows_R`` to their nearest other training image; NaN for other rows."""
    own_T = np.full(len(train_TD), np.nan)
    own_T[rows_R] = nearest_neighbours(take_rows(train_TD, rows_R), train_TD, exclude_Q=rows_R).distances_QK[:, 0]
    return own_T
