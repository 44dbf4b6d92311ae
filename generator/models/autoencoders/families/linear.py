"""The linear autoencoder: one hidden layer without a non-linearity, on all pixels or on patches.

Baldi & Hornik, "Neural networks and principal component analysis", Neural Networks 1989: at its minimum the hidden
layer spans the same subspace as the principal components.
"""

from __future__ import annotations

from math import prod
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.models.autoencoders.config import LinearConfig
from generator.models.autoencoders.families.base import MSE_VARIANCE, Autoencoder, Batch, Losses
from generator.models.autoencoders.settings import TrainSettings


@final
class LinearEncoder(nn.Module):
    """x_BCHW -> z_BD: every patch p becomes W p + b; the code contains the patches row by row.

    The bias and the scale of each hidden unit are not learned: they give it mean 0 and variance 1 over the training
    images. The subspace is the same, but a learned bias would for a long time represent the mean image, which the
    output bias should.
    """

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        self._patch = config.patch_shape
        units = config.latent_dim // config.patches
        self.hidden = nn.Linear(config.channels * prod(self._patch), units, bias=False)
        self.standard = nn.BatchNorm1d(units, affine=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        patches_BPX = functional.unfold(x_BCHW, self._patch, stride=self._patch).transpose(1, 2)
        z_NK = self.standard(self.hidden(patches_BPX.flatten(0, 1)))
        z_BD: Tensor = z_NK.reshape(len(x_BCHW), -1)
        return z_BD


@final
class LinearDecoder(nn.Module):
    """z_BD -> x_BCHW, unbounded: the part h of the code that belongs to a patch becomes W' h + b'."""

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        width, height = config.image_size
        self._image, self._patch, self._patches = (height, width), config.patch_shape, config.patches
        self.output = nn.Linear(config.latent_dim // self._patches, config.channels * prod(self._patch))

    def forward(self, z_BD: Tensor) -> Tensor:
        patches_BPX = self.output(z_BD.reshape(len(z_BD), self._patches, -1))
        x_BCHW: Tensor = functional.fold(patches_BPX.transpose(1, 2), self._image, self._patch, stride=self._patch)
        return x_BCHW


@final
class LinearAutoencoder(Autoencoder):
    """See the module. The loss is always the squared error (not ``settings.reconstruction``), as pixels are unbounded.

    Its learning rate is ten times that of the deep families: the loss has saddle points, but no local minima.
    """

    encoder: LinearEncoder
    decoder: LinearDecoder
    learning_rate_factor = 10.0

    def __init__(self, config: LinearConfig, settings: TrainSettings, classes: int = 0) -> None:
        super().__init__()
        self.encoder, self.decoder = LinearEncoder(config), LinearDecoder(config)

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        x_BCHW = self.decoder(self.encoder(batch.x_BCHW))
        error = (x_BCHW - batch.x_BCHW).square().sum() / (2.0 * MSE_VARIANCE * len(x_BCHW))
        return Losses(total=error, terms={"reconstruction": error.detach()}, output_BCHW=x_BCHW)
