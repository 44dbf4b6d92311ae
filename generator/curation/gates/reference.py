"""Gates against reference images. Imports torch; imported only if a reference is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from generator.curation.gates.checks import at_least, at_most
from generator.curation.gates.config import Reference
from generator.curation.gates.image_subset import ImageSubset
from generator.curation.gates.verdict import Check
from generator.curation.quality.report import QUALITY_REPORT_KEY, Measure, MeasureSettings, QualityReport, measure
from generator.curation.quality.subject import Images, Subject, load_subject
from generator.models.autoencoders.factory import load_encoder
from generator.models.bundle import BundleInfo, load_encoder_weights, read_info
from generator.models.bundle.real_images import load_similar_source, load_training_source
from generator.models.features.config import Budget
from generator.sources import Source
from generator.store import S3Settings
from generator.store.base import Store


def check_reference(
    build: Store,
    subset: ImageSubset,
    bundle: Store,
    reference: Reference,
    *,
    s3: S3Settings | None,
    on_stage: Callable[[str], None],
) -> list[Check]:
    """Measure ``subset`` against the reference images. The report is written to ``reports/quality.json``.

    ``build`` and ``bundle``: stores rooted at the build and at the bundle. Raises ``SourceError``, ``MeasureError`` or
    ``BundleError`` if the reference does not fit the build.
    """
    _, info = read_info(bundle)
    on_stage(f"reading {reference.source}")
    subject = _load_subject(build, subset, info, reference, s3)
    settings = MeasureSettings(
        measures=_wanted_measures(reference),
        seeds=reference.seeds,
        limit=reference.limit,
        budget=Budget(steps=reference.steps),
    )
    encoder = None if info.classes else _load_encoder(bundle, info)
    report = measure(subject, settings, encoder=encoder, on_stage=on_stage)
    build.put(QUALITY_REPORT_KEY, report.model_dump_json(indent=2).encode() + b"\n")
    return list(_checks(report, reference))


def _load_subject(
    build: Store, subset: ImageSubset, info: BundleInfo, reference: Reference, s3: S3Settings | None
) -> Subject:
    real = load_training_source(reference.source, info, skip_bad=reference.skip_bad, s3=s3)
    test: Source | None = None
    if reference.test == "test":
        test = load_similar_source(reference.source, info, real, split="test", s3=s3)
    elif reference.test is not None:
        test = load_similar_source(reference.test, info, real, s3=s3)
    rows = np.arange(min(len(subset), reference.limit)) * len(subset) // min(len(subset), reference.limit)
    images = Images(subset.images_NHWC[rows], subset.labels_N[rows])
    return load_subject(build.url, real, info, test=test, images=images, s3=s3)


def _load_encoder(bundle: Store, info: BundleInfo) -> nn.Module:
    weights = load_encoder_weights(bundle, info)
    return load_encoder(info.autoencoder, {name: torch.from_numpy(np.array(each)) for name, each in weights.items()})


def _wanted_measures(reference: Reference) -> tuple[Measure, ...]:
    thresholds: dict[Measure, object] = {
        "fidelity": reference.fidelity,
        "novelty": reference.copies,
        "usefulness": reference.usefulness,
    }
    return tuple(name for name, threshold in thresholds.items() if threshold is not None)


def _checks(report: QualityReport, reference: Reference) -> Iterator[Check]:
    if report.novelty is not None and reference.copies is not None:
        found = report.novelty["pixels"]
        description = f"{found.share:.2%} of the images are nearer to a training image than unseen real images are"
        yield at_most("reference.copies", found.share, reference.copies, description)
    if report.distribution is not None and reference.fidelity is not None:
        distance = report.distribution.values["frechet_distance"]
        ratio = distance.synthetic.mean / max(distance.real.mean, 1e-12)
        description = f"the Fréchet distance is {ratio:.2f} times that of real training images"
        yield at_most("reference.fidelity", ratio, reference.fidelity, description)
    if report.usefulness is not None and reference.usefulness is not None:
        ratio = report.usefulness.arms["synthetic"].ratio
        description = (
            f"a classifier trained on the build has {ratio:.3f} times the accuracy of one trained on real images"
        )
        yield at_least("reference.usefulness", ratio, reference.usefulness, description)
