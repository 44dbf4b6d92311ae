"""One Gaussian a class, in many dimensions: the base of the family ``transport``. Drawing costs one exact product.

    z = m_y + L_y n,   n standard normal.

``full``: L_y is a lower-triangular D x D matrix. ``kronecker``, for codes (C, h, w): one covariance of the channels and
one of the P = h w positions, L_y = L_C (x) L_P, so that L_y n = L_C N L_P^T for the normals N as a C x P matrix.
``low_rank``: K directions, common to all classes, in which each class has a lower-triangular K x K matrix, and one
standard deviation s for all others, if any: L_y n = Q (L_y n_K, s n_rest), with the orthogonal matrix Q = I - V T V^T
of K Householder reflections (Schreiber & Van Loan, "A storage-efficient WY representation", 1989), whose first K
columns are the directions. The density of a draw follows from its normals alone.

Everything is float64, and a row's result does not depend on the others: sums are exact (``exact_product``) or loops.

Legend: B rows, T rows of a tile, D dimensions, C classes (1 if unlabelled), F factors: one a class, or one for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, final

import numpy as np
from pydantic import Field, model_validator

from generator.errors import BundleError
from generator.models.latents import kernels
from generator.models.latents.exact_product import ExactProduct, round_inputs
from generator.models.latents.threads import run_in_tiles
from generator.spec.canonical import FrozenModel

_TILE = 256  # rows at a time


class BaseConfig(FrozenModel):
    """``factors``: 1 (all classes share the covariance) or the number of classes. ``shape``: (D) or (C, h, w).

    ``rank``: K of ``low_rank``, of no other.
    """

    covariance: Literal["full", "kronecker", "low_rank"]
    factors: int = Field(ge=1, le=100_000, strict=True)
    shape: tuple[int, ...] = Field(min_length=1, max_length=3)
    rank: int | None = Field(default=None, ge=1, le=1024, strict=True)

    @model_validator(mode="after")
    def _check_rank(self) -> BaseConfig:
        if (self.rank is None) != (self.covariance != "low_rank") or (self.rank or 0) > self.dims:
            raise ValueError(f"a rank of at most {self.dims} for low_rank, and for no other covariance")
        return self

    @property
    def dims(self) -> int:
        """D."""
        return math.prod(self.shape)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the lower-triangular matrices."""
        if self.rank is not None:
            return (self.rank,)
        return (self.dims,) if self.covariance == "full" else (self.shape[0], math.prod(self.shape[1:]))

    @property
    def factor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of ``factor`` or of ``channel_factor`` and ``position_factor``, by name."""
        names = ("channel_factor", "position_factor") if self.covariance == "kronecker" else ("factor",)
        return {name: (self.factors, side, side) for name, side in zip(names, self.sides, strict=True)}

    @property
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all arrays but ``mean``: the factors, and those of ``low_rank``."""
        if self.rank is None:
            return self.factor_shapes
        return self.factor_shapes | {
            "reflectors": (self.dims, self.rank),
            "reflections": (self.rank, self.rank),
            "other_scale": (1,),
        }

    def document(self) -> dict[str, object]:
        """This value as plain JSON; ``rank`` only where there is one."""
        return self.model_dump(mode="json", exclude_none=True)


