"""Splits a source into training images and held-out images (for early stopping and model selection)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.errors import SourceError
from generator.spec.seeding import permutation


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of the images: each one is in exactly one of two ascending lists."""

    train_N: np.ndarray  # int64
    holdout_N: np.ndarray  # int64


def split(count: int, labels_N: np.ndarray | None, *, holdout: float = 0.1, seed: int = 0) -> Split:
    """Hold out the share ``holdout`` (0 < holdout < 1) of ``count`` images, separately for each class.

    ``labels_N`` is int64 and >= 0; without labels all images are one class. A class of two images or more has at least
    one in each part; the image of a class of one is trained on. A pure function of its arguments; the split of a class
    does not depend on other classes. Raises ``SourceError``.
    """
    if not 0.0 < holdout < 1.0:
        raise SourceError("holdout", "a share between 0 and 1, both excluded", holdout)
    labels_N = np.zeros(count, dtype=np.int64) if labels_N is None else labels_N
    is_holdout_N = np.zeros(count, dtype=bool)
    for label in np.unique(labels_N).tolist():
        members_M = np.flatnonzero(labels_N == label)
        count_held = max(1, min(len(members_M) - 1, round(holdout * len(members_M)))) if len(members_M) > 1 else 0
        is_holdout_N[members_M[permutation(seed, stream=label, size=len(members_M))[:count_held]]] = True
    return Split(train_N=np.flatnonzero(~is_holdout_N), holdout_N=np.flatnonzero(is_holdout_N))
