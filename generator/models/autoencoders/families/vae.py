"""The variational autoencoder: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014.

The posterior q(z|x) = N(mean(x), diag(exp(log_variance(x)))) and the prior p(z) = N(0, I). The loss is the negative of
the evidence lower bound (eq. 3), with the divergence weighted by beta (Higgins et al., ICLR 2017). A small beta keeps
images sharp and the aggregate posterior clustered, as the mixture that is fitted afterwards requires. With
``label_weight``, codes also have to tell their label to a linear layer, as in the supervised part of Kingma, Rezende,
Mohamed & Welling, "Semi-supervised learning with deep generative models", NeurIPS 2014.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.errors import SpecError
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.families.base import Autoencoder, Batch, Losses, reconstruction_loss
from generator.models.autoencoders.networks import Decoder, GaussianEncoder, channels_last
from generator.models.autoencoders.settings import TrainSettings


@final
class Vae(Autoencoder):
    """See the module. Fresh weights come from torch's global generator."""

    encoder: GaussianEncoder
    decoder: Decoder

    def __init__(self, config: VaeConfig, settings: TrainSettings, classes: int = 0) -> None:
        """Raises ``SpecError`` for a weight of labels without two classes."""
        super().__init__()
        if config.label_weight and classes < 2:
            raise SpecError("model.label_weight", "0 without two classes or more", config.label_weight)
        self.encoder, self.decoder = channels_last(GaussianEncoder(config)), channels_last(Decoder(config))
        self.label = nn.Linear(config.latent_dim, classes) if config.label_weight else None
        self._config, self._reconstruction = config, settings.reconstruction

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        mean_BD, log_variance_BD = self.encoder.posterior(batch.x_BCHW)
        z_BD = mean_BD if noise is None else reparametrised(mean_BD, log_variance_BD, noise)
        logits_BCHW = self.decoder.logits(z_BD)
        reconstruction = reconstruction_loss(logits_BCHW, batch.x_BCHW, self._reconstruction)
        divergence = kl_from_prior(mean_BD, log_variance_BD, self._config.free_bits)
        terms = {"reconstruction": reconstruction.detach(), "divergence": divergence.detach()}
        total = reconstruction + self._beta(progress) * divergence
        if self.label is not None and batch.labels_B is not None:
            surprise = functional.cross_entropy(self.label(z_BD), batch.labels_B)
            total, terms = total + self._config.label_weight * surprise, terms | {"label": surprise.detach()}
        return Losses(total=total, terms=terms, output_BCHW=torch.sigmoid(logits_BCHW))

    def _beta(self, progress: float) -> float:
        beta, warmup = self._config.beta, self._config.warmup
        return beta if progress >= warmup else beta * progress / warmup


def reparametrised(mean_BD: Tensor, log_variance_BD: Tensor, noise: torch.Generator) -> Tensor:
    """z_BD ~ q(z|x) as a differentiable function of its parameters (Kingma & Welling, section 2.4)."""
    epsilon_BD = torch.randn(mean_BD.shape, generator=noise, device=mean_BD.device)
    return mean_BD + torch.exp(0.5 * log_variance_BD) * epsilon_BD


def kl_from_prior(mean_BD: Tensor, log_variance_BD: Tensor, free_bits: float = 0.0) -> Tensor:
    """KL(q(z|x) || N(0, I)) in nats, as a mean over rows (Kingma & Welling, appendix B).

    A dimension whose mean over the batch is below ``free_bits`` counts as ``free_bits``, so that reducing it further
    gains nothing (Kingma et al., "Improved variational inference with inverse autoregressive flow", 2016, eq. 16).
    """
    per_dimension_BD = -0.5 * (1.0 + log_variance_BD - mean_BD.square() - log_variance_BD.exp())
    if free_bits == 0.0:
        return per_dimension_BD.sum() / len(mean_BD)
    return per_dimension_BD.mean(dim=0).clamp_min(free_bits).sum()
