"""Exact and near duplicates within a dataset."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from generator.errors import MeasureError
from generator.models.features.neighbours import nearest_neighbours
from generator.sources.pixels.storage import flat_pixels


@dataclass(frozen=True)
class Duplicates:
    """Counts of duplicates.

    ``exact``: images whose pixels equal those of an earlier image. ``near``: images nearer than ``threshold`` to
    another image, equal ones included. ``pairs``: rows of the nearest pairs, nearest first, at most 100.
    """

    images: int
    exact: int
    near: int
    threshold: float
    pairs: tuple[tuple[int, int], ...]


def duplicates(images_NHWC: np.ndarray, *, threshold: float) -> Duplicates:
    """Duplicates among uint8 ``images_NHWC``; near ones by the Euclidean distance of their pixels.

    A suitable threshold is ``novelty.copy_threshold``. Raises ``MeasureError``.
    """
    if len(images_NHWC) < 2:
        raise MeasureError("synthetic", "at least 2 images", len(images_NHWC))
    count = len(images_NHWC)
    seen = {hashlib.sha256(np.ascontiguousarray(images_NHWC[row]).data).digest() for row in range(count)}
    pixels_ND = flat_pixels(images_NHWC)
    found = nearest_neighbours(pixels_ND, pixels_ND, exclude_Q=np.arange(count))
    distances_N, others_N = found.distances_QK[:, 0], found.rows_QK[:, 0]
    near_M = np.flatnonzero((distances_N < threshold) | (distances_N == 0.0))
    nearest_first_M = near_M[np.argsort(distances_N[near_M], kind="stable")].tolist()
    pairs = dict.fromkeys(
        (min(row, other), max(row, other)) for row in nearest_first_M for other in [int(others_N[row])]
    )
    return Duplicates(count, count - len(seen), len(near_M), threshold, tuple(pairs)[:100])
