"""A decoder behind the map of a latent distribution: one network from base points and labels to images."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


@final
class MappedDecoder(nn.Module):
    """(z_BD float32, labels_B int64) -> x_BCHW. The map computes in float32, the decoder in ``dtype``."""

    def __init__(self, latent_map: nn.Module, decoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.latent_map, self.decoder, self._dtype = latent_map, decoder, dtype

    def forward(self, z_BD: Tensor, labels_B: Tensor) -> Tensor:
        x_BCHW: Tensor = self.decoder(self.latent_map(z_BD, labels_B).to(self._dtype))
        return x_BCHW
