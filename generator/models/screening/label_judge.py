"""The label check: an ensemble of classifiers, trained on the source, gives an image's class probabilities.

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
from generator.models.batched_rows import batched_rows, images_at_once
from generator.models.features.classifier import Classifier, LabelledImages, train_classifier
from generator.models.screening.config import JudgeSettings
from generator.spec.image_size import AnySize

_BATCH = 256
_SEED_STRIDE = 104_729  # a prime, so that judges with neighbouring seeds share no members


@final
class LabelJudge(nn.Module):
    """An ensemble; its output is the mean of its members' class probabilities, if ``mirrored`` also over an image and
    its mirror image."""

    def __init__(self, members: list[Classifier], *, mirrored: bool = False) -> None:
        super().__init__()
        self.members, self.mirrored = nn.ModuleList(members), mirrored

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """probability_BC, float32, rows that sum to 1."""
        return torch.stack([logits_BC.softmax(1) for logits_BC in self.logits(x_BCHW)]).mean(0)

    def logits(self, x_BCHW: Tensor) -> list[Tensor]:
        """logits_BC of every member, and if ``mirrored`` of every member for the mirror images."""
        views = [x_BCHW]
        if self.mirrored:
            views.append(x_BCHW.flip(3).contiguous(memory_format=torch.channels_last))
        return [member(view_BCHW) for view_BCHW in views for member in self.members]

    @torch.inference_mode()
    def probabilities(self, images_NHWC: np.ndarray, *, batch: int | None = None) -> np.ndarray:
        """float32 (N, C). A short batch is padded, so that results do not depend on its length. By default a batch has
        256 images, fewer of large ones."""
        device, shape_HWC = next(self.parameters()).device, images_NHWC.shape[1:]
        size = batch or images_at_once(shape_HWC, _BATCH)

        def probabilities_of(rows: slice) -> np.ndarray:
            part_BHWC = images_NHWC[rows]
            padded_BHWC = np.zeros((size, *shape_HWC), dtype=np.uint8)
            padded_BHWC[: len(part_BHWC)] = part_BHWC
            found: np.ndarray = self(to_input(padded_BHWC, device))[: len(part_BHWC)].cpu().numpy()
            return found

        return batched_rows(probabilities_of, len(images_NHWC), size)

    @property
    def classes(self) -> int:
        head = self.members[0].head
        assert isinstance(head, nn.Linear)
        return head.out_features


def train_judge(
    labelled: LabelledImages,
    settings: JudgeSettings,
    *,
    classes: int,
    seed: int,
    device: str = "cpu",
    extra: LabelledImages | None = None,
    share: float = 0.5,
) -> LabelJudge:
    """A judge trained on ``labelled``; its members differ by their seeds. With ``extra``, ``share`` of every batch is
    taken from it. Raises what ``train_classifier`` raises."""
    members = [
        train_classifier(
            labelled.images_NHWC,
            labelled.labels_N,
            classes=classes,
            seed=(seed + _SEED_STRIDE * number) % 2**31,
            budget=settings.training_budget,
            device=device,
            extra=extra,
            share=share,
            width=settings.width,
        )
        for number in range(settings.members)
    ]
    return LabelJudge(members, mirrored=settings.mirrored).eval().requires_grad_(False)


def load_judge(
    settings: JudgeSettings, weights: Mapping[str, np.ndarray], *, size: AnySize, channels: int, classes: int
) -> LabelJudge:
    """The judge of a bundle with images of ``size``, on the CPU. Raises ``BundleError`` if weights, settings and size
    do not fit together."""
    members = [Classifier(size, channels, classes, width=settings.width) for _ in range(settings.members)]
    judge = LabelJudge(members, mirrored=settings.mirrored)
    try:
        judge.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()})
    except RuntimeError as error:
        raise BundleError("judge.safetensors", "the weights of the judge in bundle.json", error) from error
    return judge.eval().requires_grad_(False)
