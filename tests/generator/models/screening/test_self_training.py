"""Self-training: a judge trained on few labels labels other images, and a judge trained on both is better."""

from __future__ import annotations

import numpy as np
import pytest

from generator.errors import SourceError
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.features.classifier import LabelledImages
from generator.models.features.config import Budget
from generator.models.screening.config import JudgeSettings
from generator.models.screening.label_judge import LabelJudge, train_judge
from generator.models.screening.self_training import pseudo_label, self_train_judge
from generator.sources import load_source

DIGITS = load_source("digits", size=8)
FEW = LabelledImages(DIGITS.images_NHWC[:60], DIGITS.labels_N[:60])
OTHERS, TRUE = DIGITS.images_NHWC[60:1400], DIGITS.labels_N[60:1400]
TEST = LabelledImages(DIGITS.images_NHWC[1400:], DIGITS.labels_N[1400:])
SETTINGS = JudgeSettings(budget=Budget(steps=150, batch=32, augmentation=Augmentation(shift=1)))

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.fixture(scope="module")
def judge() -> LabelJudge:
    return train_judge(FEW, SETTINGS, classes=10, seed=0)


def accuracy_of(judge: LabelJudge, images_NHWC: np.ndarray, labels_N: np.ndarray) -> float:
    return float((judge.probabilities(images_NHWC).argmax(axis=1) == labels_N).mean())


def test_pseudo_labels_are_the_most_likely_classes_of_confident_images(judge: LabelJudge) -> None:
    found = pseudo_label(judge, OTHERS, floor=0.9)
    probability_NC = judge.probabilities(OTHERS)
    confident_N = probability_NC.max(axis=1) >= 0.9
    assert 0 < len(found) < len(OTHERS)
    np.testing.assert_array_equal(found.images_NHWC, OTHERS[confident_N])
    np.testing.assert_array_equal(found.labels_N, probability_NC[confident_N].argmax(axis=1))
    np.testing.assert_array_equal(found.probability_NC, probability_NC[confident_N])
    assert (found.labels_N == TRUE[confident_N]).mean() > accuracy_of(judge, OTHERS, TRUE)


def test_self_training_improves_the_judge(judge: LabelJudge) -> None:
    self_trained = self_train_judge(judge, FEW, OTHERS, SETTINGS, floor=0.8, share=0.75, seed=1)
    baseline = train_judge(FEW, SETTINGS, classes=10, seed=1)
    self_trained_accuracy, baseline_accuracy = (
        accuracy_of(trained, TEST.images_NHWC, TEST.labels_N) for trained in (self_trained, baseline)
    )
    assert self_trained_accuracy > baseline_accuracy + 0.01


def test_a_judge_without_confident_images_is_refused(judge: LabelJudge) -> None:
    blank_NHWC = np.full((5, 8, 8, 1), 128, dtype=np.uint8)
    with pytest.raises(SourceError, match="unlabelled images"):
        self_train_judge(judge, FEW, blank_NHWC, SETTINGS, floor=1.0, share=0.5, seed=0)
