"""The stacked autoencoder, trained end to end: Hinton & Salakhutdinov, "Reducing the dimensionality of data with
neural networks", Science 2006, with convolutional layers."""

from __future__ import annotations

from typing import final

import torch

from generator.models.autoencoders.config import StackedConfig
from generator.models.autoencoders.families.base import Autoencoder, Batch, Losses, reconstruction_loss
from generator.models.autoencoders.networks import Decoder, Encoder, channels_last
from generator.models.autoencoders.settings import TrainSettings


@final
class StackedAutoencoder(Autoencoder):
    """See the module. Fresh weights come from torch's global generator."""

    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: StackedConfig, settings: TrainSettings, classes: int = 0) -> None:
        super().__init__()
        self.encoder, self.decoder = channels_last(Encoder(config)), channels_last(Decoder(config))
        self._reconstruction = settings.reconstruction

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        logits_BCHW = self.decoder.logits(self.encoder(batch.x_BCHW))
        error = reconstruction_loss(logits_BCHW, batch.x_BCHW, self._reconstruction)
        return Losses(total=error, terms={"reconstruction": error.detach()}, output_BCHW=torch.sigmoid(logits_BCHW))
