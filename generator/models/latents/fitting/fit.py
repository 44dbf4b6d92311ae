"""Codes and settings in, a fitted latent distribution out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import (
    FlowSettings,
    GaussianSettings,
    MixtureSettings,
    PolarSettings,
    SamplerSettings,
)
from generator.models.latents.fitting.gaussian import fit_gaussian
from generator.models.latents.fitting.mixture import ClusterChoice, fit_mixture
from generator.models.latents.fitting.polar import fit_polar


@dataclass(frozen=True)
class Fit:
    """The fitted distribution, what was chosen on the way (plain JSON), and what a person should know of it."""

    distribution: LatentDistribution
    chosen: dict[str, Any]
    notices: tuple[str, ...]


def fit(codes: Codes, settings: SamplerSettings, *, seed: int = 0) -> Fit:
    """Fit the distribution that ``settings`` asks for.

    Raises ``SourceError`` for codes it cannot be fitted to, and ``TrainingDiverged`` for a flow that is no number.
    """
    match settings:
        case GaussianSettings():
            gaussian, warnings = fit_gaussian(codes, settings.covariance)
            return Fit(gaussian, {}, tuple(map(str, warnings)))
        case MixtureSettings():
            made = fit_mixture(
                codes,
                seed=seed,
                clusters=settings.clusters,
                criterion=settings.clusters_by,
                covariance=settings.covariance,
            )
            return Fit(made.mixture, _clusters(made.choices), tuple(map(str, made.warnings)))
        case PolarSettings():
            ring = fit_polar(codes, seed=seed, clusters=settings.clusters)
            return Fit(ring.polar, _clusters(ring.choices), tuple(map(str, ring.warnings)))
        case FlowSettings():
            from generator.models.latents.fitting.flow import fit_flow  # torch

            trained = fit_flow(codes, settings, seed=seed)
            return Fit(trained.flow, trained.chosen, tuple(map(str, trained.warnings)))


def _clusters(choices: tuple[ClusterChoice, ...]) -> dict[str, Any]:
    return {"clusters": {choice.class_name: choice.clusters for choice in choices}}
