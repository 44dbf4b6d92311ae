"""Drift between two builds: a kernel two-sample statistic on their images and labels, and the drop of confidence.

Deterministic, on at most 1,000 images of each build, reduced to at most 16 pixels a side. Legend: N images, half of
them from each build; P reduced pixels; R groupings of the N images into two halves; M table rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.spatial.distance import cdist

from generator.curation.gates.image_subset import ImageSubset
from generator.models.screening.copy_index import block_sums

MAX_IMAGES = 1000
MIN_IMAGES = 50
_SIDE, _WIDTH_QUANTILE, _PERMUTATIONS = 16, 0.02, 200
_MIN_CLASS_ROWS = 30  # table rows that the mean confidence of a class needs


@dataclass(frozen=True)
class Drift:
    """``share``: drift from 0 (same distribution) to 1 (disjoint).

    ``p_value``: of a share this large if both builds have the same distribution. ``images``: number from each build.
    """

    share: float
    p_value: float
    images: int


def drift(current: ImageSubset, promoted: ImageSubset, *, labelled: bool, seed: int = 0) -> Drift | None:
    """The squared maximum mean discrepancy, normalised to at most 1; ``None`` for fewer than 50 images of either build.

    Gretton et al., "A kernel two-sample test", JMLR 2012: the unbiased estimate of equation 3, divided by the sum of
    its two within-build terms, so that its maximum is 1. The kernel is a Gaussian whose width is the 2% quantile of the
    distances in ``promoted``; with ``labelled``, it is 0 between images of different classes. So the statistic detects
    different images, different class shares, and different labels of the same images. The p-value is a permutation
    test with 200 permutations, seeded by ``seed``.
    """
    count = min(len(current), len(promoted), MAX_IMAGES)
    if count < MIN_IMAGES:
        return None
    chosen = [_with_even_rows(each, count) for each in (current, promoted)]
    points_NP = np.concatenate([_reduced_pixels(each.images_NHWC[rows]) for each, rows in chosen])
    labels_N = np.concatenate([each.labels_N[rows] for each, rows in chosen])
    distances_NN = cdist(points_NP, points_NP)
    kernel_NN = np.exp(-(distances_NN**2) / (2.0 * _kernel_width(distances_NN[count:, count:]) ** 2))
    if labelled:
        kernel_NN *= labels_N[:, None] == labels_N[None, :]
    np.fill_diagonal(kernel_NN, 0.0)
    rng, halves_N = np.random.default_rng(seed), np.repeat([1.0, -1.0], count)
    sign_NR = np.stack([halves_N, *(rng.permutation(halves_N) for _ in range(_PERMUTATIONS))], axis=1)
    share_R = _drift_shares(kernel_NN, sign_NR, count)
    p_value = float((1 + (share_R[1:] >= share_R[0]).sum()) / (1 + _PERMUTATIONS))
    return Drift(share=min(1.0, max(0.0, float(share_R[0]))), p_value=p_value, images=count)


def confidence_drop(current: ImageSubset, promoted: ImageSubset, classes: int) -> tuple[float, int] | None:
    """The largest drop of a class's mean label confidence from ``promoted`` to ``current``, and that class.

    ``None`` if no class has 30 rows with a confidence in both builds.
    """
    drops = list[tuple[float, int]]()
    for label in range(max(1, classes)):
        confidences = [
            each.confidence_M[(each.labels_M == label) & ~np.isnan(each.confidence_M)] for each in (current, promoted)
        ]
        if min(map(len, confidences)) >= _MIN_CLASS_ROWS:
            drops.append((float(confidences[1].mean(dtype=np.float64) - confidences[0].mean(dtype=np.float64)), label))
    return max(drops, default=None)


def _drift_shares(kernel_NN: np.ndarray, sign_NR: np.ndarray, count: int) -> np.ndarray:
    """The drift of each grouping (column of +1 and -1): equation 3 over its within-group terms."""
    rows_N, products_NR = kernel_NN.sum(axis=1), kernel_NN @ sign_NR
    whole, signed_R = rows_N.sum(), (sign_NR * products_NR).sum(axis=0)
    within_R, between_R = (whole + signed_R) / 2.0, (whole - signed_R) / 2.0  # sums over ordered pairs
    within_R, between_R = within_R / (count * (count - 1)), between_R / count**2
    shares_R: np.ndarray = (within_R - between_R) / np.maximum(within_R, np.finfo(float).tiny)
    return shares_R


def _kernel_width(distances_MM: np.ndarray) -> float:
    apart = distances_MM[np.triu_indices(len(distances_MM), 1)]
    apart = apart[apart > 0.0]
    return float(np.quantile(apart, _WIDTH_QUANTILE)) if len(apart) else 1.0


def _reduced_pixels(images_NHWC: np.ndarray) -> np.ndarray:
    return block_sums(images_NHWC, ceil(max(images_NHWC.shape[1:3]) / _SIDE)).astype(np.float64)


def _with_even_rows(each: ImageSubset, count: int) -> tuple[ImageSubset, np.ndarray]:
    return each, np.arange(count) * len(each) // count
