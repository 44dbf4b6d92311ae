"""The distribution that a generator was trained for: a standard normal in every dimension, the same for every class.

It may be truncated to [-t, t] in every dimension, which trades variety for quality (Brock, Donahue & Simonyan, "Large
scale GAN training for high fidelity natural image synthesis", ICLR 2019): noise n gives the point of the same
probability, F^-1(F(-t) + Phi(n) (F(t) - F(-t))), so that a draw stays a function of its noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy.special import ndtr, ndtri

from generator.errors import BundleError
from generator.models.latents import state_checks
from generator.models.latents.base import LatentDistribution, SampledCodes
from generator.models.latents.config import Truncation
from generator.models.latents.quantiles import QUANTILE_GRID, density_floors
from generator.spec.canonical import FrozenModel, validate
from generator.spec.seeding import Noise

MAX_DIMS = 65_536


class PriorConfig(FrozenModel):
    """The JSON part of a stored prior. ``truncation``: t, or ``None`` for the whole normal distribution."""

    family: Literal["prior"] = "prior"
    dims: int = Field(ge=1, le=MAX_DIMS, strict=True)
    classes: int = Field(ge=0, le=100_000, strict=True)
    truncation: Truncation | None = None


class Prior(LatentDistribution):
    """See the module. ``quantile_Q``: quantiles of the log-density of draws, the same for every class."""

    def __init__(self, config: PriorConfig, quantile_Q: np.ndarray) -> None:
        self._config, self._quantile_Q = config, quantile_Q
        self._low = 0.0 if config.truncation is None else float(ndtr(-config.truncation))

    @property
    def dims(self) -> int:
        return self._config.dims

    @property
    def classes(self) -> int:
        return self._config.classes

    def sample(self, noise: Noise, labels_B: np.ndarray) -> SampledCodes:
        normal_BD = noise.normal_BD
        if self._config.truncation is not None:
            limit = self._config.truncation
            normal_BD = ndtri(self._low + ndtr(normal_BD) * (1.0 - 2.0 * self._low)).clip(-limit, limit)
        return SampledCodes(z_BD=normal_BD, cluster_B=np.zeros(len(labels_B), dtype=np.int32))

    def log_prob(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:  # noqa: ARG002  # the same for all
        log_scale = math.log(1.0 - 2.0 * self._low) + 0.5 * math.log(2.0 * math.pi)
        log_density_B = np.array([-0.5 * float(z_D @ z_D) for z_D in z_BD]) - self.dims * log_scale
        if self._config.truncation is None:
            return log_density_B
        inside_B = np.abs(z_BD).max(axis=1) <= self._config.truncation
        return np.where(inside_B, log_density_B, -np.inf)

    def to_noise(self, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        if self._config.truncation is not None:
            limit = self._config.truncation
            share_BD = (ndtr(z_BD.clip(-limit, limit)) - self._low) / (1.0 - 2.0 * self._low)
            z_BD = ndtri(share_BD.clip(1e-15, 1.0 - 1e-15))
        return Noise(choice_B=np.full(len(labels_B), 0.5), normal_BD=z_BD)

    def density_floor(self, quantile: float) -> np.ndarray:
        return np.repeat(density_floors(self._quantile_Q[None], quantile), max(1, self.classes))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return self._config.model_dump(mode="json"), {"quantile": self._quantile_Q}


def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Prior:
    """A prior from untrusted stored values. Raises ``BundleError`` for values that do not describe one."""
    checked = validate(PriorConfig, dict(config), field="latents", error=BundleError)
    arrays = state_checks.check_arrays(tensors, {"quantile": (len(QUANTILE_GRID),)})
    state_checks.check_quantiles(arrays["quantile"][None])
    return Prior(checked, arrays["quantile"])


def make_prior(dims: int, classes: int, truncation: float | None, draws_ND: np.ndarray) -> Prior:
    """A prior; ``draws_ND``: noise (standard normal), for the stored quantiles."""
    config = PriorConfig(dims=dims, classes=classes, truncation=truncation)
    prior = Prior(config, np.zeros(len(QUANTILE_GRID)))
    labels_N = np.zeros(len(draws_ND), dtype=np.int64)
    points_ND = prior.sample(Noise(choice_B=np.full(len(draws_ND), 0.5), normal_BD=draws_ND), labels_N).z_BD
    return Prior(config, np.maximum.accumulate(np.quantile(prior.log_prob(points_ND, labels_N), QUANTILE_GRID)))