@final
class Rotation:
    """The orthogonal matrix Q = I - V T V^T, of Householder reflectors V_DK and an upper-triangular T_KK."""

    def __init__(self, reflectors_DK: np.ndarray, reflections_KK: np.ndarray) -> None:
        self._reflectors_DK, self._reflections_KK = reflectors_DK, reflections_KK
        self._inner = ExactProduct(reflectors_DK.T)
        self._outer = ExactProduct(reflectors_DK @ reflections_KK)

    def __call__(self, columns_DR: np.ndarray) -> np.ndarray:
        """Q times columns, with exact sums."""
        inner_KR = self._inner(round_inputs(columns_DR))
        rotated_DR: np.ndarray = columns_DR - self._outer(round_inputs(inner_KR))
        return rotated_DR

    def inverse(self, column_D: np.ndarray) -> np.ndarray:
        """Q^T times a column."""
        inner_K = self._reflections_KK.T @ (self._reflectors_DK.T @ column_D)
        rotated_D: np.ndarray = column_D - self._reflectors_DK @ inner_K
        return rotated_D

    def columns(self, count: int) -> np.ndarray:
        """The first columns of Q."""
        first_DK = np.eye(len(self._reflectors_DK), count)
        columns_DK: np.ndarray = first_DK - self._reflectors_DK @ (self._reflections_KK @ self._reflectors_DK[:count].T)
        return columns_DK

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays that a bundle stores."""
        return {"reflectors": self._reflectors_DK, "reflections": self._reflections_KK}


def check_rotation(reflectors_DK: np.ndarray, reflections_KK: np.ndarray) -> None:
    """Raise ``BundleError`` unless I - V T V^T is orthogonal: T^-1 + T^-T = V^T V."""
    product_KK = reflections_KK.T @ (reflectors_DK.T @ reflectors_DK) @ reflections_KK
    if not np.allclose(product_KK, reflections_KK + reflections_KK.T, rtol=0.0, atol=1e-9):
        raise BundleError("latents.reflections", "reflections that are a rotation", "others")


def rotation_to(directions_KD: np.ndarray) -> Rotation:
    """A rotation whose first K columns span orthonormal ``directions_KD``; equal to them up to their signs."""
    from scipy.linalg import lapack  # slow to import

    dims = directions_KD.shape[1]
    packed_DK, tau_K, _, _ = lapack.dgeqrf(np.asfortranarray(directions_KD.T))
    reflectors_DK = np.tril(packed_DK, -1) + np.eye(dims, len(tau_K))
    reflections_KK = np.zeros((len(tau_K), len(tau_K)))
    for column, tau in enumerate(tau_K):  # forward accumulation of I - V T V^T
        products = reflectors_DK[:, :column].T @ reflectors_DK[:, column]
        reflections_KK[:column, column] = -tau * (reflections_KK[:column, :column] @ products)
        reflections_KK[column, column] = tau
    return Rotation(reflectors_DK, reflections_KK)


@final
class GaussianBase:
    """See the module. ``mean_CD``; ``tensors``: float64, as ``BaseConfig.tensor_shapes`` names them.

    Raises ``ValueError`` if factors are too large for exact products.
    """

    def __init__(self, config: BaseConfig, mean_CD: np.ndarray, tensors: Mapping[str, np.ndarray]) -> None:
        self._config, self.mean_CD = config, mean_CD
        self.factors = [tensors[name] for name in config.factor_shapes]
        self._products = [[ExactProduct(factor) for factor in factor_FSS] for factor_FSS in self.factors]
        self.rotation = None if config.rank is None else Rotation(tensors["reflectors"], tensors["reflections"])
        self._other_scale = tensors.get("other_scale", np.ones(1))
        # the largest standard deviation: what is rotated must lie within the range of exact products
        self._unit = float(np.sqrt(np.square(self.factors[0]).sum(axis=2).max()))
        dims = mean_CD.shape[1]
        repeats = [1.0] if config.rank is not None else [dims / side for side in config.sides]
        log_determinant_F = sum(
            repeat * np.log(np.diagonal(factor_FSS, axis1=1, axis2=2)).sum(axis=1)
            for factor_FSS, repeat in zip(self.factors, repeats, strict=True)
        )
        if config.rank is not None:
            log_determinant_F = log_determinant_F + (dims - config.rank) * math.log(float(self._other_scale[0]))
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

    def log_scale(self, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): the log-density of the mean of each class."""
        log_scale_B: np.ndarray = self._log_scale_F[self._factor_index(labels_B)]
        return log_scale_B

    def log_prob_of_normals(self, normal_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): the log-density of the draw of these normals."""
        return self.log_scale(labels_B) - 0.5 * kernels.sum_of_squares(normal_BD)

    def to_normals(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """Inverse of ``draw``, up to rounding."""
        from scipy.linalg import solve_triangular  # slow to import

        normal_BD, centred_BD = np.empty_like(z_BD), z_BD - self.mean_CD[labels_B]
        for row, factor in enumerate(self._factor_index(labels_B).tolist()):  # one by one: independent of the others
            if self.rotation is not None:
                rotated_D, rank = self.rotation.inverse(centred_BD[row]), self.factors[0].shape[1]
                normal_BD[row, :rank] = solve_triangular(self.factors[0][factor], rotated_D[:rank], lower=True)
                normal_BD[row, rank:] = rotated_D[rank:] / self._other_scale
                continue
            matrix = centred_BD[row].reshape(self._config.sides[0], -1)
            matrix = solve_triangular(self.factors[0][factor], matrix, lower=True)
            if len(self.factors) > 1:
                matrix = solve_triangular(self.factors[1][factor], matrix.T, lower=True).T
            normal_BD[row] = matrix.reshape(-1)
        return normal_BD

    def scale(self) -> np.ndarray:
        """scale_CD: the standard deviation of each dimension in each class."""
        if self.rotation is not None:
            basis_DK = self.rotation.columns(self.factors[0].shape[1])
            others_D = self._other_scale**2 * (1.0 - np.square(basis_DK).sum(axis=1))
            scale_FD = [np.sqrt(np.square(basis_DK @ factor).sum(axis=1) + others_D) for factor in self.factors[0]]
            return np.broadcast_to(np.stack(scale_FD), self.mean_CD.shape).copy()
        scale_F1 = [np.sqrt(np.square(factor_FSS).sum(axis=2)) for factor_FSS in self.factors]
        scale_FD = scale_F1[0]
        if len(scale_F1) > 1:
            scale_FD = np.einsum("fc,fp->fcp", *scale_F1).reshape(len(scale_FD), -1)
        return np.broadcast_to(scale_FD, self.mean_CD.shape).copy()

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays that a bundle stores."""
        stored = {"mean": self.mean_CD, **dict(zip(self._config.factor_shapes, self.factors, strict=True))}
        if self.rotation is not None:
            stored |= self.rotation.tensors() | {"other_scale": self._other_scale}
        return stored

    def _scaled(self, factor: int, normal_RD: np.ndarray) -> np.ndarray:
        """L n of each row, with one factor."""
        products = [product_F[factor] for product_F in self._products]
        if self.rotation is not None:
            rank = self.factors[0].shape[1]
            inner_KR = products[0](round_inputs(normal_RD[:, :rank].T))
            columns_DR = np.concatenate([inner_KR, self._other_scale * normal_RD[:, rank:].T]) / self._unit
            return self._unit * self.rotation(columns_DR).T
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
