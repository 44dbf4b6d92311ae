"""Does an image show the class it is labelled with? A committee of classifiers, trained on the source, says how likely.

Legend: B batch, C classes. Images are uint8 NHWC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from generator.errors import BundleError
from generator.models.autoencoders.networks import to_input
from generator.models.features.classifier import Classifier, LabelledImages, train_classifier
from generator.models.screening.config import JudgeSettings

_SEED_STRIDE = 104_729  # a prime, so that the members of neighbouring seeds are not the same


@final
class LabelJudge(nn.Module):
    """A committee; its opinion is the mean of its members' class probabilities."""

    def __init__(self, members: list[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """probability_BC, float32, rows that sum to 1."""
        return torch.stack([member(x_BCHW).softmax(1) for member in self.members]).mean(0)

    @torch.inference_mode()
    def probabilities(self, images_NHWC: np.ndarray, *, batch: int = 256) -> np.ndarray:
        """float32 (N, C), always in whole batches: a short one is padded, so that no kernel depends on its length."""
        device, parts = next(self.parameters()).device, []
        for begin in range(0, len(images_NHWC), batch):
            part_BHWC = images_NHWC[begin : begin + batch]
            padded_BHWC = np.zeros((batch, *images_NHWC.shape[1:]), dtype=np.uint8)
            padded_BHWC[: len(part_BHWC)] = part_BHWC
            parts.append(self(to_input(padded_BHWC, device))[: len(part_BHWC)].cpu().numpy())
        return np.concatenate([np.empty((0, self.classes), np.float32), *parts])

    @property
    def classes(self) -> int:
        head = self.members[0].head
        assert isinstance(head, nn.Linear)
        return head.out_features


def train_judge(
    given: LabelledImages,
    settings: JudgeSettings,
    *,
    classes: int,
    seed: int,
    device: str = "cpu",
    beside: LabelledImages | None = None,
    share: float = 0.5,
) -> LabelJudge:
    """A judge trained on ``given``; its members differ by their seeds. With ``beside``, ``share`` of every batch comes
    from there. Raises what ``train_classifier`` raises."""
    members = [
        train_classifier(
            given.images_NHWC,
            given.labels_N,
            classes=classes,
            seed=(seed + _SEED_STRIDE * number) % 2**31,
            budget=settings.budget,
            device=device,
            beside=beside,
            share=share,
            width=settings.width,
        )
        for number in range(settings.members)
    ]
    return LabelJudge(members).eval().requires_grad_(False)


def load_judge(
    settings: JudgeSettings, weights: Mapping[str, np.ndarray], *, size: int, channels: int, classes: int
) -> LabelJudge:
    """The judge of a bundle, on the CPU. Raises ``BundleError`` where weights and settings do not fit."""
    judge = LabelJudge([Classifier(size, channels, classes, width=settings.width) for _ in range(settings.members)])
    try:
        judge.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()})
    except RuntimeError as mismatch:
        raise BundleError("judge.safetensors", "the weights of the judge in bundle.json", mismatch) from mismatch
    return judge.eval().requires_grad_(False)
