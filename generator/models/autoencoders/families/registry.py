"""All families by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generator.models.autoencoders.config import AutoencoderConfig
from generator.models.autoencoders.families.adversarial import Adversarial
from generator.models.autoencoders.families.base import Autoencoder
from generator.models.autoencoders.families.denoising import Denoising
from generator.models.autoencoders.families.layerwise import Layerwise
from generator.models.autoencoders.families.linear import Linear
from generator.models.autoencoders.families.regularized import Regularized
from generator.models.autoencoders.families.stacked import Stacked
from generator.models.autoencoders.families.vae import Vae
from generator.models.autoencoders.settings import TrainSettings

_FAMILIES: dict[str, Callable[[Any, TrainSettings, int], Autoencoder]] = {
    "linear": Linear,
    "stacked": Stacked,
    "stacked-layerwise": Layerwise,
    "denoising": Denoising,
    "vae": Vae,
    "adversarial": Adversarial,
    "regularized": Regularized,
}


def new_autoencoder(config: AutoencoderConfig, settings: TrainSettings, classes: int) -> Autoencoder:
    """The autoencoder of ``config``, with fresh weights from torch's global generator. ``classes``: 0 unlabelled."""
    return _FAMILIES[config.family](config, settings, classes)
