"""The training budget of a classifier. Importing this file does not import torch."""

from __future__ import annotations

from pydantic import Field

from generator.models.autoencoders.augmentation import Augmentation
from generator.spec.canonical import FrozenModel


class Budget(FrozenModel):
    """``steps`` of ``batch`` images, the peak learning rate, and the augmentation of the training images.

    The same for every arm of a comparison.
    """

    steps: int = Field(default=1400, ge=1, le=1_000_000, strict=True)
    batch: int = Field(default=128, ge=2, le=65_536, strict=True)
    peak_rate: float = Field(default=0.1, gt=0.0, le=10.0)
    augmentation: Augmentation = Augmentation()


FEATURE_BUDGET = Budget(steps=600)  # of the classifier whose maps the feature loss compares
