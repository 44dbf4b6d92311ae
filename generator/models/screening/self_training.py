"""Many images, few labels: a judge of the labelled images says what the others show, and a further judge learns both.

Self-training with a confidence threshold and a changed image for the pupil: Xie, Luong, Hovy & Le, "Self-training with
noisy student improves ImageNet classification", CVPR 2020.
"""

from __future__ import annotations

import numpy as np

from generator.errors import SourceError
from generator.models.features.classifier import LabelledImages
from generator.models.screening.config import JudgeSettings
from generator.models.screening.label_judge import LabelJudge, train_judge


def pseudo_label(judge: LabelJudge, images_NHWC: np.ndarray, *, floor: float) -> LabelledImages:
    """Those of uint8 ``images_NHWC`` whose likeliest class is at least ``floor`` likely, in their order.

    Labels are the likeliest classes; what the judge makes of all classes comes along.
    """
    probability_NC = judge.probabilities(images_NHWC)
    sure_N = probability_NC.max(axis=1) >= floor
    return LabelledImages(images_NHWC[sure_N], probability_NC[sure_N].argmax(axis=1), probability_NC[sure_N])


def self_train_judge(
    judge: LabelJudge,
    given: LabelledImages,
    unlabelled_NHWC: np.ndarray,
    settings: JudgeSettings,
    *,
    floor: float,
    share: float,
    seed: int,
    device: str = "cpu",
) -> LabelJudge:
    """A judge trained on ``given`` and, for ``share`` of every batch, on what ``judge`` is ``confident`` of.

    Raises ``SourceError`` where ``judge`` is sure of no image, and what ``train_classifier`` raises.
    """
    found = pseudo_label(judge, unlabelled_NHWC, floor=floor)
    if not len(found):
        raise SourceError("unlabelled images", f"some that the judge is sure of by {floor}", "none", "a lower floor")
    return train_judge(given, settings, classes=judge.classes, seed=seed, device=device, beside=found, share=share)
