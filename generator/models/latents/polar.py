"""A Gaussian mixture per class in polar coordinates, for two-dimensional codes on a ring (closed-form transformation).

With c the centre of all codes, z = c + e^u (cos t, sin t). The pair (u, t) has a Gaussian mixture distribution whose
second coordinate is wrapped around the circle, so that the density has no discontinuity:

    p(z | y) = e^(-2 u) sum_w sum_k w_yk N((u, t + 2 pi w); m_yk, S_yk),   w = -W .. W

e^(-2 u) is the Jacobian of the transformation (dz = e^(2 u) du dt). Wrapping a Gaussian is exact with all integers w;
W is large enough for the omitted terms to be below 10^-12.

Elementary functions come from ``math``, row by row: numpy may take another code path for a row, depending on its
neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from generator.errors import BundleError
from generator.models.latents import kernels, state_checks
from generator.models.latents.base import LatentDistribution, SampledCodes
from generator.models.latents.mixture import GaussianMixture, MixtureConfig
from generator.models.latents.mixture import from_state as mixture_from_state
from generator.spec.canonical import validate
from generator.spec.seeding import Noise

TURN = 2.0 * math.pi
MAX_WINDINGS = 8
_REACH = 8.0  # standard deviations
_MIN_RADIUS = 1e-150  # keeps the log radius of the centre itself finite


class PolarConfig(MixtureConfig):
    """The JSON part of a stored polar distribution: that of its mixture in (log radius, angle)."""

    family: Literal["polar"] = "polar"  # type: ignore[assignment]
    dims: Literal[2] = 2
    covariance: Literal["full"] = "full"


class PolarMixture(LatentDistribution):
    """See the module. ``centre_D``: two numbers; ``mixture``: of (u, t), with means of t in [-pi, pi]."""

    def __init__(self, centre_D: np.ndarray, mixture: GaussianMixture) -> None:
        self._centre_D, self._mixture = centre_D, mixture
        self._windings = count_windings(mixture)

    @property
    def dims(self) -> int:
        return 2

    @property
    def classes(self) -> int:
        return self._mixture.classes

    @property
    def clusters(self) -> tuple[int, ...]:
        return self._mixture.clusters

    def choice_for_cluster(self, cluster_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        return self._mixture.choice_for_cluster(cluster_B, labels_B)

    def sample(self, noise: Noise, labels_B: np.ndarray) -> SampledCodes:
        sampled = self._mixture.sample(noise, labels_B)
        z_BD = np.array([_to_cartesian(u, t) for u, t in sampled.z_BD.tolist()]).reshape(-1, 2) + self._centre_D
        return SampledCodes(z_BD=z_BD, cluster_B=sampled.cluster_B)

    def log_prob(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        polar_B2 = to_polar(z_BD, self._centre_D)
        log_density_B = np.empty(len(z_BD))
        for label in np.unique(labels_B):
            rows_R = np.flatnonzero(labels_B == label)
            log_density_B[rows_R] = kernels.log_sum_exp(self._joint_log_prob(int(label), polar_B2[rows_R]))
        return log_density_B - 2.0 * polar_B2[:, 0]

    def to_noise(self, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        polar_B2 = to_polar(z_BD, self._centre_D)
        cluster_B = np.empty(len(z_BD), dtype=np.int64)
        for label in np.unique(labels_B):
            rows_R = np.flatnonzero(labels_B == label)
            best_R = self._joint_log_prob(int(label), polar_B2[rows_R]).argmax(axis=0)
            turn_R, cluster_B[rows_R] = np.divmod(best_R, self._mixture.clusters[int(label)])
            polar_B2[rows_R, 1] += TURN * (turn_R - self._windings)
        return self._mixture.to_noise_in(cluster_B, polar_B2, labels_B)

    def _joint_log_prob(self, label: int, polar_R2: np.ndarray) -> np.ndarray:
        """((2 W + 1) K, R): log of weight times density in (u, t), for each winding and component."""
        turns = range(-self._windings, self._windings + 1)
        return np.concatenate(
            [self._mixture.joint_log_prob(label, polar_R2 + np.array([0.0, TURN * turn])) for turn in turns]
        )

    def density_floor(self, quantile: float) -> np.ndarray:
        return self._mixture.density_floor(quantile)

    def with_quantiles(self, quantile_CQ: np.ndarray) -> PolarMixture:
        """This distribution with other stored quantiles."""
        return PolarMixture(self._centre_D, self._mixture.with_quantiles(quantile_CQ))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        config, tensors = self._mixture.state()
        return config | {"family": "polar"}, tensors | {"centre": self._centre_D}


def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> PolarMixture:
    """A polar distribution from untrusted stored values. Raises ``BundleError`` for values that do not describe one."""
    checked = validate(PolarConfig, dict(config), field="latents", error=BundleError)
    centre_tensors = {name: array for name, array in tensors.items() if name == "centre"}
    centre_D = state_checks.check_arrays(centre_tensors, {"centre": (2,)})["centre"]
    mixture_tensors = {name: array for name, array in tensors.items() if name != "centre"}
    mixture = mixture_from_state(checked.model_dump(mode="json") | {"family": "mixture"}, mixture_tensors)
    if np.abs(mixture_tensors["mean"][:, 1]).max() > math.pi or count_windings(mixture) > MAX_WINDINGS:
        raise BundleError(
            "latents.mean", f"angles from -pi to pi that spread over at most {MAX_WINDINGS} turns", "other angles"
        )
    return PolarMixture(centre_D, mixture)


def to_polar(z_BD: np.ndarray, centre_D: np.ndarray) -> np.ndarray:
    """(B, 2): log of the distance from the centre, and the angle in [-pi, pi]."""
    pairs = [(math.log(max(math.hypot(x, y), _MIN_RADIUS)), math.atan2(y, x)) for x, y in (z_BD - centre_D).tolist()]
    return np.array(pairs).reshape(-1, 2)


def count_windings(mixture: GaussianMixture) -> int:
    """W: windings in each direction that contain all components within ``_REACH`` standard deviations."""
    factor_MDD = mixture.state()[1]["factor"]
    max_angle_std = float(np.hypot(factor_MDD[:, 1, 0], factor_MDD[:, 1, 1]).max())
    return math.ceil((TURN + _REACH * max_angle_std) / TURN)


def _to_cartesian(u: float, t: float) -> tuple[float, float]:
    radius = math.exp(u)
    return radius * math.cos(t), radius * math.sin(t)
