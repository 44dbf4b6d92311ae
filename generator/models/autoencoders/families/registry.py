"""The autoencoder families by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generator.models.autoencoders.config import AutoencoderConfig
from generator.models.autoencoders.families.adversarial import AdversarialAutoencoder
from generator.models.autoencoders.families.base import Autoencoder
from generator.models.autoencoders.families.denoising import DenoisingAutoencoder
from generator.models.autoencoders.families.imported import ImportedAutoencoder
from generator.models.autoencoders.families.layerwise import LayerwiseAutoencoder
from generator.models.autoencoders.families.linear import LinearAutoencoder
from generator.models.autoencoders.families.regularized import RegularizedAutoencoder
from generator.models.autoencoders.families.spatial import SpatialAutoencoder
from generator.models.autoencoders.families.stacked import StackedAutoencoder
from generator.models.autoencoders.families.vae import Vae
from generator.models.autoencoders.settings import TrainSettings

_FAMILIES: dict[str, Callable[[Any, TrainSettings, int], Autoencoder]] = {
    "linear": LinearAutoencoder,
    "stacked": StackedAutoencoder,
    "stacked-layerwise": LayerwiseAutoencoder,
    "denoising": DenoisingAutoencoder,
    "vae": Vae,
    "adversarial": AdversarialAutoencoder,
    "regularized": RegularizedAutoencoder,
    "spatial": SpatialAutoencoder,
    "graph": ImportedAutoencoder,
}


def new_autoencoder(config: AutoencoderConfig, settings: TrainSettings, classes: int) -> Autoencoder:
    """The autoencoder of ``config``, with fresh weights from torch's global generator. ``classes``: 0 if unlabelled."""
    return _FAMILIES[config.family](config, settings, classes)
