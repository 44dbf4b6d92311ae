"""A judge of few labels labels other images, and one that learns from those as well knows more."""

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

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def judge() -> LabelJudge:
    return train_judge(FEW, SETTINGS, classes=10, seed=0)


def accuracy_of(judge: LabelJudge, images_NHWC: np.ndarray, labels_N: np.ndarray) -> float:
    return float((judge.probabilities(images_NHWC).argmax(axis=1) == labels_N).mean())


def test_confident_images_are_those_it_is_sure_of_with_their_likeliest_class(judge: LabelJudge) -> None:
    found = pseudo_label(judge, OTHERS, floor=0.9)
    said_NC = judge.probabilities(OTHERS)
    sure_N = said_NC.max(axis=1) >= 0.9
    assert 0 < len(found) < len(OTHERS)
    np.testing.assert_array_equal(found.images_NHWC, OTHERS[sure_N])
    np.testing.assert_array_equal(found.labels_N, said_NC[sure_N].argmax(axis=1))
    np.testing.assert_array_equal(found.probability_NC, said_NC[sure_N])
    assert (found.labels_N == TRUE[sure_N]).mean() > accuracy_of(judge, OTHERS, TRUE)


def test_a_further_judge_knows_more(judge: LabelJudge) -> None:
    further = self_train_judge(judge, FEW, OTHERS, SETTINGS, floor=0.8, share=0.75, seed=1)
    alone = train_judge(FEW, SETTINGS, classes=10, seed=1)
    ours, theirs = (accuracy_of(each, TEST.images_NHWC, TEST.labels_N) for each in (further, alone))
    assert ours > theirs + 0.01


def test_a_judge_that_is_sure_of_nothing_teaches_nothing(judge: LabelJudge) -> None:
    blank_NHWC = np.full((5, 8, 8, 1), 128, dtype=np.uint8)
    with pytest.raises(SourceError, match="unlabelled images"):
        self_train_judge(judge, FEW, blank_NHWC, SETTINGS, floor=1.0, share=0.5, seed=0)
