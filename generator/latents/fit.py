"""Codes and settings in, a fitted latent distribution out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generator.latents.base import LatentDistribution
from generator.latents.codes import Codes
from generator.latents.config import GaussianSettings, MixtureSettings, SamplerSettings
from generator.latents.fitting import fit_mixture


@dataclass(frozen=True)
class Fit:
    """The fitted distribution, what was chosen on the way (plain JSON), and what a person should know of it."""

    distribution: LatentDistribution
    chosen: dict[str, Any]
    notices: tuple[str, ...]


def fit(codes: Codes, settings: SamplerSettings, *, seed: int = 0) -> Fit:
    """Fit the distribution that ``settings`` asks for. Raises ``SourceError`` for codes it cannot be fitted to."""
    match settings:
        case GaussianSettings():
            made = fit_mixture(codes, seed=seed, clusters=1)
        case MixtureSettings():
            made = fit_mixture(codes, seed=seed, clusters=settings.clusters, criterion=settings.clusters_by)
        case _:
            raise NotImplementedError(settings.family)
    chosen = {choice.class_name: choice.clusters for choice in made.choices}
    notices = tuple(f"{warning.class_name}: {warning.message}" for warning in made.warnings)
    return Fit(made.mixture, {"clusters": chosen}, notices)
