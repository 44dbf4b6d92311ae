"""A decoder behind the map of a latent distribution: one network from base points and labels to images."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


@final
class MappedDecoder(nn.Module):
    """(z_BD float32, labels_B int64) -> x_BCHW. The map computes in float32, the decoder in ``dtype``.

    ``labelled``: the decoder takes the labels too.
    """

    def __init__(self, latent_map: nn.Module, decoder: nn.Module, dtype: torch.dtype, *, labelled: bool) -> None:
        super().__init__()
        self.latent_map, self.decoder, self._dtype, self._labelled = latent_map, decoder, dtype, labelled

    def forward(self, z_BD: Tensor, labels_B: Tensor) -> Tensor:
        codes_BD = self.latent_map(z_BD, labels_B).to(self._dtype)
        x_BCHW: Tensor = self.decoder(codes_BD, labels_B) if self._labelled else self.decoder(codes_BD)
        return x_BCHW
