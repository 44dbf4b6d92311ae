"""Default model, training settings and sampler for a source.

Colour sources with many images are treated as photographs: their codes do not form clusters, and their classes differ
by texture, which a pixel loss hardly measures. Figures: docs/decisions/0008-photographs.md.
"""

from __future__ import annotations

from typing import Any

from generator.models.autoencoders.config import AutoencoderConfig, check_model_size, default_config
from generator.models.autoencoders.settings import TrainSettings, default_settings
from generator.models.latents.config import FlowSettings, MixtureSettings, SamplerSettings, TransportSettings
from generator.sources import Source

MIN_PHOTOGRAPHS = 10_000  # images; with fewer, a flow or codes of so many dimensions overfit
_SIDE = 32  # pixels, at least, of both sides
_LATENT_DIM, _CLUSTERS = 128, 20
_FITTING_IMAGES, _MIN_FITTING_EPOCHS = 100_000, 2  # up to so many, maps and flows take all their epochs
_LABEL_WEIGHT, _TUNING_STEPS = 30.0, 1500
_FEATURE_LOSS, _SPATIAL_FEATURE_LOSS = 1000.0, 5000.0


def recommended_model(source: Source, family: str = "vae", **options: Any) -> AutoencoderConfig:
    """As ``default_config``, for the images of ``source``; a ``vae`` for photographs has more latent dimensions, and
    codes that tell their labels.

    Raises ``SpecError`` naming ``size`` if models of ``family`` do not exist for it.
    """
    check_model_size(family, source.size)
    if family == "vae" and is_photographic(source):
        labels = {"label_weight": _LABEL_WEIGHT} if len(source.class_names) > 1 else {}
        options = {"latent_dim": _LATENT_DIM} | labels | options
    return default_config(source.size, source.channels, family, **options)


def recommended_settings(source: Source, family: str = "vae", epochs: int | None = None) -> TrainSettings:
    """As ``default_settings``, with a feature loss for ``spatial``, and for photographs with ``vae``, if there are two
    classes or more; the latter's decoder is then tuned on sampled codes. The pixel loss of ``spatial`` is ``mse``."""
    settings = default_settings(len(source), epochs)
    if family == "spatial":
        feature_loss = _SPATIAL_FEATURE_LOSS if len(source.class_names) > 1 else 0.0
        return settings.model_copy(update={"reconstruction": "mse", "feature_loss": feature_loss})
    if family == "vae" and is_photographic(source) and len(source.class_names) > 1:
        return settings.model_copy(update={"feature_loss": _FEATURE_LOSS, "tuning_steps": _TUNING_STEPS})
    return settings


def recommended_sampler(source: Source, family: str = "vae") -> SamplerSettings:
    """For codes with a shape a transport, of photographs as ``pretrained_sampler``; otherwise a flow for those of
    photographs, or a mixture.

    With more than some 100,000 images, maps and flows take fewer epochs, so that their training takes no longer.
    """
    settings: TransportSettings | FlowSettings
    if family == "spatial" and is_photographic(source):
        return pretrained_sampler(source)
    if family == "spatial":
        settings = TransportSettings()
    elif is_photographic(source):
        settings = FlowSettings()
    else:
        return MixtureSettings()
    enough = max(_MIN_FITTING_EPOCHS, round(settings.epochs * _FITTING_IMAGES / max(1, len(source))))
    return settings.model_copy(update={"epochs": min(settings.epochs, enough)})


def suits_pretrained(source: Source) -> bool:
    """Whether the pretrained autoencoder fits: colour images of 32 pixels a side or more."""
    return source.channels == 3 and min(source.size) >= _SIDE


def pretrained_sampler(source: Source) -> TransportSettings:
    """For codes of the pretrained autoencoder: a Gaussian a class, for many photographs clusters; without a map, which
    adds little for its time."""
    return TransportSettings(map=None, clusters=_CLUSTERS if is_photographic(source) else None)


def pretrained_settings(source: Source, epochs: int | None = None, *, tuned: bool) -> TrainSettings:
    """For the pretrained autoencoder: as for ``spatial``, with a smaller feature loss if its decoder is ``tuned``."""
    settings = recommended_settings(source, "spatial", epochs)
    return settings.model_copy(update={"feature_loss": _FEATURE_LOSS}) if tuned else settings


def is_photographic(source: Source) -> bool:
    """Whether the source is treated as many photographs: colour, 32 pixels a side or more, 10,000 images or more."""
    return suits_pretrained(source) and len(source) >= MIN_PHOTOGRAPHS
