"""The stacked autoencoder, pre-trained greedily: Bengio, Lamblin, Popovici & Larochelle, "Greedy layer-wise training of
deep networks", NIPS 2006.

A layer is an encoder block and the matching decoder block, between two grids; the last layer is the code. One after the
other, each learns to reconstruct the codes of the layer below (the image for the first layer), whose weights
are fixed meanwhile. Then all layers are fine-tuned together, from image to image.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from generator.models.autoencoders.config import LayerwiseConfig, grid_shapes
from generator.models.autoencoders.families.base import Autoencoder, Batch, Losses, reconstruction_loss
from generator.models.autoencoders.networks import Decoder, Encoder, channels_last
from generator.models.autoencoders.settings import TrainSettings


@final
class LayerwiseAutoencoder(Autoencoder):
    """See the module. Fresh weights come from torch's global generator.

    The holdout terms are ``reconstruction``, from image to image, and the error of each layer: ``layer 1`` (in nats, as
    ``reconstruction``) to ``layer n`` (mean squared error of the codes below).
    """

    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: LayerwiseConfig, settings: TrainSettings, classes: int = 0) -> None:
        super().__init__()
        self.encoder, self.decoder = channels_last(Encoder(config)), channels_last(Decoder(config))
        self.layer_count = len(grid_shapes(config.image_size))
        self.holdout_valid_from = config.pretraining
        self._reconstruction = settings.reconstruction

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        if progress < self.holdout_valid_from:
            return self._layer_losses(
                batch, min(self.layer_count - 1, int(progress / self.holdout_valid_from * self.layer_count))
            )
        logits_BCHW = self.decoder.logits(self.encoder(batch.x_BCHW))
        error = reconstruction_loss(logits_BCHW, batch.x_BCHW, self._reconstruction)
        terms = {"reconstruction": error.detach()}
        if noise is None:
            terms |= {
                f"layer {layer + 1}": self._layer_error(layer, batch).detach() for layer in range(self.layer_count)
            }
        return Losses(total=error, terms=terms, output_BCHW=torch.sigmoid(logits_BCHW))

    def _layer_losses(self, batch: Batch, layer: int) -> Losses:
        """The losses of one layer; the others have no gradient, so the optimiser does not change them."""
        error = self._layer_error(layer, batch)
        return Losses(total=error, terms={f"layer {layer + 1}": error.detach()}, output_BCHW=None)

    def _layer_error(self, layer: int, batch: Batch) -> Tensor:
        """The reconstruction error of ``layer`` (from 0) for the codes below it, which have no gradient."""
        with torch.no_grad():
            below_BCHW = self.encoder.trunk[:layer](batch.x_BCHW)
        if layer == 0:
            return reconstruction_loss(self._reconstruct_layer(layer, below_BCHW), batch.x_BCHW, self._reconstruction)
        return functional.mse_loss(self._reconstruct_layer(layer, below_BCHW), below_BCHW)

    def _reconstruct_layer(self, layer: int, below_BCHW: Tensor) -> Tensor:
        """The layer's input after its encoder block and decoder block; logits for the first layer."""
        if layer == self.layer_count - 1:
            z_BD = self.encoder.code(below_BCHW.flatten(1))
            above_BCHW: Tensor = self.decoder.unflatten(self.decoder.start(z_BD))
        else:
            above_BCHW = self.decoder.grow[self.layer_count - 2 - layer](self.encoder.trunk[layer](below_BCHW))
        return above_BCHW
