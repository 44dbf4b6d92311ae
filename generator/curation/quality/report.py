"""The quality report: all measures of one dataset with their spread, and the facts of the measured sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Literal, get_args

import numpy as np
from pydantic import Field
from torch import nn

from generator.curation.quality.coverage import coverage
from generator.curation.quality.duplicates import Duplicates, duplicates
from generator.curation.quality.fidelity import frechet_distance, kernel_distance
from generator.curation.quality.novelty import Novelty, OnStage, copy_threshold, novelty
from generator.curation.quality.subject import Images, Subject, SubjectFacts
from generator.curation.quality.usefulness import Mixed, Usefulness, train_on_arm, usefulness
from generator.errors import MeasureError
from generator.models.features.classifier import Classifier
from generator.models.features.config import Budget
from generator.models.features.extractors import FeatureExtractor, classifier_features, encoder_features
from generator.sources.pixels.storage import image_rows
from generator.spec.canonical import FrozenModel
from generator.spec.seeding import permutation

QUALITY_REPORT_KEY = "reports/quality.json"

Measure = Literal["fidelity", "coverage", "novelty", "duplicates", "usefulness"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
_REAL, _SYNTHETIC, _BOTH = "real", "synthetic", "real + synthetic"


class MeasureSettings(FrozenModel):
    """What is measured and how. ``seeds``: number of repetitions with other classifiers and choices of images.

    ``limit``: maximum number of images of each set for fidelity and coverage, which compare equal numbers. ``budget``:
    of every classifier, including those for features. ``seed`` chooses images, not weights.
    """

    measures: tuple[Measure, ...] = MEASURES
    seeds: int = Field(default=3, ge=1, le=100, strict=True)
    seed: int = Field(default=0, ge=0, lt=2**31, strict=True)
    limit: int = Field(default=10_000, ge=10, le=100_000, strict=True)
    novelty_limit: int | None = Field(default=None, ge=100, le=10_000_000, strict=True)
    budget: Budget = Budget()


class Spread(FrozenModel):
    """One value per seed, and their mean. ``spread``: standard deviation; ``None`` with one seed."""

    mean: float
    spread: float | None
    values: tuple[float, ...]


class WithBaseline(FrozenModel):
    """A measure of the synthetic images, and of as many real training images as the best value to expect."""

    synthetic: Spread
    real: Spread


class Distribution(FrozenModel):
    """Fidelity and coverage of ``images`` images per set, ``against`` real images that were not trained on."""

    images: int
    against: Literal["test", "holdout"]
    values: dict[str, WithBaseline]


class QualityReport(FrozenModel):
    """The content of ``reports/quality.json``. ``features``: where features come from."""

    kind: Literal["latentmill.quality"] = "latentmill.quality"
    report_version: Literal[1] = 1
    subject: SubjectFacts
    settings: MeasureSettings
    features: Literal["classifier", "encoder"]
    distribution: Distribution | None = None
    novelty: dict[Literal["pixels", "features"], Novelty] | None = None
    duplicates: Duplicates | None = None
    usefulness: Usefulness | None = None


def measure(
    subject: Subject,
    settings: MeasureSettings = MeasureSettings(),  # noqa: B008 - frozen
    *,
    encoder: nn.Module | None = None,
    device: str = "cpu",
    on_stage: OnStage = lambda _: None,
) -> QualityReport:
    """Take the ``settings.measures`` of ``subject``.

    Features come from classifiers trained on the training images or, without labels, from ``encoder``. Usefulness needs
    labels. Raises ``MeasureError``; ``SettingsError`` for the device.
    """
    labelled, measures = subject.train.labels_N is not None, set(settings.measures)
    if not labelled and encoder is None:
        raise MeasureError("encoder", "a bundle with an encoder, as the images have no labels", "none")
    if "usefulness" in measures:
        subject.synthetic.labelled(), subject.unseen.labelled()
    report = QualityReport(subject=subject.facts, settings=settings, features="classifier" if labelled else "encoder")
    classifiers, results = list[Classifier](), dict[str, object]()
    if "usefulness" in measures:
        results["usefulness"] = _usefulness(subject, settings, device, on_stage, classifiers)
    extractors = _FeatureExtractors(subject, settings, encoder, device, on_stage, classifiers)
    if measures & {"fidelity", "coverage"}:
        results["distribution"] = _distribution(subject, settings, extractors, on_stage)
    if "novelty" in measures:
        results["novelty"] = _novelty(subject, settings, extractors.for_seed(0), on_stage)
    if "duplicates" in measures:
        on_stage("duplicates among the synthetic images")
        pixels_TD, pixels_HD = subject.train.pixels(), subject.holdout.pixels()
        results["duplicates"] = duplicates(
            subject.synthetic.images_NHWC, threshold=copy_threshold(pixels_TD, pixels_HD)
        )
    return report.model_copy(update=results)


class _FeatureExtractors:
    """Creates the feature extractor of each seed. Reuses the classifiers that were trained for usefulness."""

    def __init__(
        self,
        subject: Subject,
        settings: MeasureSettings,
        encoder: nn.Module | None,
        device: str,
        on_stage: OnStage,
        classifiers: list[Classifier],
    ) -> None:
        self._subject, self._settings, self._encoder = subject, settings, encoder
        self._device, self._on_stage, self._classifiers = device, on_stage, classifiers

    def for_seed(self, seed: int) -> FeatureExtractor:
        if self._subject.train.labels_N is None:
            assert self._encoder is not None
            return encoder_features(self._encoder)
        while len(self._classifiers) <= seed:
            number = len(self._classifiers)
            self._on_stage(f"training a classifier for features, seed {number}")
            self._classifiers.append(
                train_on_arm(
                    self._subject.train.labelled(),
                    classes=self._subject.classes,
                    seed=number,
                    budget=self._settings.budget,
                    device=self._device,
                )
            )
        return classifier_features(self._classifiers[seed])


def _usefulness(
    subject: Subject, settings: MeasureSettings, device: str, on_stage: OnStage, classifiers: list[Classifier]
) -> Usefulness:
    real, synthetic = subject.train.labelled(), subject.synthetic.labelled()

    def on_run(arm: str, seed: int, test_accuracy: float, classifier: Classifier) -> None:
        on_stage(f"trained on {arm}, seed {seed}: accuracy {test_accuracy:.4f}")
        if arm == _REAL:
            classifiers.append(classifier)

    on_stage("usefulness: training classifiers on real, synthetic, and both")
    return usefulness(
        {_REAL: real, _SYNTHETIC: synthetic, _BOTH: Mixed(real, synthetic)},
        subject.unseen.labelled(),
        classes=subject.classes,
        budget=settings.budget,
        seeds=settings.seeds,
        reference=_REAL,
        device=device,
        on_run=on_run,
    )


def _distribution(
    subject: Subject, settings: MeasureSettings, extractors: _FeatureExtractors, on_stage: OnStage
) -> Distribution:
    count = min(settings.limit, len(subject.synthetic), len(subject.train), len(subject.unseen))
    synthetic_values, real_values = list[dict[str, float]](), list[dict[str, float]]()
    for seed in range(settings.seeds):
        features = extractors.for_seed(seed)
        on_stage(f"fidelity and coverage of {count} images, seed {seed}")
        unseen_ND, synthetic_ND, train_ND = (
            features(_random_subset(images, count, settings.seed + seed, stream))
            for stream, images in enumerate((subject.unseen, subject.synthetic, subject.train))
        )
        synthetic_values.append(_distribution_values(unseen_ND, synthetic_ND, settings.measures, seed))
        real_values.append(_distribution_values(unseen_ND, train_ND, settings.measures, seed))
    values = {
        name: WithBaseline(
            synthetic=_spread([one[name] for one in synthetic_values]), real=_spread([one[name] for one in real_values])
        )
        for name in synthetic_values[0]
    }
    return Distribution(images=count, against="holdout" if subject.test is None else "test", values=values)


def _distribution_values(
    real_ND: np.ndarray, other_ND: np.ndarray, measures: Sequence[Measure], seed: int
) -> dict[str, float]:
    values = dict[str, float]()
    if "fidelity" in measures:
        values["frechet_distance"] = frechet_distance(real_ND, other_ND)
        values["kernel_distance"] = kernel_distance(real_ND, other_ND, seed=seed).mean
    if "coverage" in measures:
        found = coverage(real_ND, other_ND)
        values |= {name: getattr(found, name) for name in ("precision", "recall", "density", "coverage")}
    return values


def _novelty(
    subject: Subject, settings: MeasureSettings, features: FeatureExtractor, on_stage: OnStage
) -> Mapping[str, Novelty]:
    synthetic_rows_N, synthetic = _limit(subject.synthetic, settings.novelty_limit, settings.seed, stream=2)
    _, holdout = _limit(subject.holdout, settings.novelty_limit, settings.seed, stream=3)
    sets = (synthetic, subject.train, holdout)
    spaces: dict[str, Callable[[Images], np.ndarray]] = {
        "pixels": lambda images: images.pixels(),
        "features": lambda images: features(images.images_NHWC),
    }
    found = dict[str, Novelty]()
    for name, get_points in spaces.items():
        on_stage(f"novelty, by {name}")
        synthetic_ND, train_TD, holdout_HD = (get_points(images) for images in sets)
        height, width, channels = subject.synthetic.images_NHWC.shape[1:]
        shape = (height, width, channels) if name == "pixels" else None
        part = novelty(synthetic_ND, train_TD, holdout_HD, seed=settings.seed, shape=shape, on_stage=on_stage)
        found[name] = _with_rows(part, synthetic_rows_N)
    return found


def _limit(images: Images, limit: int | None, seed: int, *, stream: int) -> tuple[np.ndarray, Images]:
    """A random subset of at most ``limit`` images (in order), and its rows."""
    rows_N = np.sort(permutation(seed, stream=stream, size=len(images))[:limit])
    if len(rows_N) == len(images):
        return rows_N, images
    return rows_N, Images(image_rows(images.images_NHWC, rows_N))


def _with_rows(found: Novelty, rows_N: np.ndarray) -> Novelty:
    """Rows of copies as rows of all synthetic images."""

    def of_all(rows: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(rows_N[list(rows)].tolist())

    shifted = found.shifted
    if shifted is not None:
        shifted = replace(shifted, nearest_copies=of_all(shifted.nearest_copies))
    return replace(found, nearest_copies=of_all(found.nearest_copies), shifted=shifted)


def _random_subset(images: Images, count: int, seed: int, stream: int) -> np.ndarray:
    rows_M = np.sort(permutation(seed, stream=stream, size=len(images))[:count])
    chosen_MHWC: np.ndarray = images.images_NHWC[rows_M]
    return chosen_MHWC


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=mean(values), spread=stdev(values) if len(values) > 1 else None, values=tuple(values))
