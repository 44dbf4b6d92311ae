"""The denoising autoencoder: Vincent, Larochelle, Bengio & Manzagol, "Extracting and composing robust features with
denoising autoencoders", ICML 2008, and Vincent et al., "Stacked denoising autoencoders", JMLR 2010 (section 3.3).

The input is a corrupted image, the target is the clean one. Codes for sampling are those of clean images.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from generator.models.autoencoders.config import DenoisingConfig
from generator.models.autoencoders.families.base import Autoencoder, Batch, Losses, reconstruction_loss
from generator.models.autoencoders.networks import Decoder, Encoder, channels_last
from generator.models.autoencoders.settings import TrainSettings

_HOLDOUT_SEED = 0


@final
class DenoisingAutoencoder(Autoencoder):
    """See the module. Fresh weights come from torch's global generator; the holdout always has the same noise."""

    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: DenoisingConfig, settings: TrainSettings, classes: int = 0) -> None:
        super().__init__()
        self.encoder, self.decoder = channels_last(Encoder(config)), channels_last(Decoder(config))
        self._config, self._reconstruction = config, settings.reconstruction

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        if noise is None:
            noise = torch.Generator(batch.x_BCHW.device).manual_seed(_HOLDOUT_SEED)
        noisy_BCHW = corrupt(batch.x_BCHW, self._config.noise, self._config.amount, noise)
        logits_BCHW = self.decoder.logits(self.encoder(noisy_BCHW))
        error = reconstruction_loss(logits_BCHW, batch.x_BCHW, self._reconstruction)
        return Losses(total=error, terms={"reconstruction": error.detach()}, output_BCHW=torch.sigmoid(logits_BCHW))


def corrupt(x_BCHW: Tensor, kind: str, amount: float, noise: torch.Generator) -> Tensor:
    """``x_BCHW`` (float32 in [0, 1]) with noise of ``kind``, as in ``DenoisingConfig``.

    Gaussian noise is not clipped to [0, 1]; masking and salt-and-pepper noise affect all channels of a pixel.
    """
    if kind == "gaussian":
        return x_BCHW + amount * torch.randn(x_BCHW.shape, generator=noise, device=x_BCHW.device)
    pixels = (len(x_BCHW), 1, *x_BCHW.shape[2:])
    hit_B1HW = torch.rand(pixels, generator=noise, device=x_BCHW.device) < amount
    if kind == "masking":
        return x_BCHW.masked_fill(hit_B1HW, 0.0)
    salt_B1HW = torch.rand(pixels, generator=noise, device=x_BCHW.device) < 0.5
    return torch.where(hit_B1HW, salt_B1HW.to(x_BCHW.dtype), x_BCHW)
