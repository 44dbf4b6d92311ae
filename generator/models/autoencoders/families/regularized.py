"""The regularised, deterministic autoencoder: Ghosh, Sajjadi, Vergari, Black & Schoelkopf, "From variational to
deterministic autoencoders", ICLR 2020.

The loss (eq. 11) is reconstruction + code_penalty * |z|^2 / 2 + a penalty that keeps the decoder smooth, as the noise
of the codes does in a variational autoencoder. Codes are sampled from a density that is fitted to them afterwards.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from generator.models.autoencoders.config import RegularizedConfig
from generator.models.autoencoders.families.base import Autoencoder, Batch, Losses, reconstruction_loss
from generator.models.autoencoders.networks import Decoder, Encoder, channels_last
from generator.models.autoencoders.settings import TrainSettings

_DIFFERENCE_STEP = 0.01  # of the difference quotient, in standard deviations of a direction
_HOLDOUT_SEED = 0


@final
class RegularizedAutoencoder(Autoencoder):
    """See the module. Fresh weights come from torch's global generator; the holdout always has the same directions.

    With ``spectral``, every call of ``losses`` first divides the decoder's weights by their largest singular values, so
    the evaluated and the saved weights are normalised too.
    """

    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: RegularizedConfig, settings: TrainSettings, classes: int = 0) -> None:
        super().__init__()
        self.encoder, self.decoder = channels_last(Encoder(config)), channels_last(Decoder(config))
        self._config, self._reconstruction = config, settings.reconstruction

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        if self._config.decoder_penalty == "spectral":
            spectral_normalise(self.decoder)
        z_BD = self.encoder(batch.x_BCHW)
        if self._config.decoder_penalty == "gradient":
            logits_BCHW, penalty = self._decode_with_jacobian(z_BD, noise)
        else:
            logits_BCHW = self.decoder.logits(z_BD)
            l2 = self._config.decoder_penalty == "l2"
            penalty = squared_norm(self.decoder) if l2 else torch.zeros((), device=z_BD.device)
        reconstruction = reconstruction_loss(logits_BCHW, batch.x_BCHW, self._reconstruction)
        size = 0.5 * z_BD.square().sum() / len(z_BD)
        total = reconstruction + self._config.code_penalty * size + self._config.decoder_weight * penalty
        terms = {"reconstruction": reconstruction, "code": size, "decoder": penalty}
        output_BCHW = torch.sigmoid(logits_BCHW)
        return Losses(total=total, terms={k: v.detach() for k, v in terms.items()}, output_BCHW=output_BCHW)

    def _decode_with_jacobian(self, z_BD: Tensor, noise: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The logits, and an estimate of the squared Frobenius norm of the decoder's Jacobian, as a mean over rows.

        E |J v|^2 = |J|^2 for v ~ N(0, I) (Hutchinson 1990). J v is computed as a difference quotient, so no second
        derivative is needed. Both points are decoded in one batch, so that batch normalisation treats them alike.
        """
        if noise is None:
            noise = torch.Generator(z_BD.device).manual_seed(_HOLDOUT_SEED)
        direction_BD = torch.randn(z_BD.shape, generator=noise, device=z_BD.device)
        logits_BCHW, shifted_BCHW = self.decoder.logits(
            torch.cat([z_BD, z_BD + _DIFFERENCE_STEP * direction_BD])
        ).chunk(2)
        derivative_BCHW = (torch.sigmoid(shifted_BCHW) - torch.sigmoid(logits_BCHW)) / _DIFFERENCE_STEP
        return logits_BCHW, derivative_BCHW.square().sum() / len(z_BD)


def squared_norm(network: nn.Module) -> Tensor:
    """The sum of squares of all weights except biases and normalisation parameters."""
    return torch.stack([weight.square().sum() for weight in network.parameters() if weight.dim() > 1]).sum()


@torch.no_grad()
def spectral_normalise(network: nn.Module) -> None:
    """Divide each linear or transposed convolutional layer's weight by its largest singular value, in place.

    Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018: a kernel is treated as
    a matrix of output channels by all other dimensions. The value is exact, without power iteration and its state.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
            layer.weight.div_(largest_singular_value(layer).clamp_min(1e-12))


def largest_singular_value(layer: nn.Linear | nn.ConvTranspose2d) -> Tensor:
    """The largest singular value of the layer's weight, as a matrix of outputs by all other dimensions; a scalar."""
    weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.transpose(0, 1)
    matrix_RC = weight.flatten(1)
    if len(matrix_RC) > matrix_RC.shape[1]:
        matrix_RC = matrix_RC.T
    squared_R: Tensor = torch.linalg.eigvalsh(matrix_RC @ matrix_RC.T)
    return squared_R[-1].clamp_min(0.0).sqrt()
