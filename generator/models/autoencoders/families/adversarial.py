"""The adversarial autoencoder: Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial autoencoders", 2015.

A discriminator learns to tell codes from draws of the prior, and the encoder learns to be taken for the prior. The
prior is N(0, I), or with ``conditioned`` (section 2.3) a Gaussian N(centre of the class, I) for every class, and the
discriminator is told the label.

One optimiser and one backward pass serve both: the encoder's term sees the discriminator's weights detached, the
discriminator's term sees the codes detached.
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

_CENTRE_DISTANCE = 6.0  # distance of the nearest two centres, in standard deviations
_HIDDEN = 256
_GRADIENT_PENALTY = 3.0  # what the discriminator pays for the squares of its slopes


@final
class AdversarialAutoencoder(Autoencoder):
    """See the module. Fresh weights come from torch's global generator. Raises ``SpecError`` for ``conditioned``
    without labels.

    The discriminator's own loss is no measure of a match, as it learns too; the holdout is judged by the closed-form
    ``mismatch`` in its place.
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

        The discriminator pays for being steep at codes and at draws, R1 and R2 of Mescheder, Geiger & Nowozin, "Which
        training methods for GANs do actually converge?", ICML 2018: without, codes run away from it for good.
        """
        seen_BX = self._discriminator_input(batch, z_BD)
        drawn_BD = torch.randn(z_BD.shape, generator=noise, device=z_BD.device) + self._centre_of(batch)
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        taken_B1 = functional_call(self.discriminator, frozen, (seen_BX,))
        both_2BX = torch.cat([seen_BX.detach(), self._discriminator_input(batch, drawn_BD)]).requires_grad_()
        told_2B1 = self.discriminator(both_2BX)
        (slope_2BX,) = torch.autograd.grad(told_2B1.sum(), both_2BX, create_graph=True)
        steepness = slope_2BX[:, : z_BD.shape[1]].square().sum() / len(z_BD)
        codes_B1, prior_B1 = told_2B1.chunk(2)
        told_apart = functional.softplus(codes_B1).mean() + functional.softplus(-prior_B1).mean()
        return functional.softplus(-taken_B1).mean(), told_apart + 0.5 * _GRADIENT_PENALTY * steepness

    def _discriminator_input(self, batch: Batch, z_BD: Tensor) -> Tensor:
        """What the discriminator sees of a code: itself, and its label where that counts."""
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
    """How far codes are from N(0, I): the squared maximum mean discrepancy, a scalar from 0 to 2, 0 for no
    difference but what the number of codes lets see.

    The kernel is exp(-|a - b|^2 / (2 D)). Its means against N(0, I) are known (Baringhaus & Henze, "A consistent test
    for multivariate normality based on the empirical characteristic function", 1988), so that nothing is drawn.
    """
    dims = z_BD.shape[1]
    between_BB = torch.exp(-torch.cdist(z_BD, z_BD).square() / (2.0 * dims))
    across_B = (1.0 + 1.0 / dims) ** (-dims / 2.0) * torch.exp(-z_BD.square().sum(dim=1) / (2.0 * (dims + 1.0)))
    within = (1.0 + 2.0 / dims) ** (-dims / 2.0)
    squared: Tensor = between_BB.mean() - 2.0 * across_B.mean() + within
    return squared


def prior_centres(classes: int, dims: int) -> Tensor:
    """centres_KD of the prior: the origin without classes, else one a class, the nearest two ``_APART`` from another.

    On a line evenly, in the plane on a circle, beyond on the axes in both directions, and where those do not suffice
    in random directions, the same ones always.
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
    """A code (and label) -> one logit: how much more likely it is of the prior."""
    return nn.Sequential(
        nn.Linear(inputs, _HIDDEN),
        nn.LeakyReLU(0.2),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.LeakyReLU(0.2),
        nn.Linear(_HIDDEN, 1),
    )
