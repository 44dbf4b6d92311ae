"""The filters after decoding: refused samples are drawn again at the next attempt of the same index.

Refused are images of a single value, images that fail the label check (the judge gives their label a probability below
the floor), and images that fail the copy check (they may be copies of a training image). The density floor, which is
checked before decoding, is in ``sampling``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.errors import RejectionExhausted, SpecError
from generator.models.bundle import Bundle
from generator.models.screening.copy_index import CopyIndex
from generator.models.screening.label_judge import LabelJudge, load_judge
from generator.models.screening.soft_labels import SoftLabels
from generator.production.decoding import ResidentDecoder, retry_on_oom
from generator.spec.recipe import Recipe


@dataclass(frozen=True, eq=False)
class ScreenResult:
    """The screening result of B images: bool ``passed_B``; float32 ``confidence_B``, the judge's probability of each
    image's label (NaN without a judge); ``likely_BK``, the K most likely labels (K is 0 without a judge)."""

    passed_B: np.ndarray
    confidence_B: np.ndarray
    likely_BK: SoftLabels


@dataclass(frozen=True, eq=False)
class Screen:
    """Screens decoded images with the label check and the copy check, as far as the recipe asks for them.

    The judge runs on padded batches of the recipe's size, like the decoder, so its result for an image does not depend
    on the number of images; the copy index uses integer arithmetic.
    """

    recipe: Recipe
    judge: LabelJudge | None
    copy_index: CopyIndex | None

    def check(self, images_BHWC: np.ndarray, labels_B: np.ndarray) -> ScreenResult:
        """Screen uint8 images with int64 labels. Raises ``DeviceExhausted``."""
        passed_B, confidence_B = valid_images(images_BHWC), np.full(len(images_BHWC), np.nan, dtype=np.float32)
        likely_BK = SoftLabels.empty(len(images_BHWC))
        if self.judge is not None and self.recipe.class_floors is not None:
            judge, batch = self.judge, self.recipe.batch
            probability_BC = retry_on_oom(lambda: judge.probabilities(images_BHWC, batch=batch), batch)
            confidence_B = probability_BC[np.arange(len(labels_B)), labels_B]
            likely_BK = SoftLabels.from_probabilities(probability_BC)
            passed_B &= confidence_B >= _row_floors(self.recipe.class_floors, labels_B)
        if self.copy_index is not None and self.recipe.novelty_floor is not None:
            passed_B[passed_B] = ~self.copy_index.is_copy(images_BHWC[passed_B], self.recipe.novelty_floor)
        return ScreenResult(passed_B, confidence_B, likely_BK)


def open_screen(recipe: Recipe, bundle: Bundle, decoder: ResidentDecoder) -> Screen:
    """The screen of ``recipe``, on the device of ``decoder``. Raises ``SpecError`` if the bundle lacks a part that the
    recipe needs, ``BundleError`` if the part is broken."""
    judge, info = None, bundle.info
    if recipe.class_floors is not None:
        if info.judge is None or bundle.screening.judge_weights is None:
            field = "label_floor" if recipe.label_floors is None else "label_floors"
            raise SpecError(field, f"a bundle with a judge, or no {field}", getattr(recipe, field))
        image = info.image
        judge = load_judge(
            info.judge,
            bundle.screening.judge_weights,
            size=image.size,
            channels=image.channels,
            classes=len(info.classes),
        ).to(decoder.device)
    if recipe.novelty_floor is not None and bundle.screening.copy_index is None:
        raise SpecError("novelty_floor", "a bundle with a copy index, or no novelty_floor", recipe.novelty_floor)
    return Screen(recipe, judge, bundle.screening.copy_index if recipe.novelty_floor is not None else None)


def _row_floors(floors: tuple[float | None, ...], labels_B: np.ndarray) -> np.ndarray:
    """float32 (B,): the label floor of each row's class; minus infinity for a class without one."""
    floor_C = np.array([-np.inf if floor is None else floor for floor in floors], dtype=np.float32)
    return np.asarray(floor_C[labels_B])


def valid_images(images_BHWC: np.ndarray) -> np.ndarray:
    """Which uint8 images are valid, bool (B,): an image with the same value everywhere is not."""
    flat_BP = images_BHWC.reshape(len(images_BHWC), -1)
    varied_B: np.ndarray = flat_BP.min(axis=1) != flat_BP.max(axis=1)
    return varied_B


def check_attempts(attempts_N: np.ndarray, limit: int, *, accepted: int, drawn: int) -> None:
    """Raise ``RejectionExhausted`` if a sample would need attempt number ``limit`` (attempts are numbered from 0)."""
    if len(attempts_N) and int(attempts_N.max()) >= limit:
        rate = accepted / max(drawn, 1)
        raise RejectionExhausted(
            "max_attempts",
            f"every sample accepted within {limit} attempts",
            f"{int((attempts_N >= limit).sum())} sample(s) refused every time; acceptance rate {rate:.2%}",
            "lower density_floor, label_floor or novelty_floor, raise max_attempts, or inspect the bundle",
        )
