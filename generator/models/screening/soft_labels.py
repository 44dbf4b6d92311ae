"""The few most likely classes of each image, as a judge sees it: targets that say more than one label does.

A classifier that is trained on all probabilities of a teacher learns what the classes have in common as well (Hinton,
Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_LABELS = (
    16  # classes that are kept of each image: all of them in most datasets, nearly all of the probability in others
)
_DECIMALS = 4  # of a probability that are kept: more would only take room


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """Labels of N images, int32 ``labels_NK``, the most likely one first, and how likely each is, float64
    ``probability_NK`` of four digits. K is the same for all images: ``MOST``, or the number of classes."""

    labels_NK: np.ndarray
    probability_NK: np.ndarray

    @staticmethod
    def empty(count: int, most: int = 0) -> SoftLabels:
        """Nothing known of ``count`` images yet."""
        return SoftLabels(np.zeros((count, most), dtype=np.int32), np.zeros((count, most)))

    @staticmethod
    def from_probabilities(probability_NC: np.ndarray) -> SoftLabels:
        """From the probabilities of all C classes, float32; of equally likely ones the lower label comes first."""
        labels_NK = np.argsort(-probability_NC, axis=1, kind="stable")[:, :MAX_LABELS].astype(np.int32)
        kept_NK = np.take_along_axis(probability_NC, labels_NK, axis=1).astype(np.float64)
        return SoftLabels(labels_NK, np.round(kept_NK, _DECIMALS))


def soft_label(labels: list[int], probabilities: list[float], classes: int) -> np.ndarray:
    """float32 (``classes``,) that sums to 1: the likely classes of one image, the others at 0.

    Raises ``ValueError`` for anything but the likely classes of one image.
    """
    if len(labels) != len(probabilities) or not all(0 <= label < classes for label in labels):
        raise ValueError(f"as many probabilities as labels of {classes} classes, got {labels} and {probabilities}")
    target_C = np.zeros(classes, dtype=np.float32)
    target_C[labels] = probabilities
    total = float(target_C.sum())
    if not 0.0 < total < 2.0 or target_C.min() < 0.0:
        raise ValueError(f"probabilities, got {probabilities}")
    return target_C / np.float32(total)
