"""Fits a bundle's fixed map to its codes: linear discriminants of the classes, or principal components.

Codes with labels: the two directions in which the classes differ most, relative to the spread within a class (Fisher
1936; Rao 1948, "The utilization of multiple measurements in problems of biological classification"). Without labels,
and where the classes differ in fewer than two directions, principal components of the codes take their place. Codes of
many numbers are first projected onto their principal components.

Legend: N codes, D latent dimensions, R reduced dimensions (D, or ``_COMPONENTS``), C classes.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, eigh

from generator.models.latents.code_map import CodeMap
from generator.models.latents.codes import Codes
from generator.models.latents.fitting.shrinkage import shrink, variance_floor

_MAX_DIRECT_DIMS, _COMPONENTS = 512, 64
_MAX_CODES, _MAX_CODES_OF_MANY_DIMS = 50_000, 2048  # codes that are looked at, evenly spaced
_NEGLIGIBLE = 1e-9  # a share of the largest eigenvalue


def fit_code_map(codes: Codes) -> CodeMap:
    """The map of these training codes, in units of the standard deviation (within the classes, if there are any).

    A direction in which the codes do not differ at all is an axis of zeros.
    """
    many = codes.dims > _MAX_DIRECT_DIMS
    rows = _evenly_spaced(len(codes.codes_ND), _MAX_CODES_OF_MANY_DIMS if many else _MAX_CODES)
    labels_N = None if codes.labels_N is None else codes.labels_N[rows]
    centre_D = codes.codes_ND[rows].mean(axis=0)
    centred_ND = codes.codes_ND[rows] - centre_D
    basis_RD = _leading_components(centred_ND, _COMPONENTS) if many else None
    reduced_NR = centred_ND if basis_RD is None else centred_ND @ basis_RD.T
    axes_2R = _directions(reduced_NR, labels_N)
    spread_NR = reduced_NR if labels_N is None else reduced_NR - _class_means(reduced_NR, labels_N)[1]
    axes_2R = np.stack([_to_unit(axis_R, spread_NR) for axis_R in axes_2R])
    axes_2D = axes_2R if basis_RD is None else axes_2R @ basis_RD
    return CodeMap(centre_D, np.stack([_with_fixed_sign(axis_D) for axis_D in axes_2D]))


def _directions(centred_NR: np.ndarray, labels_N: np.ndarray | None) -> np.ndarray:
    """Two directions, (2, R): discriminants as far as there are any, then principal components orthogonal to them."""
    found = [] if labels_N is None else _discriminants(centred_NR, labels_N)
    while len(found) < 2:
        rest_NR = centred_NR
        for axis_R in found:
            unit_R = axis_R / max(float(np.linalg.norm(axis_R)), np.finfo(np.float64).tiny)
            rest_NR = rest_NR - np.outer(rest_NR @ unit_R, unit_R)
        found.append(_principal_component(rest_NR, centred_NR))
    return np.stack(found)


def _discriminants(centred_NR: np.ndarray, labels_N: np.ndarray) -> list[np.ndarray]:
    """At most two directions; none for codes of one class, or codes that do not differ within their classes."""
    count_C, means_NR = _class_means(centred_NR, labels_N)
    if len(count_C) < 2:
        return []
    within_RR = _covariance(centred_NR - means_NR)
    within_RR = shrink(within_RR[None], np.ones(1), len(labels_N))[0] + variance_floor(centred_NR) * np.eye(
        len(within_RR)
    )
    size, count = len(within_RR), min(2, len(within_RR))
    try:
        value_K, vector_RK = eigh(_covariance(means_NR), within_RR, subset_by_index=(size - count, size - 1))
    except LinAlgError:
        return []
    largest = float(value_K[-1])
    return [
        vector_RK[:, column]
        for column in reversed(range(count))
        if largest > 0.0 and value_K[column] > _NEGLIGIBLE * largest
    ]


def _class_means(value_NR: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of codes of each class that occurs, and for each code the mean of its class, (N, R)."""
    _, class_N, count_C = np.unique(labels_N, return_inverse=True, return_counts=True)
    mean_CR = np.zeros((len(count_C), value_NR.shape[1]))
    np.add.at(mean_CR, class_N, value_NR)
    mean_CR /= count_C[:, None]
    return count_C, mean_CR[class_N]


def _principal_component(rest_NR: np.ndarray, all_NR: np.ndarray) -> np.ndarray:
    """The direction of the largest variance; zeros if that is negligible next to the variance of all codes."""
    size = rest_NR.shape[1]
    value_1, vector_R1 = eigh(_covariance(rest_NR), subset_by_index=(size - 1, size - 1))
    total = float(all_NR.var(axis=0).sum())
    return vector_R1[:, 0] if value_1[0] > _NEGLIGIBLE * total else np.zeros(size)


def _leading_components(centred_ND: np.ndarray, count: int) -> np.ndarray:
    """Orthonormal rows, at most ``count``, from the products of the N codes with each other: D may be very large."""
    size = len(centred_ND)
    count = min(count, size)
    value_K, vector_NK = eigh(centred_ND @ centred_ND.T, subset_by_index=(size - count, size - 1))
    kept_K = value_K > _NEGLIGIBLE * max(float(value_K[-1]), np.finfo(np.float64).tiny)
    basis_RD = (centred_ND.T @ vector_NK[:, kept_K] / np.sqrt(value_K[kept_K])).T[::-1]
    return basis_RD if len(basis_RD) else np.zeros((1, centred_ND.shape[1]))


def _covariance(centred_NR: np.ndarray) -> np.ndarray:
    return np.asarray(centred_NR.T @ centred_NR / len(centred_NR))


def _to_unit(axis_R: np.ndarray, spread_NR: np.ndarray) -> np.ndarray:
    """``axis_R`` scaled so that ``spread_NR`` has standard deviation 1 along it, or unit length if it has none."""
    length = float(np.linalg.norm(axis_R))
    if length == 0.0:
        return axis_R
    deviation = float(np.sqrt(np.mean(np.square(spread_NR @ (axis_R / length)))))
    largest = float(np.abs(spread_NR).max(initial=0.0))
    return axis_R / length / (deviation if deviation > _NEGLIGIBLE * largest else 1.0)


def _with_fixed_sign(axis_D: np.ndarray) -> np.ndarray:
    """The sign of an eigenvector is arbitrary: here the number of the largest magnitude is positive."""
    return axis_D if axis_D[np.argmax(np.abs(axis_D))] >= 0.0 else -axis_D


def _evenly_spaced(count: int, limit: int) -> np.ndarray:
    """At most ``limit`` of ``0 .. count - 1``, ascending."""
    kept = min(count, limit)
    return np.arange(kept) * count // kept
