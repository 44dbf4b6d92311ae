"""A residual network for measuring usefulness with an architecture unlike the product's own classifier.

The product uses one kind of network to sharpen images, to judge them and to measure them, so a good result could be an
artefact of that network. This one has residual blocks, group normalisation, GELU, strided convolutions instead of
pooling, global average pooling, and is trained by AdamW.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.models.features.classifier import LabelledImages

STEPS, BATCH, PEAK_RATE, WEIGHT_DECAY = 2000, 128, 4e-3, 1e-2
_GROUPS, _WIDTHS, _SHIFT = 4, (24, 24, 48, 96), 2


class Block(nn.Module):
    """Pre-activation residual block (He et al., "Identity mappings in deep residual networks", 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(_GROUPS, before), nn.GELU(), nn.Conv2d(before, after, 3, stride, 1))
        self.second = nn.Sequential(nn.GroupNorm(_GROUPS, after), nn.GELU(), nn.Conv2d(after, after, 3, 1, 1))
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        changed_BCHW: Tensor = self.skip(x_BCHW) + self.second(self.first(x_BCHW))
        return changed_BCHW


def residual_accuracy(
    images: LabelledImages, test: LabelledImages, *, classes: int, seed: int, steps: int = STEPS
) -> float:
    """Accuracy on ``test`` of a network trained on ``images`` for ``steps`` steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(images.images_NHWC.shape[3], classes)
        optimizer = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
        images_NCHW, labels_N = (
            torch.from_numpy(images.images_NHWC).permute(0, 3, 1, 2),
            torch.from_numpy(images.labels_N),
        )
        for _ in range(steps):
            rows_B = torch.randint(len(images), (BATCH,))
            loss = functional.cross_entropy(network(_shifted(images_NCHW[rows_B])), labels_N[rows_B])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
    return _accuracy(network.eval(), test)


def _network(channels: int, classes: int) -> nn.Module:
    stem, *rest = _WIDTHS
    blocks = [Block(before, after, 1 if before == after else 2) for before, after in zip(_WIDTHS, rest, strict=False)]
    ends = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(rest[-1], classes))
    return nn.Sequential(nn.Conv2d(channels, stem, 5, 2, 2), *blocks, *ends)


def _shifted(images_BCHW: Tensor) -> Tensor:
    """uint8 to floats around zero; the whole batch is shifted by up to ``_SHIFT`` pixels."""
    height, width = images_BCHW.shape[2:]
    padded_BCHW = functional.pad(_floats(images_BCHW), (_SHIFT,) * 4)
    y, x = torch.randint(2 * _SHIFT + 1, (2,)).tolist()
    return padded_BCHW[:, :, y : y + height, x : x + width]


def _floats(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.float() / 255.0 - 0.5


@torch.inference_mode()
def _accuracy(network: nn.Module, test: LabelledImages) -> float:
    parts = torch.from_numpy(test.images_NHWC).permute(0, 3, 1, 2).split(1000)
    predicted_N = torch.cat([network(_floats(part_BCHW)).argmax(dim=1) for part_BCHW in parts])
    return float((predicted_N == torch.from_numpy(test.labels_N)).float().mean())
