"""All families by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generator.autoencoders.adversarial import Adversarial
from generator.autoencoders.config import AutoencoderConfig
from generator.autoencoders.denoising import Denoising
from generator.autoencoders.family import Autoencoder
from generator.autoencoders.layerwise import Layerwise
from generator.autoencoders.linear import Linear
from generator.autoencoders.regularized import Regularized
from generator.autoencoders.settings import TrainSettings
from generator.autoencoders.stacked import Stacked
from generator.autoencoders.vae import Vae

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
