"""How a judge is made, and how much passes it. Importing this file does not import torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from generator.models.autoencoders.augmentation import Augmentation
from generator.models.features.config import Budget
from generator.spec.canonical import FrozenModel

LABEL_FLOOR, NOVELTY_FLOOR = 0.5, 0.001  # what a spec has unless it says otherwise
MIN_PASS_RATE = 0.5  # share of samples; where fewer pass, a floor more than doubles the work, and must be asked for


class PassRates(FrozenModel):
    """Shares of a bundle's own samples that pass at the default floors: the judge by class, and the sketch.

    Empty, and ``None``, where there is no judge, and no sketch.
    """

    label: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] = ()
    novelty: float | None = Field(default=None, ge=0.0, le=1.0)

    @property
    def label_floor(self) -> float | None:
        """The default: none where too few samples of some class pass."""
        return LABEL_FLOOR if self.label and min(self.label) >= MIN_PASS_RATE else None

    @property
    def novelty_floor(self) -> float | None:
        """The default: none where too few samples pass."""
        return NOVELTY_FLOOR if self.novelty is not None and self.novelty >= MIN_PASS_RATE else None

    def notices(self, class_names: tuple[str, ...]) -> tuple[str, ...]:
        """What a user should know of floors that are off."""
        told = []
        if self.label and self.label_floor is None:
            least, name = min(zip(self.label, class_names, strict=True))
            told.append(
                f"the judge knows {least:.0%} of the samples of class {name!r}: label_floor is off unless asked for"
            )
        if self.novelty is not None and self.novelty_floor is None:
            told.append(
                f"{self.novelty:.0%} of the samples are new beyond doubt: novelty_floor is off unless asked for"
            )
        return tuple(told)


NO_PASS_RATES = PassRates()


class JudgeSettings(FrozenModel):
    """A committee of ``members`` classifiers of ``width``, each trained with ``budget`` from a seed of its own."""

    members: int = Field(default=1, ge=1, le=16, strict=True)
    width: int = Field(default=16, ge=4, le=512, strict=True)
    budget: Budget = Budget(steps=600)


def default_judge(size: int) -> JudgeSettings:
    """The judge that we recommend for images of ``size`` pixels: one small network, shifts of a sixteenth."""
    return JudgeSettings(budget=Budget(steps=600, augmentation=Augmentation(shift=size // 16)))
