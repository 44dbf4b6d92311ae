"""A Gaussian mixture per class, full covariance, float64.

p(z | y) = sum_k w_yk N(z; m_yk, L_yk L_yk^T). Components lie one class after the other in flat arrays; ``clusters[c]``
says how many belong to class c. It is fitted by ``generator.latents.fitting``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from generator.canonical import Frozen, validated
from generator.errors import BundleError
from generator.latents import kernels
from generator.latents.base import LatentDistribution, Latents
from generator.seeding import Noise

QUANTILE_GRID = np.linspace(0.0, 1.0, 1001)


class MixtureConfig(Frozen):
    """The JSON half of a stored mixture. ``classes`` is 0 when unlabelled, and ``clusters`` then has one entry."""

    family: Literal["mixture"] = "mixture"
    dims: int = Field(ge=1, le=512, strict=True)
    classes: int = Field(ge=0, le=100_000, strict=True)
    clusters: tuple[int, ...]

    @model_validator(mode="after")
    def _clusters_fit(self) -> MixtureConfig:
        wanted = max(1, self.classes)
        if len(self.clusters) != wanted or min(self.clusters) < 1:
            raise ValueError(f"clusters must be {wanted} positive numbers, one per class")
        return self


class GaussianMixture(LatentDistribution):
    """See the module. Built from checked arrays by ``from_state`` or by the fit; immutable afterwards.

    With M components in all: ``weight_M`` adds up to 1 within a class, ``mean_MD``, ``factor_MDD`` lower triangular
    with a positive diagonal, ``quantile_CQ``: quantiles of the log-densities of a class's held-out real codes, or of
    its samples where those are lower, at ``QUANTILE_GRID``, ascending.
    """

    def __init__(
        self,
        config: MixtureConfig,
        *,
        weight_M: np.ndarray,
        mean_MD: np.ndarray,
        factor_MDD: np.ndarray,
        quantile_CQ: np.ndarray,
    ) -> None:
        self._config = config
        self._weight_M, self._mean_MD, self._factor_MDD, self._quantile_CQ = weight_M, mean_MD, factor_MDD, quantile_CQ
        ends = np.cumsum(config.clusters).tolist()
        self._parts = [slice(end - size, end) for end, size in zip(ends, config.clusters, strict=True)]
        self._columns = kernels.columns_of(factor_MDD)
        self._cumulative = [np.cumsum(weight_M[part]) for part in self._parts]
        log_normal = 0.5 * config.dims * math.log(2.0 * math.pi)
        log_weight_M = np.array([math.log(weight) for weight in weight_M])
        self._log_scale_M = log_weight_M - kernels.log_determinants(self._columns) - log_normal

    @property
    def dims(self) -> int:
        return self._config.dims

    @property
    def classes(self) -> int:
        return self._config.classes

    @property
    def clusters(self) -> tuple[int, ...]:
        """Number of components of each class."""
        return self._config.clusters

    def choice_of(self, cluster_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        choice_B = np.empty(len(cluster_B))
        for label, rows_R in _rows_by_label(labels_B):
            cumulative_K = self._cumulative[label]
            below_K = np.concatenate([[0.0], cumulative_K[:-1]])
            choice_B[rows_R] = (0.5 * (below_K + cumulative_K))[cluster_B[rows_R]]
        return choice_B

    def sample(self, noise: Noise, labels_B: np.ndarray) -> Latents:
        cluster_B = np.empty(len(labels_B), dtype=np.int64)
        component_B = np.empty(len(labels_B), dtype=np.int64)
        for label, rows_R in _rows_by_label(labels_B):
            cluster_B[rows_R] = kernels.pick(self._cumulative[label], noise.choice_B[rows_R])
            component_B[rows_R] = cluster_B[rows_R] + self._parts[label].start
        z_BD = kernels.affine(self._mean_MD, self._columns, component_B, noise.normal_BD)
        return Latents(z_BD=z_BD, cluster_B=cluster_B.astype(np.int32))

    def log_prob(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        log_density_B = np.empty(len(z_BD))
        for label, rows_R in _rows_by_label(labels_B):
            log_density_B[rows_R] = kernels.log_sum_exp(self._joint(label, z_BD[rows_R]))
        return log_density_B

    def _joint(self, label: int, z_RD: np.ndarray) -> np.ndarray:
        """joint_KR: log of weight times density of each component of a class."""
        part = self._parts[label]
        columns = tuple(column_MR[part] for column_MR in self._columns)
        distance_KR = kernels.squared_distances(self._mean_MD[part], columns, z_RD)
        joint_KR: np.ndarray = self._log_scale_M[part, None] - 0.5 * distance_KR
        return joint_KR

    def locate(self, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        cluster_B = np.empty(len(z_BD), dtype=np.int64)
        component_B = np.empty(len(z_BD), dtype=np.int64)
        for label, rows_R in _rows_by_label(labels_B):
            cluster_B[rows_R] = self._joint(label, z_BD[rows_R]).argmax(axis=0)
            component_B[rows_R] = cluster_B[rows_R] + self._parts[label].start
        normal_BD = kernels.whiten(self._mean_MD, self._columns, component_B, z_BD)
        return Noise(choice_B=self.choice_of(cluster_B, labels_B), normal_BD=normal_BD)

    def density_floor(self, quantile: float) -> np.ndarray:
        return np.array([np.interp(quantile, QUANTILE_GRID, quantile_Q) for quantile_Q in self._quantile_CQ])

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        tensors = {
            "weight": self._weight_M,
            "mean": self._mean_MD,
            "factor": self._factor_MDD,
            "quantile": self._quantile_CQ,
        }
        return self._config.model_dump(mode="json"), tensors


def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> GaussianMixture:
    """A mixture from untrusted stored values. Raises ``BundleError`` for anything that is no Gaussian mixture."""
    checked = validated(MixtureConfig, dict(config), field="latents", error=BundleError)
    count, dims, rows = sum(checked.clusters), checked.dims, max(1, checked.classes)
    shapes = {
        "weight": (count,),
        "mean": (count, dims),
        "factor": (count, dims, dims),
        "quantile": (rows, len(QUANTILE_GRID)),
    }
    if set(tensors) != set(shapes):
        raise BundleError("latents", f"the tensors {sorted(shapes)}", sorted(tensors))
    weight_M, mean_MD, factor_MDD, quantile_CQ = (_array(tensors, name, shape) for name, shape in shapes.items())
    _check_weights(weight_M, checked.clusters)
    _check_factors(factor_MDD)
    if np.any(np.diff(quantile_CQ, axis=1) < 0.0):
        raise BundleError("latents.quantile", "ascending values in each row", "values that fall")
    return GaussianMixture(checked, weight_M=weight_M, mean_MD=mean_MD, factor_MDD=factor_MDD, quantile_CQ=quantile_CQ)


def _array(tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    value = tensors[name]
    if value.dtype != np.float64 or value.shape != shape:
        raise BundleError(f"latents.{name}", f"float64 of shape {shape}", f"{value.dtype} of shape {value.shape}")
    if not np.isfinite(value).all():
        raise BundleError(f"latents.{name}", "finite numbers", "NaN or infinity")
    return np.ascontiguousarray(value)


def _check_weights(weight_M: np.ndarray, clusters: tuple[int, ...]) -> None:
    if not np.all(weight_M > 0.0):
        raise BundleError("latents.weight", "positive weights", f"{weight_M.min()}")
    for label, part in enumerate(np.split(weight_M, np.cumsum(clusters)[:-1])):
        if abs(part.sum() - 1.0) > 1e-9:
            raise BundleError("latents.weight", "weights that add up to 1 in each class", f"{part.sum()} in {label}")


def _check_factors(factor_MDD: np.ndarray) -> None:
    if np.any(np.triu(factor_MDD, 1)):
        raise BundleError("latents.factor", "lower-triangular factors", "numbers above the diagonal")
    diagonal_MD = np.diagonal(factor_MDD, axis1=1, axis2=2)
    if not np.all(diagonal_MD > 0.0):
        raise BundleError("latents.factor", "a positive diagonal", f"{diagonal_MD.min()}")


def _rows_by_label(labels_B: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(int(label), np.flatnonzero(labels_B == label)) for label in np.unique(labels_B)]
