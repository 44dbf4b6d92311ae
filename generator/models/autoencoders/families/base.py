"""The base class of the autoencoder families: two networks and a loss.

Legend: B batch, C channels, H height, W width, D latent dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MSE_VARIANCE = 0.05


@dataclass(frozen=True)
class Batch:
    """Images in [0, 1], float32, channels last; ``labels_B`` int64, or ``None`` if unlabelled."""

    x_BCHW: Tensor
    labels_B: Tensor | None


@dataclass(frozen=True)
class Losses:
    """``total``: the scalar to minimise, with a gradient. ``terms``: its parts by name, as detached scalars.

    ``output_BCHW``: the reconstructions in [0, 1], with a gradient, for additional losses; ``None`` if no whole image
    was reconstructed (only before ``holdout_valid_from``). ``target_BCHW``: the images that it is compared to, if these
    are not the images of the batch.
    """

    total: Tensor
    terms: dict[str, Tensor]
    output_BCHW: Tensor | None
    target_BCHW: Tensor | None = None


class Autoencoder(nn.Module, ABC):
    """Base of all families: each is one file with one final class, built from (config, settings, classes).

    ``encoder`` maps x_BCHW to codes z_BD, and ``decoder`` z_BD to x_BCHW; codes with a shape are flat between the two.
    ``holdout_valid_from``: the share of all steps after which the holdout loss is meaningful; earlier epochs are never
    best and do not count towards patience. ``learning_rate_factor``: multiplies the learning rate of the settings.
    ``averaging``: half-life of the moving average of the weights, as a share of all steps, and the result of the
    training is then the average; 0: no average.
    """

    encoder: nn.Module
    decoder: nn.Module
    holdout_valid_from: float = 0.0
    learning_rate_factor: float = 1.0
    averaging: float = 0.0

    @abstractmethod
    def losses(self, batch: Batch, *, progress: float, noise: torch.Generator | None) -> Losses:
        """The losses of a batch of images, as means over its rows.

        ``progress`` in [0, 1] is the share of all training steps done. ``noise`` is the only source of randomness;
        with ``None`` the losses are deterministic, for evaluation on the holdout.
        """


def reconstruction_loss(logits_BCHW: Tensor, x_BCHW: Tensor, kind: str) -> Tensor:
    """-log p(x|z) up to a constant: mean over rows of the sum over pixels and channels.

    ``kind``: ``bce`` (a Bernoulli per pixel) or ``mse`` (a Gaussian of variance ``MSE_VARIANCE``).
    """
    if kind == "bce":
        pixels = functional.binary_cross_entropy_with_logits(logits_BCHW, x_BCHW, reduction="sum")
    else:
        pixels = (torch.sigmoid(logits_BCHW) - x_BCHW).square().sum() / (2.0 * MSE_VARIANCE)
    return pixels / len(x_BCHW)
