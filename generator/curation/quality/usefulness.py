"""Usefulness: train a classifier on the images, test it on unseen real ones.

Every arm of the comparison trains the same small network with the same budget: steps, batch, schedule, augmentation,
seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from generator.errors import MeasureError
from generator.models.features.classifier import Classifier, LabelledImages, accuracy, train_classifier
from generator.models.features.config import Budget


@dataclass(frozen=True)
class Mixed:
    """Real and synthetic images mixed: ``share`` of every batch is synthetic."""

    real: LabelledImages
    synthetic: LabelledImages
    share: float = 0.5

    def __len__(self) -> int:
        return len(self.real) + len(self.synthetic)


Arm = LabelledImages | Mixed


@dataclass(frozen=True)
class ArmResult:
    """The result of one arm. ``accuracies``: on the test images, one per seed.

    ``spread``: their standard deviation; ``None`` with one seed. ``ratio``: the mean over that of the reference arm.
    ``errors_removed``: the share of the reference's errors that this arm avoids; negative if it makes more errors,
    ``None`` if the reference makes none. ``images``: number of training images.
    """

    images: int
    accuracies: tuple[float, ...]
    mean: float
    spread: float | None
    ratio: float
    errors_removed: float | None
    seconds: float


@dataclass(frozen=True)
class Usefulness:
    test_images: int
    reference: str
    arms: Mapping[str, ArmResult]


def usefulness(
    arms: Mapping[str, Arm],
    test: LabelledImages,
    *,
    classes: int,
    budget: Budget,
    seeds: int = 3,
    reference: str = "real",
    device: str = "cpu",
    on_run: Callable[[str, int, float, Classifier], None] = lambda *_: None,
) -> Usefulness:
    """Train a classifier on each arm with each of the seeds 0 .. ``seeds`` - 1, and test it.

    ``on_run`` is called with arm, seed, accuracy and the trained classifier. Raises ``MeasureError`` for an unknown
    reference or fewer than one seed, and what ``train_classifier`` raises.
    """
    if reference not in arms or seeds < 1:
        raise MeasureError("arms", f"one called {reference!r}, and at least one seed", f"{sorted(arms)}, {seeds} seeds")
    for name, arm in arms.items():
        shape, expected = _main_images(arm).images_NHWC.shape[1:], test.images_NHWC.shape[1:]
        if shape != expected:
            raise MeasureError(name, f"images of the test images' shape {expected}", shape)
    runs = {
        name: _train_and_test(name, arm, test, classes, budget, seeds, device, on_run) for name, arm in arms.items()
    }
    reference_mean = mean(runs[reference][0])
    return Usefulness(
        test_images=len(test),
        reference=reference,
        arms={name: _arm_result(arms[name], *run, reference_mean) for name, run in runs.items()},
    )


def train_on_arm(arm: Arm, *, classes: int, seed: int, budget: Budget, device: str = "cpu") -> Classifier:
    """Train a classifier on one arm. Raises what ``train_classifier`` raises."""
    real = _main_images(arm)
    beside, share = (arm.synthetic, arm.share) if isinstance(arm, Mixed) else (None, 0.0)
    return train_classifier(
        real.images_NHWC,
        real.labels_N,
        classes=classes,
        seed=seed,
        budget=budget,
        device=device,
        extra=beside,
        share=share,
        probability_NC=real.probability_NC,
    )


def _main_images(arm: Arm) -> LabelledImages:
    return arm.real if isinstance(arm, Mixed) else arm


def _train_and_test(
    name: str,
    arm: Arm,
    test: LabelledImages,
    classes: int,
    budget: Budget,
    seeds: int,
    device: str,
    on_run: Callable[[str, int, float, Classifier], None],
) -> tuple[list[float], float]:
    clock, accuracies = time.perf_counter(), list[float]()
    for seed in range(seeds):
        classifier = train_on_arm(arm, classes=classes, seed=seed, budget=budget, device=device)
        accuracies.append(accuracy(classifier, test))
        on_run(name, seed, accuracies[-1], classifier)
    return accuracies, time.perf_counter() - clock


def _arm_result(arm: Arm, accuracies: list[float], seconds: float, reference_mean: float) -> ArmResult:
    average = mean(accuracies)
    return ArmResult(
        images=len(arm),
        accuracies=tuple(accuracies),
        mean=average,
        spread=stdev(accuracies) if len(accuracies) > 1 else None,
        ratio=average / reference_mean if reference_mean else 0.0,
        errors_removed=None if reference_mean == 1.0 else 1.0 - (1.0 - average) / (1.0 - reference_mean),
        seconds=seconds,
    )
