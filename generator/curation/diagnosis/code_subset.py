"""Choose the codes that are measured: a seeded, bounded subset, so that time does not grow with the source.

Legend: N training codes, H held-out codes, S codes whose shape is measured, D latent dimensions, C classes. Unlabelled
codes form one class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.errors import SourceError
from generator.models.latents.codes import Codes
from generator.spec.seeding import permutation

MAX_TRAIN = 20_000  # codes that define the support
MAX_FIT = 6_000  # codes that candidate samplers are fitted to
MAX_HOLDOUT = 2_000
MAX_SHAPE = 2_000
MIN_SHAPE = 300  # with fewer held-out codes, the shape is measured on training codes
_MIN_PER_CLASS = 100  # codes kept of a rare class


@dataclass(frozen=True, eq=False)
class CodeSubset:
    """Codes float64, labels int64 in 0 .. C - 1 (all 0 if unlabelled).

    ``shape_source``: whether ``shape_SD`` are held-out or training codes, in words.
    """

    train_ND: np.ndarray
    train_labels_N: np.ndarray
    holdout_HD: np.ndarray
    holdout_labels_H: np.ndarray
    shape_SD: np.ndarray
    shape_labels_S: np.ndarray
    shape_source: str
    class_names: tuple[str, ...]  # at least one

    @property
    def dims(self) -> int:
        """Number of latent dimensions D."""
        return int(self.train_ND.shape[1])


def choose_codes(codes: Codes, seed: int) -> CodeSubset:
    """Choose codes to measure; a pure function. Raises ``SourceError`` for NaN, infinity or no codes."""
    for field, array in (("codes", codes.codes_ND), ("holdout", codes.holdout_HD)):
        if not np.isfinite(array).all():
            raise SourceError(field, "finite numbers", "NaN or infinity")
    if not len(codes.codes_ND):
        raise SourceError("codes", "at least one code", "none")
    labels_N, holdout_labels_H = labels_of(codes)
    train = choose_rows(labels_N, MAX_TRAIN, seed)
    holdout_rows = choose_rows(holdout_labels_H, MAX_HOLDOUT, seed + 1)
    enough = len(holdout_rows) >= MIN_SHAPE
    shape = holdout_rows[: len(holdout_rows)] if enough else choose_rows(labels_N, MAX_SHAPE, seed + 2)
    shape_ND, shape_labels = (codes.holdout_HD, holdout_labels_H) if enough else (codes.codes_ND, labels_N)
    return CodeSubset(
        train_ND=codes.codes_ND[train],
        train_labels_N=labels_N[train],
        holdout_HD=codes.holdout_HD[holdout_rows],
        holdout_labels_H=holdout_labels_H[holdout_rows],
        shape_SD=shape_ND[shape],
        shape_labels_S=shape_labels[shape],
        shape_source="held-out codes" if enough else "training codes, because few codes are held out",
        class_names=codes.class_names or ("all images",),
    )


def limit_codes(codes: Codes, seed: int) -> Codes:
    """At most ``MAX_FIT`` training codes and as many held-out codes, to which candidate samplers are fitted."""
    labels_N, holdout_labels_H = labels_of(codes)
    train, holdout_rows = choose_rows(labels_N, MAX_FIT, seed + 3), choose_rows(holdout_labels_H, MAX_FIT, seed + 4)
    return Codes(
        codes.codes_ND[train],
        None if codes.labels_N is None else labels_N[train],
        codes.holdout_HD[holdout_rows],
        None if codes.holdout_labels_H is None else holdout_labels_H[holdout_rows],
        codes.class_names,
    )


def labels_of(codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Labels of training and held-out codes; zeros if unlabelled."""
    if codes.labels_N is None or codes.holdout_labels_H is None:
        return np.zeros(len(codes.codes_ND), dtype=np.int64), np.zeros(len(codes.holdout_HD), dtype=np.int64)
    return codes.labels_N, codes.holdout_labels_H


def choose_rows(labels_N: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Ascending rows (int64): all, or a random choice of about ``limit`` that keeps some rows of every rare class."""
    count = len(labels_N)
    if count <= limit:
        return np.arange(count)
    order = permutation(seed, stream=0, size=count)
    each = min(_MIN_PER_CLASS, max(1, limit // (2 * len(np.unique(labels_N)))))
    kept = np.zeros(count, dtype=bool)
    for label in np.unique(labels_N):
        kept[order[labels_N[order] == label][:each]] = True
    rest = order[~kept[order]]
    kept[rest[: max(0, limit - int(kept.sum()))]] = True
    return np.flatnonzero(kept)
