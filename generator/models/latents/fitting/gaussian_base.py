"""Fitting the base of ``transport``: a mean a class, and covariances that few codes suffice for.

Up to ``MAX_FULL_DIMS`` dimensions each class has a full covariance, shrunk towards the pooled within-class one, and
that towards its diagonal. Beyond, codes vary most in few directions: the principal components of all codes around the
means of their classes (Tipping & Bishop, "Probabilistic principal component analysis", 1999). There each class has a
full covariance, shrunk towards the pooled one; in all other directions the standard deviation is the share
``OTHER_SCALE`` of that of the codes, as decoders forgive a code that is too plain and not one that is noisy.
"""

from __future__ import annotations

import numpy as np

from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.gaussian_base import BaseConfig, Rotation, rotation_to
from generator.models.latents.mixture import MAX_DIMS as MAX_FULL_DIMS

OTHER_SCALE = 0.1
_MAX_RANK, _CODES_A_DIRECTION = 512, 12
_FLOOR = 1e-6  # smallest variance in any direction, as a share of the mean variance


def fit_base(
    codes: Codes, classes: list[ClassCodes], *, rotated: bool = False
) -> tuple[BaseConfig, dict[str, np.ndarray]]:
    """The configuration of the base and its arrays ``mean`` and factors, float64.

    ``rotated``: of low rank also where a full covariance would do, then in all directions; the first are those of most
    variance.
    """
    mean_CD = np.stack([class_codes.codes_ND.mean(axis=0) for class_codes in classes])
    centred = [class_codes.codes_ND - mean_D for class_codes, mean_D in zip(classes, mean_CD, strict=True)]
    shape = codes.shape or (codes.dims,)
    if not rotated and (codes.dims <= MAX_FULL_DIMS or len(shape) == 1):
        config = BaseConfig(covariance="full", factors=len(classes), shape=shape)
        return config, {"mean": mean_CD, "factor": _full_factors(centred)}
    rotation, other_scale, rank = _directions(np.concatenate(centred))
    config = BaseConfig(covariance="low_rank", factors=len(classes), shape=shape, rank=rank)
    basis_DK = rotation.columns(rank)
    factor = _full_factors([part_ND @ basis_DK for part_ND in centred])
    return config, {"mean": mean_CD, "factor": factor, **rotation.tensors(), "other_scale": np.array([other_scale])}


def _directions(centred_ND: np.ndarray) -> tuple[Rotation, float, int]:
    """The rotation to the directions of most variance, the standard deviation in others, and how many there are."""
    count, dims = centred_ND.shape
    rank = dims if dims <= MAX_FULL_DIMS else max(1, min(_MAX_RANK, dims // 2, count // _CODES_A_DIRECTION))
    if rank < dims and count < dims:
        _, _, directions_KD = np.linalg.svd(centred_ND, full_matrices=False)
    else:
        _, columns = np.linalg.eigh(centred_ND.T @ centred_ND)
        directions_KD = columns.T[::-1]
    directions_KD = directions_KD[:rank]
    if rank == dims:
        return rotation_to(directions_KD), 1.0, rank
    total = float(np.square(centred_ND).sum())
    left = max(total - float(np.square(centred_ND @ directions_KD.T).sum()), 1e-12 * total)
    other_scale = OTHER_SCALE * float(np.sqrt(left / (count * (dims - rank))))
    return rotation_to(directions_KD), max(other_scale, 1e-9), rank


def _full_factors(centred: list[np.ndarray]) -> np.ndarray:
    """factor_CDD. A prior with the weight of D codes (D / 2 for the pooled covariance) stands in for missing codes."""
    dims, total = centred[0].shape[1], sum(map(len, centred))
    pooled_DD = sum(part_ND.T @ part_ND for part_ND in centred) / total
    diagonal_DD = np.diag(np.diag(pooled_DD))
    pooled_DD = (total * pooled_DD + 0.5 * dims * diagonal_DD) / (total + 0.5 * dims)
    return np.stack([_factor((part_ND.T @ part_ND + dims * pooled_DD) / (len(part_ND) + dims)) for part_ND in centred])


def _factor(covariance_DD: np.ndarray) -> np.ndarray:
    floor = _FLOOR * float(np.trace(covariance_DD)) / len(covariance_DD)
    factor_DD: np.ndarray = np.linalg.cholesky(covariance_DD + floor * np.eye(len(covariance_DD)))
    return factor_DD
