"""Precision, recall, density and coverage of synthetic images, from k-nearest-neighbour balls.

A set of images is represented by balls, one around each image; its radius is the distance to the k-th nearest image of
the same set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.curation.quality.validation import check_points
from generator.models.features.neighbours import nearest_neighbours

_BLOCK = 1024
_ROUNDING = 1e-10  # rounding error of squared distances by a float64 matrix product, relative to squared lengths


@dataclass(frozen=True)
class Coverage:
    """``precision``, ``recall`` and ``coverage`` are shares; ``density`` is about 1 for a perfect generator."""

    precision: float
    recall: float
    density: float
    coverage: float


def coverage(real_ND: np.ndarray, synthetic_MD: np.ndarray, *, k: int = 3, density_k: int = 5) -> Coverage:
    """Improved precision and recall with ``k``, density and coverage with ``density_k`` neighbours.

    Precision: the share of synthetic images inside some real ball; recall: of real ones inside some synthetic ball
    (Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models", NeurIPS 2019,
    equation 2; k = 3). Density: by how many real balls a synthetic image is covered, over k; coverage: the share of
    real balls that contain a synthetic image (Naeem et al., "Reliable fidelity and diversity metrics for generative
    models", ICML 2020, equations 5 and 6; k = 5). All depend on the sizes of the sets: compare equal numbers only.
    Raises ``MeasureError``, for example for fewer images than neighbours.
    """
    max_k = max(k, density_k)
    real_ND = check_points("real", real_ND, minimum=max_k + 1).astype(np.float64)
    synthetic_MD = check_points("synthetic", synthetic_MD, minimum=max_k + 1, like=real_ND).astype(np.float64)
    centre_D = real_ND.mean(axis=0)
    real_ND, synthetic_MD = real_ND - centre_D, synthetic_MD - centre_D
    real_radii_NK = nearest_neighbours(real_ND, real_ND, max_k, exclude_Q=np.arange(len(real_ND))).distances_QK
    radii_M = nearest_neighbours(synthetic_MD, synthetic_MD, k, exclude_Q=np.arange(len(synthetic_MD))).distances_QK[
        :, -1
    ]
    counts_M, covered_N = _ball_membership(synthetic_MD, real_ND, real_radii_NK[:, density_k - 1])
    return Coverage(
        precision=float((_ball_membership(synthetic_MD, real_ND, real_radii_NK[:, k - 1])[0] > 0).mean()),
        recall=float((_ball_membership(real_ND, synthetic_MD, radii_M)[0] > 0).mean()),
        density=float(counts_M.mean() / density_k),
        coverage=float(covered_N.mean()),
    )


def _ball_membership(
    points_QD: np.ndarray, centres_PD: np.ndarray, radii_P: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """counts_Q (int64): the number of balls that contain each point; occupied_P (bool): balls that contain a point."""
    lengths_P = np.einsum("pd,pd->p", centres_PD, centres_PD)
    counts_Q, occupied_P = np.zeros(len(points_QD), dtype=np.int64), np.zeros(len(centres_PD), dtype=bool)
    for begin in range(0, len(points_QD), _BLOCK):
        block_BD = points_QD[begin : begin + _BLOCK]
        sums_BP = np.einsum("bd,bd->b", block_BD, block_BD)[:, None] + lengths_P
        inside_BP = sums_BP * (1.0 - _ROUNDING) - 2.0 * (block_BD @ centres_PD.T) <= radii_P**2
        counts_Q[begin : begin + _BLOCK] = inside_BP.sum(axis=1)
        occupied_P |= inside_BP.any(axis=0)
    return counts_Q, occupied_P
