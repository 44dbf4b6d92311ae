"""Gates beside real images. Imports torch; loaded only where a reference is given."""

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
from generator.models.features.config import Budget
from generator.sources import Source, load_source
from generator.store import S3Settings
from generator.store.base import Store


def check_reference(
    build: Store,
    looked: ImageSubset,
    bundle: Store,
    wanted: Reference,
    *,
    s3: S3Settings | None,
    on_stage: Callable[[str], None],
) -> list[Check]:
    """Measure the images ``looked`` at beside the ``wanted`` reference; the report goes to ``reports/quality.json``.

    ``build`` is the store seen from the build's prefix, ``bundle`` that of the bundle. Raises ``SourceError``,
    ``MeasureError`` and ``BundleError`` where the reference does not fit the build.
    """
    _, info = read_info(bundle)
    on_stage(f"reading {wanted.source}")
    subject = _load_subject(build, looked, info, wanted, s3)
    settings = MeasureSettings(
        measures=_wanted_measures(wanted), seeds=wanted.seeds, limit=wanted.limit, budget=Budget(steps=wanted.steps)
    )
    encoder = None if info.classes else _load_encoder(bundle, info)
    report = measure(subject, settings, encoder=encoder, on_stage=on_stage)
    build.put(QUALITY_REPORT_KEY, report.model_dump_json(indent=2).encode() + b"\n")
    return list(_checks(report, wanted))


def _load_subject(
    build: Store, looked: ImageSubset, info: BundleInfo, wanted: Reference, s3: S3Settings | None
) -> Subject:
    size, channels = info.image.height, info.image.channels
    real = load_source(wanted.source, size=size, channels=channels, skip_bad=wanted.skip_bad)
    test: Source | None = None
    if wanted.test == "test":
        test = load_source(wanted.source, size=size, channels=channels, split="test")
    elif wanted.test is not None:
        test = load_source(wanted.test, size=size, channels=channels)
    rows = np.arange(min(len(looked), wanted.limit)) * len(looked) // min(len(looked), wanted.limit)
    sampled = Images(looked.images_NHWC[rows], looked.labels_N[rows])
    return load_subject(build.url, real, info, test=test, sampled=sampled, s3=s3)


def _load_encoder(bundle: Store, info: BundleInfo) -> nn.Module:
    weights = load_encoder_weights(bundle, info)
    return load_encoder(info.autoencoder, {name: torch.from_numpy(np.array(each)) for name, each in weights.items()})


def _wanted_measures(wanted: Reference) -> tuple[Measure, ...]:
    asked: dict[Measure, object] = {
        "fidelity": wanted.fidelity,
        "novelty": wanted.copies,
        "usefulness": wanted.usefulness,
    }
    return tuple(name for name, threshold in asked.items() if threshold is not None)


def _checks(report: QualityReport, wanted: Reference) -> Iterator[Check]:
    if report.novelty is not None and wanted.copies is not None:
        found = report.novelty["pixels"]
        what = f"{found.share:.2%} of the images are nearer to a real one than unseen real images are"
        yield at_most("reference.copies", found.share, wanted.copies, what)
    if report.distribution is not None and wanted.fidelity is not None:
        both = report.distribution.values["frechet_distance"]
        ratio = both.synthetic.mean / max(both.real.mean, 1e-12)
        what = f"the Fréchet distance is {ratio:.2f} times that of real training images"
        yield at_most("reference.fidelity", ratio, wanted.fidelity, what)
    if report.usefulness is not None and wanted.usefulness is not None:
        ratio = report.usefulness.arms["synthetic"].ratio
        what = f"a classifier trained on the build is right {ratio:.3f} times as often as one trained on real images"
        yield at_least("reference.usefulness", ratio, wanted.usefulness, what)
