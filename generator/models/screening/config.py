"""Settings of the label judge, and the pass rates of each check. Importing this file does not import torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from generator.models.autoencoders.augmentation import Augmentation
from generator.models.features.config import Budget
from generator.spec.canonical import FrozenModel, GrowingModel, Later
from generator.spec.image_size import AnySize, as_size

LABEL_FLOOR, NOVELTY_FLOOR = 0.5, 0.001  # defaults of a spec
_MAX_NAMED = 10  # classes in a notice
MIN_PASS_RATE = 0.5  # share of samples; below it, a floor would more than double the work, so it is off by default


class PassRates(FrozenModel):
    """Shares of a bundle's own samples that pass at the default floors.

    ``label``: the label check by class, empty without a judge. ``novelty``: the copy check, ``None`` without an index.
    """

    label: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] = ()
    novelty: float | None = Field(default=None, ge=0.0, le=1.0)

    @property
    def label_floors(self) -> tuple[float | None, ...]:
        """The default floor of each class, ``None`` if fewer than ``MIN_PASS_RATE`` of it pass; () without a judge."""
        return tuple(LABEL_FLOOR if rate >= MIN_PASS_RATE else None for rate in self.label)

    @property
    def label_floor(self) -> float | None:
        """The default floor of version 1 recipes; ``None`` if fewer than ``MIN_PASS_RATE`` of some class pass."""
        return LABEL_FLOOR if self.label and min(self.label) >= MIN_PASS_RATE else None

    @property
    def novelty_floor(self) -> float | None:
        """The default floor; ``None`` if fewer than ``MIN_PASS_RATE`` pass."""
        return NOVELTY_FLOOR if self.novelty is not None and self.novelty >= MIN_PASS_RATE else None

    def notices(self, class_names: tuple[str, ...]) -> tuple[str, ...]:
        """A notice for the user about each floor that is off by default."""
        notices = []
        if any(floor is None for floor in self.label_floors):
            notices.append(self._label_notice(class_names))
        if self.novelty is not None and self.novelty_floor is None:
            notices.append(
                f"only {self.novelty:.0%} of the samples pass the copy check: novelty_floor is off by default"
            )
        return tuple(notices)

    def _label_notice(self, class_names: tuple[str, ...]) -> str:
        poor = sorted((rate, name) for rate, name in zip(self.label, class_names, strict=True) if rate < MIN_PASS_RATE)
        named = [f"{rate:.0%} of the samples of class {name!r}" for rate, name in poor[:_MAX_NAMED]]
        named += [f"less than half of {len(poor) - _MAX_NAMED} more classes"] if len(poor) > _MAX_NAMED else []
        off = (
            "label_floor is off" if len(poor) == len(self.label) else "images of these classes are not refused by label"
        )
        return f"the judge confirms only {', '.join(named)}: {off} by default"


NO_PASS_RATES = PassRates()


class JudgeSettings(GrowingModel):
    """An ensemble of ``members`` classifiers of ``width``, each trained with ``budget`` and its own seed.

    ``mirrored``: half of the training images are mirrored left to right, and probabilities are the mean of those of an
    image and of its mirror image; not for digits, letters or signs. ``calibrated``: a temperature, fitted to held-out
    images, is part of the last layer.
    """

    members: int = Field(default=1, ge=1, le=16, strict=True)
    width: int = Field(default=16, ge=4, le=512, strict=True)
    budget: Budget = Budget(steps=600)
    mirrored: Annotated[bool, Later()] = False
    calibrated: Annotated[bool, Later()] = False

    @property
    def training_budget(self) -> Budget:
        """``budget``, with mirroring if the judge is ``mirrored``."""
        if not self.mirrored:
            return self.budget
        augmentation = self.budget.augmentation.model_copy(update={"mirror": True})
        return self.budget.model_copy(update={"augmentation": augmentation})


def default_judge(size: AnySize) -> JudgeSettings:
    """The recommended judge for images of ``size``: one small network, shifts of up to a sixteenth of a side."""
    return JudgeSettings(budget=Budget(steps=600, augmentation=Augmentation(shift=min(as_size(size)) // 16)))
