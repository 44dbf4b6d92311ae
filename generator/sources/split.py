"""Which images are trained on, and which are held out to stop early and to choose by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.errors import SourceError
from generator.spec.seeding import permutation


@dataclass(frozen=True, eq=False)
class Split:
    """Every image's position in exactly one of two ascending lists."""

    train_N: np.ndarray  # int64
    holdout_N: np.ndarray  # int64


def split(count: int, labels_N: np.ndarray | None, *, holdout: float = 0.1, seed: int = 0) -> Split:
    """Hold out the share ``holdout`` (0 < holdout < 1) of ``count`` images, class by class.

    ``labels_N`` is int64 and >= 0; without labels all images are one class. A class of two images or more has at
    least one on each side; the image of a class of one is trained on. A pure function of its arguments, and what
    happens to a class depends on that class alone. Raises ``SourceError``.
    """
    if not 0.0 < holdout < 1.0:
        raise SourceError("holdout", "a share between 0 and 1, both excluded", holdout)
    labels_N = np.zeros(count, dtype=np.int64) if labels_N is None else labels_N
    held_N = np.zeros(count, dtype=bool)
    for label in np.unique(labels_N).tolist():
        members_M = np.flatnonzero(labels_N == label)
        take = max(1, min(len(members_M) - 1, round(holdout * len(members_M)))) if len(members_M) > 1 else 0
        held_N[members_M[permutation(seed, stream=label, size=len(members_M))[:take]]] = True
    return Split(train_N=np.flatnonzero(~held_N), holdout_N=np.flatnonzero(held_N))
