"""The covariances of a mixture's components: full, diagonal, or shared (tied) matrices.

Component m is N(mean_m, L_m L_m^T). Each kind stores and computes only what it needs: per component and row, a full
factor takes D^2 / 2 multiplications and a diagonal one D. A shared factor also takes D, as each row is whitened only
once. Everything is float64 and batch-invariant (``generator.models.latents.kernels``).

Legend: B and R rows, M components in total, K components of one class, D dimensions, F shared factors.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from generator.models.latents import kernels


class Covariances(ABC):
    """The covariances of the M components of a mixture with given means."""

    @abstractmethod
    def log_determinants(self) -> np.ndarray:
        """(M,): log of the determinant of each component's factor L."""

    @abstractmethod
    def affine(self, component_B: np.ndarray, normal_BD: np.ndarray) -> np.ndarray:
        """z_BD = mean[m] + L[m] @ normal, with m the row's component."""

    @abstractmethod
    def whiten(self, component_B: np.ndarray, z_BD: np.ndarray) -> np.ndarray:
        """Inverse of ``affine``: the normal_BD that gives ``z_BD``, up to rounding."""

    @abstractmethod
    def squared_distances(self, part: slice, z_RD: np.ndarray) -> np.ndarray:
        """(K, R): squared Mahalanobis distance of each row to each component in ``part`` (one class)."""


class FullCovariances(Covariances):
    """``factor_MDD``: lower triangular, with a positive diagonal."""

    def __init__(self, mean_MD: np.ndarray, factor_MDD: np.ndarray) -> None:
        self._mean_MD, self._columns = mean_MD, kernels.factor_columns(factor_MDD)

    def log_determinants(self) -> np.ndarray:
        return kernels.log_determinants(self._columns)

    def affine(self, component_B: np.ndarray, normal_BD: np.ndarray) -> np.ndarray:
        return kernels.affine(self._mean_MD[component_B], self._columns, component_B, normal_BD)

    def whiten(self, component_B: np.ndarray, z_BD: np.ndarray) -> np.ndarray:
        return kernels.solve(self._columns, component_B, z_BD - self._mean_MD[component_B])

    def squared_distances(self, part: slice, z_RD: np.ndarray) -> np.ndarray:
        columns = tuple(column_MR[part] for column_MR in self._columns)
        return kernels.squared_distances(self._mean_MD[part], columns, z_RD)


class DiagonalCovariances(Covariances):
    """``scale_MD``: the standard deviation of each component in each dimension, positive."""

    def __init__(self, mean_MD: np.ndarray, scale_MD: np.ndarray) -> None:
        self._mean_MD, self._scale_MD = mean_MD, scale_MD

    def log_determinants(self) -> np.ndarray:
        return np.array([math.fsum(map(math.log, scale_D)) for scale_D in self._scale_MD])

    def affine(self, component_B: np.ndarray, normal_BD: np.ndarray) -> np.ndarray:
        z_BD: np.ndarray = self._mean_MD[component_B] + self._scale_MD[component_B] * normal_BD
        return z_BD

    def whiten(self, component_B: np.ndarray, z_BD: np.ndarray) -> np.ndarray:
        normal_BD: np.ndarray = (z_BD - self._mean_MD[component_B]) / self._scale_MD[component_B]
        return normal_BD

    def squared_distances(self, part: slice, z_RD: np.ndarray) -> np.ndarray:
        distance_KR = np.empty((part.stop - part.start, len(z_RD)))
        for distance_R, mean_D, scale_D in zip(distance_KR, self._mean_MD[part], self._scale_MD[part], strict=True):
            distance_R[:] = kernels.sum_of_squares((z_RD - mean_D) / scale_D)
        return distance_KR


class TiedCovariances(Covariances):
    """``factor_FDD`` as in ``FullCovariances``; ``factor_index_M`` (int64): factor of each component, one a class."""

    def __init__(self, mean_MD: np.ndarray, factor_FDD: np.ndarray, factor_index_M: np.ndarray) -> None:
        self._mean_MD, self._factor_index_M, self._columns = mean_MD, factor_index_M, kernels.factor_columns(factor_FDD)

    def log_determinants(self) -> np.ndarray:
        determinant_M: np.ndarray = kernels.log_determinants(self._columns)[self._factor_index_M]
        return determinant_M

    def affine(self, component_B: np.ndarray, normal_BD: np.ndarray) -> np.ndarray:
        return kernels.affine(self._mean_MD[component_B], self._columns, self._factor_index_M[component_B], normal_BD)

    def whiten(self, component_B: np.ndarray, z_BD: np.ndarray) -> np.ndarray:
        return kernels.solve(self._columns, self._factor_index_M[component_B], z_BD - self._mean_MD[component_B])

    def squared_distances(self, part: slice, z_RD: np.ndarray) -> np.ndarray:
        """Rows and means are whitened relative to the first mean, so that a common offset costs no precision."""
        origin_D, mean_KD = self._mean_MD[part][0], self._mean_MD[part]
        white_RD, white_KD = (
            kernels.solve(
                self._columns, np.full(len(points_XD), self._factor_index_M[part.start]), points_XD - origin_D
            )
            for points_XD in (z_RD, mean_KD)
        )
        return np.stack([kernels.sum_of_squares(white_RD - white_D) for white_D in white_KD])
