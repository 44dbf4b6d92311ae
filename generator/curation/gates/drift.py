"""How unlike two builds are: a kernel two-sample statistic on their images, and on images with their labels.

Deterministic, on at most 1,000 images of each, reduced to at most 16 pixels a side. Legend: N images of both, half of
them of each build; P reduced pixels.
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
_MIN_CLASS_ROWS = 30  # rows, to speak of the confidence of a class


@dataclass(frozen=True)
class Drift:
    """``share``: of what the two builds could have in common, how much they have not: 0 alike, 1 nothing in common.

    ``p_value``: of a share this large where both are of one distribution. ``images`` of each build.
    """

    share: float
    p_value: float
    images: int


def drift(ours: ImageSubset, theirs: ImageSubset, *, labelled: bool, seed: int = 0) -> Drift | None:
    """The squared maximum mean discrepancy over its largest possible value; ``None`` for under 50 images of either.

    Gretton et al., "A kernel two-sample test", JMLR 2012: the unbiased estimate of equation 3, divided by the sum of
    its two terms within the builds, so that it ends at 1. The kernel is a Gaussian whose width is the 2% quantile of
    the distances in ``theirs``; where there are labels, it is 0 between images of two classes. So it sees other images,
    other shares of the classes, and other labels on the same images. The p-value is of 200 relabellings.
    """
    count = min(len(ours), len(theirs), MAX_IMAGES)
    if count < MIN_IMAGES:
        return None
    chosen = [_with_even_rows(each, count) for each in (ours, theirs)]
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


def confidence_drop(ours: ImageSubset, theirs: ImageSubset, classes: int) -> tuple[float, int] | None:
    """The class whose label confidence fell most from ``theirs`` to ``ours``: by how much, and which class.

    ``None`` where no class has 30 rows of which the judge of the bundle said something in both builds.
    """
    falls = list[tuple[float, int]]()
    for label in range(max(1, classes)):
        sure = [each.confidence_M[(each.labels_M == label) & ~np.isnan(each.confidence_M)] for each in (ours, theirs)]
        if min(map(len, sure)) >= _MIN_CLASS_ROWS:
            falls.append((float(sure[1].mean(dtype=np.float64) - sure[0].mean(dtype=np.float64)), label))
    return max(falls, default=None)


def _drift_shares(kernel_NN: np.ndarray, sign_NR: np.ndarray, count: int) -> np.ndarray:
    """For each column of signs, one for each build: equation 3 over its terms within."""
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
