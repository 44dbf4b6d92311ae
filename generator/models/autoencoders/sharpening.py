"""Two ways to sharper images for any family: losses on its reconstructions, which the training loop adds to its own.

``feature_loss``: the maps of a frozen classifier must be the same for an image and its reconstruction (Johnson, Alahi &
Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016). ``patch_loss``: late in the
training a small discriminator of patches learns to tell reconstructions from images (PatchGAN; Isola, Zhu, Zhou &
Efros, "Image-to-image translation with conditional adversarial networks", CVPR 2017).
"""

from __future__ import annotations

from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from generator.errors import SpecError
from generator.models.autoencoders.settings import TrainSettings

PATCH_LOSS_START = 0.6  # share of all steps before the patch discriminator is switched on
_GRADIENT_PENALTY = 1.0
_WIDTH = 32


class FeatureNetwork(Protocol):
    """A frozen network on the device of the training; gradients pass through it to its input."""

    def maps(self, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of images in [0, 1], on one or more levels."""


@final
class SharpeningLosses(nn.Module):
    """The patch discriminator, where there is one, is the only state; the feature network is none of it.

    ``settled``: as for a family. A discriminator's judgement is no measure and the holdout's loss rises when it is
    switched on, so that with one the last epoch counts, whatever its loss.
    """

    def __init__(self, settings: TrainSettings, channels: int, features: FeatureNetwork | None = None) -> None:
        """Fresh weights come from torch's global generator. Raises ``SpecError`` for ``feature_loss`` alone."""
        super().__init__()
        if settings.feature_loss and features is None:
            raise SpecError("train.feature_loss", "a feature network, or 0", settings.feature_loss)
        self._feature_loss, self._patch_loss = settings.feature_loss, settings.patch_loss
        self._features = (features,) if features is not None and settings.feature_loss else ()
        self.discriminator = _patch_discriminator(channels) if settings.patch_loss else None
        self.holdout_valid_from = 1.0 if settings.patch_loss else 0.0

    def training_loss(self, x_BCHW: Tensor, output_BCHW: Tensor, progress: float) -> Tensor:
        """What training adds to the losses of the family: a scalar with a gradient."""
        total = self._feature_loss * self.feature_distance(x_BCHW, output_BCHW)
        if self.discriminator is not None and progress >= PATCH_LOSS_START:
            total = total + self._adversarial_loss(self.discriminator, x_BCHW, output_BCHW)
        return total

    def holdout_loss(self, x_BCHW: Tensor, output_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added on the holdout, deterministic, and its terms by name."""
        distance = self.feature_distance(x_BCHW, output_BCHW)
        return self._feature_loss * distance, {"features": distance} if self._features else {}

    def feature_distance(self, x_BCHW: Tensor, output_BCHW: Tensor) -> Tensor:
        """Mean squared difference of the feature maps as a share of their mean square; a mean over levels; a scalar."""
        levels = []
        for features in self._features:
            with torch.no_grad():
                wanted = features.maps(x_BCHW)
            for want_BFHW, got_BFHW in zip(wanted, features.maps(output_BCHW), strict=True):
                levels.append((got_BFHW - want_BFHW).square().mean() / want_BFHW.square().mean().clamp_min(1e-6))
        return torch.stack(levels).mean() if levels else torch.zeros((), device=x_BCHW.device)

    def _adversarial_loss(self, discriminator: nn.Module, x_BCHW: Tensor, output_BCHW: Tensor) -> Tensor:
        """The family's term, which sees the discriminator's weights detached, and the discriminator's, which sees the
        images detached; the latter pays for its slope at real ones (R1; Mescheder, Geiger & Nowozin, ICML 2018)."""
        frozen = {name: weight.detach() for name, weight in discriminator.named_parameters()}
        taken_B1PP = functional_call(discriminator, frozen, (output_BCHW,))
        deceived = functional.softplus(-taken_B1PP).sum() / len(x_BCHW)  # as the reconstruction, summed over the image
        real_BCHW = x_BCHW.detach().requires_grad_()
        real_B1PP, made_B1PP = discriminator(real_BCHW), discriminator(output_BCHW.detach())
        told_apart = functional.softplus(-real_B1PP).mean() + functional.softplus(made_B1PP).mean()
        (slope_BCHW,) = torch.autograd.grad(real_B1PP.sum(), real_BCHW, create_graph=True)
        steepness: Tensor = slope_BCHW.square().sum() / real_B1PP.numel()
        contest: Tensor = self._patch_loss * deceived + told_apart + 0.5 * _GRADIENT_PENALTY * steepness
        return contest


def _patch_discriminator(channels: int) -> nn.Module:
    """x_BCHW -> one logit for each patch of 10 x 10 pixels, every fourth one: how much more likely it is real."""
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(_WIDTH, 2 * _WIDTH, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * _WIDTH, 1, 1),
    )
