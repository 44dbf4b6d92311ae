"""Fits the latent distribution of any family to codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import (
    FlowSettings,
    GaussianSettings,
    MixtureSettings,
    PolarSettings,
    PriorSettings,
    SamplerSettings,
    TransportSettings,
)
from generator.models.latents.fitting.gaussian import fit_gaussian
from generator.models.latents.fitting.mixture import ClusterChoice, fit_mixture
from generator.models.latents.fitting.polar import fit_polar
from generator.models.latents.prior import make_prior
from generator.spec.seeding import noise

_PRIOR_DRAWS = 10_000


@dataclass(frozen=True)
class Fit:
    """The fitted distribution, what the fit chose (plain JSON, stored in the bundle), and notices for the user."""

    distribution: LatentDistribution
    chosen: dict[str, Any]
    notices: tuple[str, ...]


def fit(
    codes: Codes,
    settings: SamplerSettings,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[int, int], None] = lambda *_: None,
) -> Fit:
    """Fit the distribution that ``settings`` asks for.

    ``device`` (of torch) and ``on_epoch`` (called with epochs done and their number) are for a transport's map.
    Raises ``SourceError`` for codes that it cannot be fitted to, and ``TrainingDiverged`` for a flow whose loss is not
    finite.
    """
    match settings:
        case GaussianSettings():
            gaussian, warnings = fit_gaussian(codes, settings.covariance)
            return Fit(gaussian, {}, tuple(map(str, warnings)))
        case MixtureSettings():
            mixture_fit = fit_mixture(
                codes,
                seed=seed,
                clusters=settings.clusters,
                criterion=settings.clusters_by,
                covariance=settings.covariance,
            )
            return Fit(mixture_fit.mixture, _clusters(mixture_fit.choices), tuple(map(str, mixture_fit.warnings)))
        case PolarSettings():
            polar_fit = fit_polar(codes, seed=seed, clusters=settings.clusters)
            return Fit(polar_fit.polar, _clusters(polar_fit.choices), tuple(map(str, polar_fit.warnings)))
        case FlowSettings():
            from generator.models.latents.fitting.flow import fit_flow  # torch

            flow_fit = fit_flow(codes, settings, seed=seed)
            return Fit(flow_fit.flow, flow_fit.chosen, tuple(map(str, flow_fit.warnings)))
        case PriorSettings():
            return fit_prior(codes, settings)
        case TransportSettings():
            from generator.models.latents.fitting.transport import fit_transport  # torch

            transport_fit = fit_transport(codes, settings, seed=seed, device=device, on_epoch=on_epoch)
            return Fit(transport_fit.transport, transport_fit.chosen, tuple(map(str, transport_fit.warnings)))


def fit_prior(codes: Codes, settings: PriorSettings) -> Fit:
    """The prior of these codes' dimensions and classes; only their number is used, for the quantiles of its density."""
    rows_N = np.arange(min(len(codes.codes_ND), _PRIOR_DRAWS))
    draws_ND = noise(0, rows_N, np.zeros_like(rows_N), codes.dims).normal_BD
    prior = make_prior(codes.dims, len(codes.class_names), settings.truncation, draws_ND)
    return Fit(prior, {"prior": "standard normal"}, ())


def _clusters(choices: tuple[ClusterChoice, ...]) -> dict[str, Any]:
    return {"clusters": {choice.class_name: choice.clusters for choice in choices}}
