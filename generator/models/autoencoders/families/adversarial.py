"""The adversarial autoencoder: Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial autoencoders", 2015.

A discriminator learns to distinguish codes from draws of the prior, and the encoder learns to make them
indistinguishable. The prior is N(0, I). With ``conditioned`` (section 2.3) it is a Gaussian N(centre of the class, I)
for every class, and the label is an input of the discriminator.

One optimiser and one backward pass train both: the encoder's term uses detached discriminator weights, the
discriminator's term uses detached codes.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from generator.errors import SpecError
from generator.models.autoencoders.config import AdversarialConfig
from generator.models.autoencoders.families.base import Autoencoder, Batch, Losses, reconstruction_loss
from generator.models.autoencoders.networks import Decoder, Encoder, channels_last
from generator.models.autoencoders.settings import TrainSettings

_CENTRE_DISTANCE = 6.0  # distance between the nearest two centres, in standard deviations
_HIDDEN = 256
_GRADIENT_PENALTY = 3.0  # weight of the discriminator's squared gradient


@final
class AdversarialAutoencoder(Autoencoder):
    """See the module. Fresh weights come from torch's global generator. Raises ``SpecError`` for ``conditioned``
    without labels.

    The loss of a learning discriminator does not measure how well codes match the prior. On the holdout the closed-form
    term ``mismatch`` (``squared_mmd``) is used instead.
    """

    encoder: Encoder
    decoder: Decoder
    _centres_KD: Tensor

    def __init__(self, config: AdversarialConfig, settings: TrainSettings, classes: int = 0) -> None:
        super().__init__()
        if config.conditioned and classes == 0:
            raise SpecError("model.conditioned", "a source with labels", "an unlabelled one", "train without it")
        self.encoder, self.decoder = channels_last(Encoder(config)), channels_last(Decoder(config))
        self._classes = classes if config.conditioned else 0
        self.discriminator = _discriminator(config.latent_dim + self._classes)
        self.register_buffer("_centres_KD", prior_centres(self._classes, config.latent_dim), persistent=False)
        self._config, self._reconstruction = config, settings.reconstruction

    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        z_BD = self.encoder(batch.x_BCHW)
        logits_BCHW = self.decoder.logits(z_BD)
        reconstruction = reconstruction_loss(logits_BCHW, batch.x_BCHW, self._reconstruction)
        terms = {"reconstruction": reconstruction}
        if noise is None:
            terms["mismatch"] = squared_mmd(z_BD - self._centre_of(batch))
            total = reconstruction + self._config.adversary * terms["mismatch"]
        else:
            terms["adversary"], terms["discriminator"] = self._adversarial_terms(batch, z_BD, noise)
            total = reconstruction + self._config.adversary * terms["adversary"] + terms["discriminator"]
        output_BCHW = torch.sigmoid(logits_BCHW)
        return Losses(total=total, terms={k: v.detach() for k, v in terms.items()}, output_BCHW=output_BCHW)

    def _adversarial_terms(self, batch: Batch, z_BD: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """(the encoder's term, the discriminator's), both scalars.

        The discriminator has a gradient penalty at codes and at prior draws (R1 and R2 of Mescheder, Geiger & Nowozin,
        "Which training methods for GANs do actually converge?", ICML 2018). Without it the codes diverge.
        """
        code_inputs_BX = self._discriminator_input(batch, z_BD)
        prior_BD = torch.randn(z_BD.shape, generator=noise, device=z_BD.device) + self._centre_of(batch)
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        encoder_logits_B1 = functional_call(self.discriminator, frozen, (code_inputs_BX,))
        inputs_2BX = torch.cat([code_inputs_BX.detach(), self._discriminator_input(batch, prior_BD)]).requires_grad_()
        logits_2B1 = self.discriminator(inputs_2BX)
        (gradient_2BX,) = torch.autograd.grad(logits_2B1.sum(), inputs_2BX, create_graph=True)
        squared_gradient = gradient_2BX[:, : z_BD.shape[1]].square().sum() / len(z_BD)
        codes_B1, prior_B1 = logits_2B1.chunk(2)
        classification_loss = functional.softplus(codes_B1).mean() + functional.softplus(-prior_B1).mean()
        encoder_loss = functional.softplus(-encoder_logits_B1).mean()
        return encoder_loss, classification_loss + 0.5 * _GRADIENT_PENALTY * squared_gradient

    def _discriminator_input(self, batch: Batch, z_BD: Tensor) -> Tensor:
        """Input of the discriminator: the code, and the one-hot label if conditioned."""
        if not self._classes:
            return z_BD
        return torch.cat([z_BD, functional.one_hot(self._labels(batch), self._classes).to(z_BD.dtype)], dim=1)

    def _centre_of(self, batch: Batch) -> Tensor:
        return self._centres_KD[self._labels(batch)] if self._classes else self._centres_KD[:1]

    @staticmethod
    def _labels(batch: Batch) -> Tensor:
        assert batch.labels_B is not None
        return batch.labels_B


def squared_mmd(z_BD: Tensor) -> Tensor:
    """The squared maximum mean discrepancy between codes and N(0, I), a scalar from 0 (equal) to 2.

    The kernel is exp(-|a - b|^2 / (2 D)). Its means under N(0, I) have a closed form (Baringhaus & Henze, "A consistent
    test for multivariate normality based on the empirical characteristic function", 1988), so no draws are needed.
    """
    dims = z_BD.shape[1]
    between_BB = torch.exp(-torch.cdist(z_BD, z_BD).square() / (2.0 * dims))
    across_B = (1.0 + 1.0 / dims) ** (-dims / 2.0) * torch.exp(-z_BD.square().sum(dim=1) / (2.0 * (dims + 1.0)))
    within = (1.0 + 2.0 / dims) ** (-dims / 2.0)
    squared: Tensor = between_BB.mean() - 2.0 * across_B.mean() + within
    return squared


def prior_centres(classes: int, dims: int) -> Tensor:
    """centres_KD of the prior: one per class, the nearest two at ``_CENTRE_DISTANCE``; the origin without classes.

    In one dimension evenly spaced, in two on a circle. In more dimensions on the axes in both directions, or in fixed
    random directions if there are more classes than those.
    """
    if classes < 2:
        return torch.zeros(1, dims)
    if dims == 1:
        return _CENTRE_DISTANCE * (torch.arange(classes, dtype=torch.float32) - 0.5 * (classes - 1))[:, None]
    if dims == 2:
        angle_K = torch.arange(classes) * (2.0 * math.pi / classes)
        directions_KD = torch.stack([angle_K.cos(), angle_K.sin()], dim=1)
    elif classes <= 2 * dims:
        directions_KD = torch.cat([torch.eye(dims), -torch.eye(dims)])[:classes]
    else:
        directions_KD = functional.normalize(torch.randn(classes, dims, generator=torch.Generator().manual_seed(0)))
    centres_KD: Tensor = directions_KD * (_CENTRE_DISTANCE / torch.pdist(directions_KD).min())
    return centres_KD


def _discriminator(inputs: int) -> nn.Module:
    """A code (and label) -> the logit of the probability that it was drawn from the prior."""
    return nn.Sequential(
        nn.Linear(inputs, _HIDDEN),
        nn.LeakyReLU(0.2),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.LeakyReLU(0.2),
        nn.Linear(_HIDDEN, 1),
    )
