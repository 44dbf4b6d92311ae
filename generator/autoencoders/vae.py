"""The variational autoencoder: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014.

The posterior q(z|x) = N(mean(x), diag(exp(log_variance(x)))) and the prior p(z) = N(0, I). The loss is the negative of
the evidence lower bound (eq. 3), with the divergence weighted by beta (Higgins et al., ICLR 2017): a small beta keeps
images sharp and leaves the aggregate posterior clustered, which is what the mixture fitted to it afterwards needs.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from generator.autoencoders.config import TrainSettings, VaeConfig
from generator.autoencoders.family import Autoencoder, Losses
from generator.autoencoders.networks import build_decoder, build_encoder

_MSE_VARIANCE = 0.05


@final
class Vae(Autoencoder):
    """See the module. Fresh weights come from torch's global generator."""

    def __init__(self, config: VaeConfig, settings: TrainSettings) -> None:
        super().__init__()
        self.encoder, self.decoder = build_encoder(config), build_decoder(config)
        self._beta, self._warmup = settings.beta, settings.warmup
        self._reconstruction = settings.reconstruction

    def losses(self, x_BCHW: Tensor, *, progress: float, noise: torch.Generator | None) -> Losses:
        mean_BD, log_variance_BD = self.encoder.posterior(x_BCHW)
        z_BD = mean_BD if noise is None else reparametrised(mean_BD, log_variance_BD, noise)
        reconstruction = self._reconstruction_loss(self.decoder.logits(z_BD), x_BCHW)
        divergence = divergence_from_prior(mean_BD, log_variance_BD)
        beta = self._beta if progress >= self._warmup else self._beta * progress / self._warmup
        terms = {"reconstruction": reconstruction.detach(), "divergence": divergence.detach()}
        return Losses(total=reconstruction + beta * divergence, terms=terms)

    def _reconstruction_loss(self, logits_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """-log p(x|z) up to a constant: mean over rows of the sum over pixels and channels."""
        if self._reconstruction == "bce":
            pixels = functional.binary_cross_entropy_with_logits(logits_BCHW, x_BCHW, reduction="sum")
        else:
            pixels = (torch.sigmoid(logits_BCHW) - x_BCHW).square().sum() / (2.0 * _MSE_VARIANCE)
        return pixels / len(x_BCHW)


def reparametrised(mean_BD: Tensor, log_variance_BD: Tensor, noise: torch.Generator) -> Tensor:
    """z_BD ~ q(z|x) as a differentiable function of its parameters (Kingma & Welling, section 2.4)."""
    epsilon_BD = torch.randn(mean_BD.shape, generator=noise, device=mean_BD.device)
    return mean_BD + torch.exp(0.5 * log_variance_BD) * epsilon_BD


def divergence_from_prior(mean_BD: Tensor, log_variance_BD: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, as a mean over rows (Kingma & Welling, appendix B)."""
    per_dimension_BD = 1.0 + log_variance_BD - mean_BD.square() - log_variance_BD.exp()
    return -0.5 * per_dimension_BD.sum() / len(mean_BD)
