"""One Gaussian a class, in many dimensions: the base of the family ``transport``. Drawing costs one exact product.

    z = m_y + L_y n,   n standard normal.

``full``: L_y is a lower-triangular D x D matrix. ``kronecker``, for codes (C, h, w): one covariance of the channels and
one of the P = h w positions, L_y = L_C (x) L_P, so that L_y n = L_C N L_P^T for the normals N as a C x P matrix. The
density of a draw follows from its normals alone.

Everything is float64, and a row's result does not depend on the others: sums are exact (``exact_product``) or loops.

Legend: B rows, T rows of a tile, D dimensions, C classes (1 if unlabelled), F factors: one a class, or one for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, final

import numpy as np
from pydantic import Field

from generator.models.latents import kernels
from generator.models.latents.exact_product import ExactProduct, round_inputs
from generator.models.latents.threads import run_in_tiles
from generator.spec.canonical import FrozenModel

_TILE = 256  # rows at a time


class BaseConfig(FrozenModel):
    """``factors``: 1 (all classes share the covariance) or the number of classes. ``shape``: (D) or (C, h, w)."""

    covariance: Literal["full", "kronecker"]
    factors: int = Field(ge=1, le=100_000, strict=True)
    shape: tuple[int, ...] = Field(min_length=1, max_length=3)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the matrices that the factor is the Kronecker product of."""
        if self.covariance == "full":
            return (math.prod(self.shape),)
        return self.shape[0], math.prod(self.shape[1:])

    @property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of ``factor`` or of ``channel_factor`` and ``position_factor``, by name."""
        names = ("factor",) if self.covariance == "full" else ("channel_factor", "position_factor")
        return {name: (self.factors, side, side) for name, side in zip(names, self.sides, strict=True)}


@final
class GaussianBase:
    """See the module. ``mean_CD``; ``factors``: lower-triangular float64, as ``BaseConfig.tensor_shapes`` names them.

    Raises ``ValueError`` if factors are too large for exact products.
    """

    def __init__(self, config: BaseConfig, mean_CD: np.ndarray, factors: Mapping[str, np.ndarray]) -> None:
        self._config, self.mean_CD = config, mean_CD
        self.factors = [factors[name] for name in config.tensor_shapes]
        self._products = [[ExactProduct(factor) for factor in factor_FSS] for factor_FSS in self.factors]
        dims = mean_CD.shape[1]
        log_determinant_F = sum(
            (dims / side) * np.log(np.diagonal(factor_FSS, axis1=1, axis2=2)).sum(axis=1)
            for factor_FSS, side in zip(self.factors, config.sides, strict=True)
        )
        self._log_scale_F = -np.asarray(log_determinant_F) - 0.5 * dims * math.log(2.0 * math.pi)

    def draw(self, normal_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """z_BD of these normals (float64) and labels (int64)."""
        z_BD = np.empty_like(normal_BD)

        def tile(rows: slice) -> None:
            labels_T = labels_B[rows]
            for factor, here_R in self._by_factor(labels_T):
                z_BD[rows][here_R] = self._scaled(factor, normal_BD[rows][here_R])
            z_BD[rows] += self.mean_CD[labels_T]

        run_in_tiles(tile, len(z_BD), _TILE)
        return z_BD

    def log_prob_of_normals(self, normal_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): the log-density of the draw of these normals."""
        log_scale_B: np.ndarray = self._log_scale_F[self._factor_index(labels_B)]
        return log_scale_B - 0.5 * kernels.sum_of_squares(normal_BD)

    def to_normals(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """Inverse of ``draw``, up to rounding."""
        from scipy.linalg import solve_triangular  # slow to import

        normal_BD, centred_BD = np.empty_like(z_BD), z_BD - self.mean_CD[labels_B]
        for row, factor in enumerate(self._factor_index(labels_B).tolist()):  # one by one: independent of the others
            matrix = centred_BD[row].reshape(self._config.sides[0], -1)
            matrix = solve_triangular(self.factors[0][factor], matrix, lower=True)
            if len(self.factors) > 1:
                matrix = solve_triangular(self.factors[1][factor], matrix.T, lower=True).T
            normal_BD[row] = matrix.reshape(-1)
        return normal_BD

    def scale(self) -> np.ndarray:
        """scale_CD: the standard deviation of each dimension in each class."""
        scale_F1 = [np.sqrt(np.square(factor_FSS).sum(axis=2)) for factor_FSS in self.factors]
        scale_FD = scale_F1[0]
        if len(scale_F1) > 1:
            scale_FD = np.einsum("fc,fp->fcp", *scale_F1).reshape(len(scale_FD), -1)
        return np.broadcast_to(scale_FD, self.mean_CD.shape).copy()

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays that a bundle stores."""
        return {"mean": self.mean_CD, **dict(zip(self._config.tensor_shapes, self.factors, strict=True))}

    def _scaled(self, factor: int, normal_RD: np.ndarray) -> np.ndarray:
        """L n of each row, with one factor."""
        products = [product_F[factor] for product_F in self._products]
        if len(products) == 1:
            return products[0](round_inputs(normal_RD.T)).T
        rows, (channels, positions) = len(normal_RD), self._config.sides
        columns = normal_RD.reshape(rows, channels, positions).transpose(1, 0, 2).reshape(channels, -1)
        mixed = products[0](round_inputs(columns)).reshape(channels, rows, positions)
        columns = mixed.transpose(2, 1, 0).reshape(positions, -1)
        return (
            products[1](round_inputs(columns)).reshape(positions, rows, channels).transpose(1, 2, 0).reshape(rows, -1)
        )

    def _factor_index(self, labels_B: np.ndarray) -> np.ndarray:
        return labels_B if self._config.factors > 1 else np.zeros_like(labels_B)

    def _by_factor(self, labels_T: np.ndarray) -> list[tuple[int, np.ndarray]]:
        index_T = self._factor_index(labels_T)
        return [(int(factor), np.flatnonzero(index_T == factor)) for factor in np.unique(index_T)]
