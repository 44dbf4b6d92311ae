"""How a judge is made. Importing this file does not import torch."""

from __future__ import annotations

from pydantic import Field

from generator.augmentation import Augmentation
from generator.canonical import Frozen
from generator.features.config import Budget


class JudgeSettings(Frozen):
    """A committee of ``members`` classifiers of ``width``, each trained with ``budget`` from a seed of its own."""

    members: int = Field(default=1, ge=1, le=16, strict=True)
    width: int = Field(default=16, ge=4, le=512, strict=True)
    budget: Budget = Budget(steps=600)


def default_judge(size: int) -> JudgeSettings:
    """The judge that we recommend for images of ``size`` pixels: one small network, shifts of a sixteenth."""
    return JudgeSettings(budget=Budget(steps=600, augmentation=Augmentation(shift=size // 16)))
