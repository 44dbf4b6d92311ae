"""Whether mirrored images keep their class: measured on held-out images, since no source says so.

A small classifier that has seen no mirrored image is tested on held-out images and on their mirror images. Where
photographs are mirrored it is nearly as often right; with digits, letters or signs it is not.
"""

from __future__ import annotations

from generator.models.autoencoders.augmentation import Augmentation
from generator.models.features.classifier import LabelledImages, accuracy, train_classifier
from generator.models.features.config import Budget
from generator.sources.pixels.storage import map_rows

MIN_IMAGES = 500  # held-out images; with fewer a loss of a few hundredths is chance
_MAX_LOSS = 0.05  # of accuracy, as a share of it
_STEPS = 300


def is_mirroring_harmless(
    train: LabelledImages, holdout: LabelledImages, *, classes: int, seed: int, device: str = "cpu"
) -> bool:
    """Whether mirrored images are classified nearly as well as others by a network that was trained on others.

    ``False`` with fewer than ``MIN_IMAGES`` held-out images. Raises what ``train_classifier`` raises.
    """
    if len(holdout) < MIN_IMAGES:
        return False
    budget = Budget(steps=_STEPS, augmentation=Augmentation(shift=train.images_NHWC.shape[1] // 16))
    images_NHWC, labels_N = train.images_NHWC, train.labels_N
    network = train_classifier(images_NHWC, labels_N, classes=classes, seed=seed, budget=budget, device=device)
    shape, dtype = holdout.images_NHWC.shape[1:], holdout.images_NHWC.dtype
    mirrored_NHWC = map_rows(holdout.images_NHWC, lambda some_NHWC: some_NHWC[:, :, ::-1], shape, dtype)
    usual, mirrored = (
        accuracy(network, LabelledImages(each_NHWC, holdout.labels_N))
        for each_NHWC in (holdout.images_NHWC, mirrored_NHWC)
    )
    return mirrored >= (1.0 - _MAX_LOSS) * usual
