"""A Gaussian mixture per class, float64; with one component per class it is the family ``gaussian``.

p(z | y) = sum_k w_yk N(z; m_yk, L_yk L_yk^T). Flat arrays hold the components class by class; ``clusters[c]`` is the
number of components of class c. ``generator.models.latents.fitting.mixture`` fits it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from generator.errors import BundleError
from generator.models.latents import kernels, state_checks
from generator.models.latents.base import LatentDistribution, SampledCodes
from generator.models.latents.config import Covariance
from generator.models.latents.covariances import Covariances, DiagonalCovariances, FullCovariances, TiedCovariances
from generator.models.latents.quantiles import QUANTILE_GRID, density_floors
from generator.spec.canonical import FrozenModel, validate
from generator.spec.seeding import Noise

_ROWS = 4096  # at a time, so that memory does not grow with the number of codes
MAX_DIMS = 512  # beyond, full covariances are too large


class MixtureConfig(FrozenModel):
    """The JSON part of a stored mixture. ``classes`` is 0 if unlabelled; ``clusters`` then has one entry.

    ``tied``: one covariance matrix per class; for ``gaussian``, one for all classes.
    """

    family: Literal["gaussian", "mixture"] = "mixture"
    dims: int = Field(ge=1, le=MAX_DIMS, strict=True)
    classes: int = Field(ge=0, le=100_000, strict=True)
    clusters: tuple[int, ...]
    covariance: Covariance = "full"

    @model_validator(mode="after")
    def _check_clusters(self) -> MixtureConfig:
        expected = max(1, self.classes)
        if len(self.clusters) != expected or min(self.clusters) < 1:
            raise ValueError(f"clusters must be {expected} positive numbers, one per class")
        if self.family == "gaussian" and max(self.clusters) > 1:
            raise ValueError("clusters of a gaussian must all be 1")
        return self

    @property
    def factor_shape(self) -> tuple[int, ...]:
        """Shape of ``factor``: (M, D, D) full, (M, D) diagonal, (C, D, D) tied, (1, D, D) tied for all classes."""
        if self.covariance == "diagonal":
            return (sum(self.clusters), self.dims)
        tied = 1 if self.family == "gaussian" else len(self.clusters)
        return (sum(self.clusters) if self.covariance == "full" else tied, self.dims, self.dims)


class GaussianMixture(LatentDistribution):
    """See the module. Built from checked arrays by ``from_state`` or by the fit; immutable afterwards.

    For M components in total: ``weight_M`` sums to 1 within a class; ``mean_MD``; ``factor`` of shape
    ``config.factor_shape``: lower-triangular matrices with a positive diagonal, or standard deviations for
    ``diagonal``; ``quantile_CQ`` as in ``generator.models.latents.quantiles``.
    """

    def __init__(
        self,
        config: MixtureConfig,
        *,
        weight_M: np.ndarray,
        mean_MD: np.ndarray,
        factor: np.ndarray,
        quantile_CQ: np.ndarray,
    ) -> None:
        self._config = config
        self._weight_M, self._mean_MD, self._factor, self._quantile_CQ = weight_M, mean_MD, factor, quantile_CQ
        ends = np.cumsum(config.clusters).tolist()
        self._single = max(config.clusters) == 1  # component in each class
        self._class_slices = [slice(end - size, end) for end, size in zip(ends, config.clusters, strict=True)]
        self._covariances = _component_covariances(config, mean_MD, factor)
        self._cumulative = [np.cumsum(weight_M[part]) for part in self._class_slices]
        log_normal = 0.5 * config.dims * math.log(2.0 * math.pi)
        log_weight_M = np.array([math.log(weight) for weight in weight_M])
        self._log_scale_M = log_weight_M - self._covariances.log_determinants() - log_normal

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

    def choice_for_cluster(self, cluster_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        choice_B = np.empty(len(cluster_B))
        for label, rows_R in _rows_by_label(labels_B):
            cumulative_K = self._cumulative[label]
            below_K = np.concatenate([[0.0], cumulative_K[:-1]])
            choice_B[rows_R] = (0.5 * (below_K + cumulative_K))[cluster_B[rows_R]]
        return choice_B

    def sample(self, noise: Noise, labels_B: np.ndarray) -> SampledCodes:
        cluster_B = np.empty(len(labels_B), dtype=np.int64)
        component_B = np.empty(len(labels_B), dtype=np.int64)
        for label, rows_R in _rows_by_label(labels_B):
            cluster_B[rows_R] = kernels.inverse_cdf(self._cumulative[label], noise.choice_B[rows_R])
            component_B[rows_R] = cluster_B[rows_R] + self._class_slices[label].start
        z_BD = self._covariances.affine(component_B, noise.normal_BD)
        return SampledCodes(z_BD=z_BD, cluster_B=cluster_B.astype(np.int32))

    def log_prob(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        if self._single:
            return self._log_prob_of_single_components(z_BD, labels_B)
        log_density_B = np.empty(len(z_BD))
        for label, rows_R in _rows_by_label(labels_B):
            log_density_B[rows_R] = kernels.log_sum_exp(self.joint_log_prob(label, z_BD[rows_R]))
        return log_density_B

    def _log_prob_of_single_components(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """``log_prob`` where each class has one component: all classes at a time, with the same bits."""
        log_density_B = np.empty(len(z_BD))
        for begin in range(0, len(z_BD), _ROWS):
            rows = slice(begin, begin + _ROWS)
            white_RD = self._covariances.whiten(labels_B[rows], z_BD[rows])
            log_density_B[rows] = self._log_scale_M[labels_B[rows]] - 0.5 * kernels.sum_of_squares(white_RD)
        return log_density_B

    def joint_log_prob(self, label: int, z_RD: np.ndarray) -> np.ndarray:
        """joint_KR: log of weight times density of each row under each component of a class."""
        part = self._class_slices[label]
        joint_KR: np.ndarray = self._log_scale_M[part, None] - 0.5 * self._covariances.squared_distances(part, z_RD)
        return joint_KR

    def to_noise(self, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        cluster_B = np.empty(len(z_BD), dtype=np.int64)
        for label, rows_R in _rows_by_label(labels_B):
            cluster_B[rows_R] = self.joint_log_prob(label, z_BD[rows_R]).argmax(axis=0)
        return self.to_noise_in(cluster_B, z_BD, labels_B)

    def to_noise_in(self, cluster_B: np.ndarray, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        """Inverse of ``sample`` for given clusters (int64) of the classes: the noise that gives these codes."""
        component_B = np.empty(len(z_BD), dtype=np.int64)
        for label, rows_R in _rows_by_label(labels_B):
            component_B[rows_R] = cluster_B[rows_R] + self._class_slices[label].start
        return Noise(
            choice_B=self.choice_for_cluster(cluster_B, labels_B), normal_BD=self._covariances.whiten(component_B, z_BD)
        )

    def density_floor(self, quantile: float) -> np.ndarray:
        return density_floors(self._quantile_CQ, quantile)

    def with_quantiles(self, quantile_CQ: np.ndarray) -> GaussianMixture:
        """This mixture with other stored quantiles."""
        weight_M, mean_MD = self._weight_M, self._mean_MD
        return GaussianMixture(
            self._config, weight_M=weight_M, mean_MD=mean_MD, factor=self._factor, quantile_CQ=quantile_CQ
        )

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        tensors = {
            "weight": self._weight_M,
            "mean": self._mean_MD,
            "factor": self._factor,
            "quantile": self._quantile_CQ,
        }
        return self._config.model_dump(mode="json"), tensors


def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> GaussianMixture:
    """A mixture from untrusted stored values. Raises ``BundleError`` for values that do not describe one."""
    checked = validate(MixtureConfig, dict(config), field="latents", error=BundleError)
    shapes = {
        "weight": (sum(checked.clusters),),
        "mean": (sum(checked.clusters), checked.dims),
        "factor": checked.factor_shape,
        "quantile": (max(1, checked.classes), len(QUANTILE_GRID)),
    }
    arrays = state_checks.check_arrays(tensors, shapes)
    _check_weights(arrays["weight"], checked.clusters)
    if checked.covariance == "diagonal":
        state_checks.check_positive("factor", arrays["factor"])
    else:
        state_checks.check_factors(arrays["factor"])
    state_checks.check_quantiles(arrays["quantile"])
    return GaussianMixture(
        checked,
        weight_M=arrays["weight"],
        mean_MD=arrays["mean"],
        factor=arrays["factor"],
        quantile_CQ=arrays["quantile"],
    )


def _component_covariances(config: MixtureConfig, mean_MD: np.ndarray, factor: np.ndarray) -> Covariances:
    if config.covariance == "full":
        return FullCovariances(mean_MD, factor)
    if config.covariance == "diagonal":
        return DiagonalCovariances(mean_MD, factor)
    factor_indices = [0] * len(config.clusters) if config.family == "gaussian" else range(len(config.clusters))
    return TiedCovariances(mean_MD, factor, np.repeat(np.array(factor_indices, dtype=np.int64), config.clusters))


def _check_weights(weight_M: np.ndarray, clusters: tuple[int, ...]) -> None:
    state_checks.check_positive("weight", weight_M)
    for label, part in enumerate(np.split(weight_M, np.cumsum(clusters)[:-1])):
        if abs(part.sum() - 1.0) > 1e-9:
            raise BundleError("latents.weight", "weights that add up to 1 in each class", f"{part.sum()} in {label}")


def _rows_by_label(labels_B: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(int(label), np.flatnonzero(labels_B == label)) for label in np.unique(labels_B)]
