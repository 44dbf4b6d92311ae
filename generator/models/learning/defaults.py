"""What is learned, and how, where the owner of a source asks for nothing else.

Many images in colour are taken for photographs: their classes are no clumps, and what tells them apart is texture,
which an error of pixels hardly sees. Figures: docs/decisions/0008-photographs.md.
"""

from __future__ import annotations

from typing import Any

from generator.models.autoencoders.config import AutoencoderConfig, default_config
from generator.models.autoencoders.settings import TrainSettings, default_settings
from generator.models.latents.config import FlowSettings, MixtureSettings, SamplerSettings
from generator.sources import Source

MIN_PHOTOGRAPHS = 10_000  # images; fewer, and a flow or a code of so many dimensions learns them by heart
_SIZE = 32  # pixels, at least
_LATENT_DIM = 128
_FEATURE_LOSS = 1000.0


def recommended_model(source: Source, family: str = "vae", **options: Any) -> AutoencoderConfig:
    """As ``default_config``, for the images of ``source``; a ``vae`` has longer codes for photographs."""
    if family == "vae" and _is_photographic(source):
        options = {"latent_dim": _LATENT_DIM} | options
    return default_config(source.size, source.channels, family, **options)


def recommended_settings(source: Source, family: str = "vae", epochs: int | None = None) -> TrainSettings:
    """As ``default_settings``; a ``vae`` of photographs of two classes or more is sharpened by a feature loss."""
    settings = default_settings(len(source), epochs)
    if family == "vae" and _is_photographic(source) and len(source.class_names) > 1:
        return settings.model_copy(update={"feature_loss": _FEATURE_LOSS})
    return settings


def recommended_sampler(source: Source) -> SamplerSettings:
    """A flow for photographs, otherwise a mixture."""
    return FlowSettings() if _is_photographic(source) else MixtureSettings()


def _is_photographic(source: Source) -> bool:
    return source.channels == 3 and source.size >= _SIZE and len(source) >= MIN_PHOTOGRAPHS
