"""Self-training: a judge of the labelled images labels the others, and a second judge is trained on both.

With a confidence threshold and augmented images for the student: Xie, Luong, Hovy & Le, "Self-training with noisy
student improves ImageNet classification", CVPR 2020.
"""

from __future__ import annotations

import numpy as np

from generator.errors import SourceError
from generator.models.features.classifier import LabelledImages
from generator.models.screening.config import JudgeSettings
from generator.models.screening.label_judge import LabelJudge, train_judge


def pseudo_label(judge: LabelJudge, images_NHWC: np.ndarray, *, floor: float) -> LabelledImages:
    """The uint8 ``images_NHWC`` whose most likely class has a probability of at least ``floor``, in their order.

    Labels are the most likely classes; ``probability_NC`` holds the judge's probabilities of all classes.
    """
    probability_NC = judge.probabilities(images_NHWC)
    confident_N = probability_NC.max(axis=1) >= floor
    return LabelledImages(
        images_NHWC[confident_N], probability_NC[confident_N].argmax(axis=1), probability_NC[confident_N]
    )


def self_train_judge(
    judge: LabelJudge,
    labelled: LabelledImages,
    unlabelled_NHWC: np.ndarray,
    settings: JudgeSettings,
    *,
    floor: float,
    share: float,
    seed: int,
    device: str = "cpu",
) -> LabelJudge:
    """A judge trained on ``labelled`` and, for ``share`` of every batch, on images that ``pseudo_label`` selects.

    Raises ``SourceError`` if it selects none, and what ``train_classifier`` raises.
    """
    pseudo_labelled = pseudo_label(judge, unlabelled_NHWC, floor=floor)
    if not len(pseudo_labelled):
        raise SourceError(
            "unlabelled images", f"some with a class of probability {floor} or more", "none", "try a lower floor"
        )
    return train_judge(
        labelled, settings, classes=judge.classes, seed=seed, device=device, extra=pseudo_labelled, share=share
    )
