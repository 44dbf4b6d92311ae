"""The codes that a latent distribution is fitted to, and the held-out codes that it is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Codes:
    """Codes of training images and of held-out ones, float64; labels int64 in 0 .. C - 1, ``None`` if unlabelled.

    ``shape``: (D) or (C, h, w) of a code; empty means (D).
    """

    codes_ND: np.ndarray
    labels_N: np.ndarray | None
    holdout_HD: np.ndarray
    holdout_labels_H: np.ndarray | None
    class_names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def dims(self) -> int:
        """Number of latent dimensions D."""
        return int(self.codes_ND.shape[1])

    def by_class(self) -> list[ClassCodes]:
        """The codes of each class; without labels, all codes as one class."""
        if self.labels_N is None or self.holdout_labels_H is None:
            return [ClassCodes("all images", self.codes_ND, self.holdout_HD)]
        return [
            ClassCodes(name, self.codes_ND[self.labels_N == label], self.holdout_HD[self.holdout_labels_H == label])
            for label, name in enumerate(self.class_names)
        ]


@dataclass(frozen=True)
class ClassCodes:
    """The codes of one class."""

    name: str
    codes_ND: np.ndarray
    holdout_HD: np.ndarray
