"""The spatial autoencoder: codes are grids, regularised for the distribution that is fitted to them afterwards.

Codes with noise teach the decoder to forgive sampled codes (as in Zheng et al., "Diffusion transformers with
representation autoencoders", arXiv:2510.11690). Mirrored and halved codes must decode to mirrored and halved images
(Kouzelis et al., "EQ-VAE", arXiv:2502.09509), which makes codes smoother and simpler to model.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from generator.errors import SpecError
from generator.models.autoencoders.config import SpatialConfig
from generator.models.autoencoders.families.base import MSE_VARIANCE, Autoencoder, Batch, Losses
from generator.models.autoencoders.networks import channels_last
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.spatial_networks import SpatialDecoder, SpatialEncoder

_HALVED = 0.2  # share of the transformed batches whose codes are halved in size instead of mirrored


@final
class SpatialAutoencoder(Autoencoder):
    """See the module. Fresh weights come from torch's global generator. The reconstruction loss is always ``mse``."""

    encoder: SpatialEncoder
    decoder: SpatialDecoder
    learning_rate_factor = 0.5

    def __init__(self, config: SpatialConfig, settings: TrainSettings, classes: int = 0) -> None:
        """Raises ``SpecError`` for the reconstruction loss ``bce``: outputs are not probabilities."""
        super().__init__()
        if settings.reconstruction != "mse":
            raise SpecError("train.reconstruction", "mse for the family spatial", settings.reconstruction)
        self.encoder, self.decoder = channels_last(SpatialEncoder(config)), channels_last(SpatialDecoder(config))
        self._config, self.averaging = config, config.averaging

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        target_BCHW = self.encoder.extend(batch.x_BCHW)  # margins too: else mirrored codes would not fit the images
        z_BChw = self.encoder.grid(target_BCHW)
        penalty = 0.5 * z_BChw.square().sum() / len(z_BChw)
        if noise is not None:
            z_BChw = self._add_noise(z_BChw, noise)
            z_BChw, target_BCHW = self._transform(z_BChw, target_BCHW, noise)
        output_BCHW = self.decoder.unclamped(z_BChw)
        scale = batch.x_BCHW[0].numel() / target_BCHW[0].numel()  # all images count as much as whole ones
        error = scale * (output_BCHW - target_BCHW).square().sum() / (2.0 * MSE_VARIANCE * len(target_BCHW))
        terms = {"reconstruction": error.detach(), "code_penalty": penalty.detach()}
        return Losses(error + self._config.code_penalty * penalty, terms, output_BCHW, target_BCHW)

    def _add_noise(self, z_BChw: Tensor, noise: torch.Generator) -> Tensor:
        """Codes with noise of a random strength each, relative to the standard deviation of their channel."""
        spread_1C11 = z_BChw.detach().std(dim=(0, 2, 3), keepdim=True)
        strength_B111 = self._config.code_noise * torch.rand(
            (len(z_BChw), 1, 1, 1), generator=noise, device=z_BChw.device
        )
        return z_BChw + strength_B111 * spread_1C11 * torch.randn(z_BChw.shape, generator=noise, device=z_BChw.device)

    def _transform(self, z_BChw: Tensor, x_BCHW: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Codes and images, transformed alike: now and then all halved in size, otherwise some of them mirrored."""
        share, height, width = self._config.equivariance, *z_BChw.shape[2:]
        is_even = height % 2 == 0 and width % 2 == 0
        if is_even and torch.rand((), generator=noise, device=noise.device).item() < share * _HALVED:
            return functional.avg_pool2d(z_BChw, 2), functional.avg_pool2d(x_BCHW, 2)
        mirrored_B111 = torch.rand((len(z_BChw), 1, 1, 1), generator=noise, device=z_BChw.device) < share
        return (
            torch.where(mirrored_B111, z_BChw.flip(3), z_BChw),
            torch.where(mirrored_B111, x_BCHW.flip(3), x_BCHW),
        )
