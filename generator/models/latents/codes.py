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
            return [ClassCodes("all images", self)]
        rows = [
            tuple(np.flatnonzero(labels_X == label) for labels_X in (self.labels_N, self.holdout_labels_H))
            for label in range(len(self.class_names))
        ]
        return [
            ClassCodes(name, self, train_N, holdout_H)
            for name, (train_N, holdout_H) in zip(self.class_names, rows, strict=True)
        ]


@dataclass(frozen=True)
class ClassCodes:
    """The codes of one class: all of ``codes``, or those in ``rows_N`` (training) and ``holdout_rows_H``.

    Its arrays are copied whenever they are asked for, so that the classes together take no memory.
    """

    name: str
    codes: Codes
    rows_N: np.ndarray | None = None
    holdout_rows_H: np.ndarray | None = None

    @property
    def codes_ND(self) -> np.ndarray:  # noqa: N802 - a name of shapes
        return self.codes.codes_ND if self.rows_N is None else self.codes.codes_ND[self.rows_N]

    @property
    def holdout_HD(self) -> np.ndarray:  # noqa: N802
        return self.codes.holdout_HD if self.holdout_rows_H is None else self.codes.holdout_HD[self.holdout_rows_H]

    @property
    def count(self) -> int:
        """Number of codes of training images."""
        return len(self.codes.codes_ND) if self.rows_N is None else len(self.rows_N)

    @property
    def held_out(self) -> int:
        """Number of codes of held-out images."""
        return len(self.codes.holdout_HD) if self.holdout_rows_H is None else len(self.holdout_rows_H)
