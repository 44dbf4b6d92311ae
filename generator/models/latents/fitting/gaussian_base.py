"""Fitting the base of ``transport``: a mean a class, and covariances that few codes suffice for.

Up to ``MAX_FULL_DIMS`` dimensions each class has a full covariance, shrunk towards the pooled within-class one, and
that towards its diagonal. Beyond, all classes share the Kronecker product of one covariance of the channels and one of
the positions, fitted by the flip-flop algorithm (Dutilleul, "The MLE algorithm for the matrix normal distribution",
1999).
"""

from __future__ import annotations

import numpy as np

from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.gaussian_base import BaseConfig
from generator.models.latents.mixture import MAX_DIMS as MAX_FULL_DIMS

_FLIP_FLOPS = 5
_FLOOR = 1e-6  # smallest variance in any direction, as a share of the mean variance


def fit_base(codes: Codes, classes: list[ClassCodes]) -> tuple[BaseConfig, dict[str, np.ndarray]]:
    """The configuration of the base and its arrays ``mean`` and factors, float64."""
    mean_CD = np.stack([class_codes.codes_ND.mean(axis=0) for class_codes in classes])
    centred = [class_codes.codes_ND - mean_D for class_codes, mean_D in zip(classes, mean_CD, strict=True)]
    shape = codes.shape or (codes.dims,)
    if codes.dims <= MAX_FULL_DIMS or len(shape) == 1:
        config = BaseConfig(covariance="full", factors=len(classes), shape=shape)
        return config, {"mean": mean_CD, "factor": _full_factors(centred)}
    config = BaseConfig(covariance="kronecker", factors=1, shape=shape)
    channel_CC, position_PP = _kronecker_covariances(np.concatenate(centred), config.sides)
    factors = {"channel_factor": _factor(channel_CC)[None], "position_factor": _factor(position_PP)[None]}
    return config, {"mean": mean_CD, **factors}


def _full_factors(centred: list[np.ndarray]) -> np.ndarray:
    """factor_CDD. A prior with the weight of D codes (D / 2 for the pooled covariance) stands in for missing codes."""
    dims, total = centred[0].shape[1], sum(map(len, centred))
    pooled_DD = sum(part_ND.T @ part_ND for part_ND in centred) / total
    diagonal_DD = np.diag(np.diag(pooled_DD))
    pooled_DD = (total * pooled_DD + 0.5 * dims * diagonal_DD) / (total + 0.5 * dims)
    return np.stack([_factor((part_ND.T @ part_ND + dims * pooled_DD) / (len(part_ND) + dims)) for part_ND in centred])


def _kronecker_covariances(centred_ND: np.ndarray, sides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(channel_CC, position_PP). Each is estimated on codes that the other one has whitened, by turns."""
    codes_NCP = centred_ND.reshape(-1, *sides)
    channels, positions = sides
    channel_CC, position_PP = np.eye(channels), np.eye(positions)
    for _ in range(_FLIP_FLOPS):
        white_NCP = np.linalg.solve(_factor(position_PP), codes_NCP.transpose(0, 2, 1)).transpose(0, 2, 1)
        channel_CC = np.einsum("ncp,ndp->cd", white_NCP, white_NCP, optimize=True) / (len(codes_NCP) * positions)
        white_NCP = np.linalg.solve(_factor(channel_CC), codes_NCP)
        position_PP = np.einsum("ncp,ncq->pq", white_NCP, white_NCP, optimize=True) / (len(codes_NCP) * channels)
    return channel_CC, position_PP


def _factor(covariance_DD: np.ndarray) -> np.ndarray:
    floor = _FLOOR * float(np.trace(covariance_DD)) / len(covariance_DD)
    factor_DD: np.ndarray = np.linalg.cholesky(covariance_DD + floor * np.eye(len(covariance_DD)))
    return factor_DD
