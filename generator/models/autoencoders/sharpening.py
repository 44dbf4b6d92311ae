"""Two losses for sharper images, for any family; the training loop adds them to the loss of the family.

``feature_loss``: the difference between a frozen classifier's feature maps of an image and of its reconstruction
(Johnson, Alahi & Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016).
``patch_loss``: late in the training, a small patch discriminator learns to distinguish reconstructions from images
(PatchGAN; Isola, Zhu, Zhou & Efros, "Image-to-image translation with conditional adversarial networks", CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from generator.errors import SpecError
from generator.models.autoencoders.settings import TrainSettings

PATCH_LOSS_START = 0.6  # share of all steps after which the patch discriminator is used
_GRADIENT_PENALTY = 1.0
_WIDTH = 32


class FeatureNetwork(Protocol):
    """A frozen network on the training device; its output is differentiable in its input."""

    def maps(self, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of images in [0, 1], on one or more levels."""


@final
class SharpeningLosses(nn.Module):
    """The only state is the patch discriminator, if there is one; the feature network is not part of it.

    ``holdout_valid_from``: as in ``Autoencoder``. With a patch discriminator the holdout loss is not comparable over
    time (it rises when the discriminator is switched on), so the last epoch is used, whatever its loss.
    """

    def __init__(self, settings: TrainSettings, channels: int, features: FeatureNetwork | None = None) -> None:
        """Fresh weights come from torch's global generator. Raises ``SpecError`` if ``features`` are missing."""
        super().__init__()
        if settings.feature_loss and features is None:
            raise SpecError("train.feature_loss", "a feature network, or 0", settings.feature_loss)
        self._feature_loss, self._patch_loss = settings.feature_loss, settings.patch_loss
        self._features = (features,) if features is not None and settings.feature_loss else ()
        self.discriminator = _patch_discriminator(channels) if settings.patch_loss else None
        self.holdout_valid_from = 1.0 if settings.patch_loss else 0.0

    def training_loss(self, x_BCHW: Tensor, output_BCHW: Tensor, progress: float) -> Tensor:
        """The loss that is added to that of the family in training: a scalar with a gradient."""
        total = self._feature_loss * self.feature_distance(x_BCHW, output_BCHW)
        if self.discriminator is not None and progress >= PATCH_LOSS_START:
            total = total + self._adversarial_loss(self.discriminator, x_BCHW, output_BCHW)
        return total

    def holdout_loss(self, x_BCHW: Tensor, output_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The deterministic loss that is added on the holdout, and its terms by name."""
        distance = self.feature_distance(x_BCHW, output_BCHW)
        return self._feature_loss * distance, {"features": distance} if self._features else {}

    def feature_distance(self, x_BCHW: Tensor, output_BCHW: Tensor) -> Tensor:
        """``map_distance`` of the two; 0 without a feature network. A scalar."""
        for features in self._features:
            with torch.no_grad():
                target_maps = features.maps(x_BCHW)
            return map_distance(target_maps, features.maps(output_BCHW))
        return torch.zeros((), device=x_BCHW.device)

    def _adversarial_loss(self, discriminator: nn.Module, x_BCHW: Tensor, output_BCHW: Tensor) -> Tensor:
        """The sum of the family's term (with detached discriminator weights) and the discriminator's (with detached
        images and a gradient penalty at real images: R1; Mescheder, Geiger & Nowozin, ICML 2018)."""
        frozen = {name: weight.detach() for name, weight in discriminator.named_parameters()}
        output_logits_B1PP = functional_call(discriminator, frozen, (output_BCHW,))
        # summed over the image, like the reconstruction loss
        generator_loss = functional.softplus(-output_logits_B1PP).sum() / len(x_BCHW)
        real_BCHW = x_BCHW.detach().requires_grad_()
        real_B1PP, fake_B1PP = discriminator(real_BCHW), discriminator(output_BCHW.detach())
        classification_loss = functional.softplus(-real_B1PP).mean() + functional.softplus(fake_B1PP).mean()
        (gradient_BCHW,) = torch.autograd.grad(real_B1PP.sum(), real_BCHW, create_graph=True)
        squared_gradient: Tensor = gradient_BCHW.square().sum() / real_B1PP.numel()
        total: Tensor = (
            self._patch_loss * generator_loss + classification_loss + 0.5 * _GRADIENT_PENALTY * squared_gradient
        )
        return total


def map_distance(target_maps: Sequence[Tensor], output_maps: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of feature maps relative to their mean square, averaged over levels; a scalar."""
    levels = [
        (output_BFHW - target_BFHW).square().mean() / target_BFHW.square().mean().clamp_min(1e-6)
        for target_BFHW, output_BFHW in zip(target_maps, output_maps, strict=True)
    ]
    return torch.stack(levels).mean()


def _patch_discriminator(channels: int) -> nn.Module:
    """x_BCHW -> the logit that a patch is real, for patches of 10 x 10 pixels with a stride of 4."""
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(_WIDTH, 2 * _WIDTH, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * _WIDTH, 1, 1),
    )
