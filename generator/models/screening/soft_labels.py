"""Soft labels: the most likely classes of each image and their probabilities, as given by a judge.

A classifier trained on the probabilities of a teacher also learns how similar the classes are (Hinton, Vinyals, Dean
2015, "Distilling the Knowledge in a Neural Network").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_LABELS = 16  # stored classes per image: all classes of most datasets, nearly all of the probability in others
_DECIMALS = 4  # stored decimals of a probability


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """Labels of N images, int32 ``labels_NK``, the most likely first, and their probabilities, float64
    ``probability_NK`` with four decimals. K is the same for all images: ``MAX_LABELS``, or the number of
    classes if that is less."""

    labels_NK: np.ndarray
    probability_NK: np.ndarray

    @staticmethod
    def empty(count: int, labels_per_image: int = 0) -> SoftLabels:
        """Placeholder (zeros) for ``count`` images."""
        return SoftLabels(np.zeros((count, labels_per_image), dtype=np.int32), np.zeros((count, labels_per_image)))

    @staticmethod
    def from_probabilities(probability_NC: np.ndarray) -> SoftLabels:
        """From the probabilities of all C classes, float32; ties: the lower label first."""
        labels_NK = np.argsort(-probability_NC, axis=1, kind="stable")[:, :MAX_LABELS].astype(np.int32)
        kept_NK = np.take_along_axis(probability_NC, labels_NK, axis=1).astype(np.float64)
        return SoftLabels(labels_NK, np.round(kept_NK, _DECIMALS))


def soft_label(labels: list[int], probabilities: list[float], classes: int) -> np.ndarray:
    """float32 (``classes``,) that sums to 1: the probabilities of one image's stored classes, 0 for the others.

    Raises ``ValueError`` if labels and probabilities are not those of one image.
    """
    if len(labels) != len(probabilities) or not all(0 <= label < classes for label in labels):
        raise ValueError(f"as many probabilities as labels of {classes} classes, got {labels} and {probabilities}")
    target_C = np.zeros(classes, dtype=np.float32)
    target_C[labels] = probabilities
    total = float(target_C.sum())
    if not 0.0 < total < 2.0 or target_C.min() < 0.0:
        raise ValueError(f"probabilities that sum to about 1, got {probabilities}")
    return target_C / np.float32(total)
