"""A discriminator of real images and sampled ones that looks at their feature maps and at their labels.

It judges the maps of a frozen classifier, one head a level, as in "Projected GANs converge faster" (Sauer, Chitta,
Müller & Geiger, NeurIPS 2021), and the pixels. The label enters by a projection (Miyato & Koyama, "cGANs with
projection discriminator", ICLR 2018); all weights are spectrally normalised (Miyato et al., ICLR 2018).

Legend: B batch, C channels, F feature maps, H height, W width, P patches. Images are float32 in [0, 1], NCHW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from generator.models.autoencoders.sharpening import FeatureNetwork

_WIDTH, _PIXEL_WIDTH, _SLOPE = 64, 32, 0.2


class LabelFeatures(FeatureNetwork, Protocol):
    """A frozen classifier whose maps a loss can look at."""

    def classify(self, last_BFHW: Tensor) -> Tensor:
        """logits_BC of images whose last maps are ``last_BFHW``."""


@final
class LabelDiscriminator(nn.Module):
    """(x_BCHW, maps of ``features``, labels_B) -> logits_BP of patches, one tensor a level and one for pixels: high for
    real images of their label. Maps are divided by their root mean square, so that levels count alike."""

    def __init__(self, channels: int, classes: int, real_maps: Sequence[Tensor]) -> None:
        """``real_maps``: the maps of some real images. Fresh weights come from torch's global generator."""
        super().__init__()
        self._scales = tuple(float(level.square().mean().sqrt().clamp_min(1e-6)) for level in real_maps)
        self.levels = nn.ModuleList(_Head(level.shape[1], classes) for level in real_maps)
        self.pixels = spectral_norm(nn.Conv2d(channels, _PIXEL_WIDTH, 4, stride=2, padding=1))
        self.patches = _Head(_PIXEL_WIDTH, classes)

    def forward(self, x_BCHW: Tensor, maps: Sequence[Tensor], labels_B: Tensor) -> list[Tensor]:
        edges_BFHW = functional.leaky_relu(self.pixels(x_BCHW - 0.5), _SLOPE)
        logits = [
            head(level / scale, labels_B) for head, level, scale in zip(self.levels, maps, self._scales, strict=True)
        ]
        return [*logits, self.patches(edges_BFHW, labels_B)]


def hinge_loss(real: Sequence[Tensor], sampled: Sequence[Tensor]) -> Tensor:
    """The discriminator's loss of the logits of real images and of sampled ones, a mean over levels; a scalar."""
    terms = [
        functional.relu(1.0 - right).mean() + functional.relu(1.0 + wrong).mean()
        for right, wrong in zip(real, sampled, strict=True)
    ]
    return torch.stack(terms).mean()


def deception_loss(sampled: Sequence[Tensor]) -> Tensor:
    """The decoder's loss of the logits of its images: low where they pass for real ones of their label; a scalar."""
    return -torch.stack([level.mean() for level in sampled]).mean()


@final
class _Head(nn.Module):
    def __init__(self, maps: int, classes: int) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(maps, _WIDTH, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1))
        self.any_label = spectral_norm(nn.Conv2d(_WIDTH, 1, 1))
        self.label = spectral_norm(nn.Embedding(classes, _WIDTH))

    def forward(self, maps_BFHW: Tensor, labels_B: Tensor) -> Tensor:
        seen_BFHW = functional.leaky_relu(self.first(maps_BFHW), _SLOPE)
        seen_BFHW = functional.leaky_relu(self.second(seen_BFHW), _SLOPE)
        matches_BHW = (self.label(labels_B)[:, :, None, None] * seen_BFHW).sum(dim=1)
        logits_BP: Tensor = self.any_label(seen_BFHW).flatten(1) + matches_BHW.flatten(1)
        return logits_BP
