"""An imported autoencoder whose decoder is trained further, on the user's images; the encoder stays as it is.

Codes with noise teach the decoder to forgive sampled codes (as in Zheng et al., "Diffusion transformers with
representation autoencoders", arXiv:2510.11690).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from generator.errors import SpecError
from generator.models.autoencoders.families.base import MSE_VARIANCE, Autoencoder, Batch, Losses
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.autoencoders.graphs.network import GraphDecoder, GraphEncoder
from generator.models.autoencoders.networks import channels_last
from generator.models.autoencoders.settings import TrainSettings

_CODE_NOISE = 0.1  # standard deviation at most, relative to that of each number of a code


@final
class ImportedAutoencoder(Autoencoder):
    """See the module. The reconstruction loss is always ``mse``."""

    encoder: GraphEncoder
    decoder: GraphDecoder
    learning_rate_factor = 0.1
    averaging = 0.05

    def __init__(self, config: GraphConfig, settings: TrainSettings, classes: int = 0) -> None:
        """Raises ``SpecError`` without an encoder, and for the reconstruction loss ``bce``."""
        super().__init__()
        if config.encoder is None:
            raise SpecError("finetune", "an imported autoencoder", "a decoder without an encoder")
        if settings.reconstruction != "mse":
            raise SpecError("train.reconstruction", "mse for an imported autoencoder", settings.reconstruction)
        self.encoder = channels_last(GraphEncoder(config.encoder)).requires_grad_(False)
        self.decoder = channels_last(GraphDecoder(config))

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        with torch.no_grad():
            z_BD = self.encoder(batch.x_BCHW)
        if noise is not None:
            z_BD = _add_noise(z_BD, noise)
        output_BCHW = self.decoder(z_BD)
        error = (output_BCHW - batch.x_BCHW).square().sum() / (2.0 * MSE_VARIANCE * len(z_BD))
        return Losses(error, {"reconstruction": error.detach()}, output_BCHW)


def _add_noise(z_BD: Tensor, noise: torch.Generator) -> Tensor:
    """Codes with noise of a random strength each."""
    strength_B1 = _CODE_NOISE * torch.rand((len(z_BD), 1), generator=noise, device=z_BD.device)
    return z_BD + strength_B1 * z_BD.std(dim=0) * torch.randn(z_BD.shape, generator=noise, device=z_BD.device)
