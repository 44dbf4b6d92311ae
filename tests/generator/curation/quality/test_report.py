"""Usefulness, the quality report, and ``latentmill measure``, with a small bundle trained on digits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from generator.curation.quality.report import MeasureSettings, QualityReport, measure
from generator.curation.quality.subject import Images, Subject, SubjectFacts, load_subject
from generator.curation.quality.usefulness import Mixed, usefulness
from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import DatasetError, MeasureError, SourceError
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import load_bundle, read_info
from generator.models.features.classifier import LabelledImages
from generator.models.features.config import Budget
from generator.models.latents.config import MixtureSettings
from generator.models.learning import train_bundle
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.sources import load_source
from generator.sources.base import make_source
from generator.store import open_store
from workers.cli.main import root

pytestmark = pytest.mark.slow

CONFIG = VaeConfig(size=8, channels=1, latent_dim=8, width=16)
TRAINING = TrainSettings(epochs=5, batch=32, holdout=0.2, seed=5, device="cpu")
SHORT = MeasureSettings(seeds=2, budget=Budget(steps=50, batch=64))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For networks this small, the overhead of threads is larger than the gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Made:
    bundle: Path
    dataset: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = tmp_path_factory.mktemp("quality")
    train_bundle(load_source("digits"), CONFIG, TRAINING, home / "bundle", sampler=MixtureSettings(clusters=4))
    return Made(home / "bundle", built(home / "bundle", home, "digits", 600))


def built(bundle: Path, home: Path, name: str, count: int) -> str:
    fields = {"bundle": str(bundle), "destination": str(home / "out"), "name": name, "count": count}
    job, store = resolve_draft(parse_draft(fields))
    location = locate_build(job)
    build(location, load_bundle(store), device="cpu")
    return location.url


def subject_of(made: Made) -> Subject:
    _, info = read_info(open_store(str(made.bundle)))
    return load_subject(made.dataset, load_source("digits"), info)


@pytest.fixture(scope="module")
def subject(made: Made) -> Subject:
    return subject_of(made)


@pytest.fixture(scope="module")
def report(subject: Subject) -> QualityReport:
    return measure(subject, SHORT)


def test_the_split_is_that_of_the_training(made: Made, subject: Subject) -> None:
    _, info = read_info(open_store(str(made.bundle)))
    assert (len(subject.train), len(subject.holdout)) == (info.source.images, info.source.holdout)
    source = load_source("digits")
    together = np.concatenate([subject.train.images_NHWC, subject.holdout.images_NHWC])
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in source.images_NHWC)


def test_a_report_says_what_was_measured_on_what(subject: Subject, report: QualityReport) -> None:
    facts = report.subject
    assert (facts.synthetic_images, facts.train_images, facts.holdout_images) == (600, 1438, 359)
    assert report.features == "classifier"
    found = report.distribution
    assert found is not None
    assert (found.images, found.against) == (359, "holdout")
    for name in ("frechet_distance", "kernel_distance"):
        assert found.values[name].synthetic.mean > found.values[name].real.mean
    for name in ("precision", "recall", "coverage"):
        assert 0.0 <= found.values[name].synthetic.mean <= 1.0
        assert found.values[name].real.mean > 0.6
        assert len(found.values[name].real.values) == 2
    assert report.novelty is not None
    assert report.novelty["pixels"].identical == 0
    assert report.novelty["pixels"].protection.score > 0.8
    assert report.duplicates is not None
    assert report.duplicates.threshold == report.novelty["pixels"].threshold
    assert report.usefulness is not None
    assert list(report.usefulness.arms) == ["real", "synthetic", "real + synthetic"]
    assert report.usefulness.arms["real"].ratio == 1.0
    assert report.usefulness.arms["synthetic"].mean > 0.5
    assert QualityReport.model_validate_json(report.model_dump_json()) == report


def test_a_report_can_be_taken_again_and_in_parts(subject: Subject, report: QualityReport) -> None:
    part = measure(subject, SHORT.model_copy(update={"measures": ("fidelity",)}))
    assert part.novelty is part.duplicates is part.usefulness is None
    assert part.distribution is not None
    assert report.distribution is not None
    assert part.distribution.values["frechet_distance"] == report.distribution.values["frechet_distance"]


def test_training_images_sold_as_synthetic_ones_are_found_out(subject: Subject) -> None:
    copied = Subject(subject.facts, subject.train, subject.train, subject.holdout, None)
    found = measure(copied, SHORT.model_copy(update={"measures": ("novelty", "duplicates")}))
    assert found.novelty is not None
    for space in ("pixels", "features"):
        assert found.novelty[space].share == 1.0  # type: ignore[index]
        assert found.novelty[space].authenticity == 0.0  # type: ignore[index]
        assert found.novelty[space].protection.high < 1.0  # type: ignore[index,operator]


def test_novelty_of_a_part_names_the_samples_of_the_whole(subject: Subject) -> None:
    """Training images among the samples are found, at their places among all samples."""
    images_NHWC = subject.synthetic.images_NHWC.copy()
    sold = np.arange(0, len(images_NHWC), 2)
    images_NHWC[sold] = subject.train.images_NHWC[: len(sold)]
    part = replace(subject, synthetic=Images(images_NHWC, subject.synthetic.labels_N))
    report = measure(part, SHORT.model_copy(update={"measures": ("novelty",), "seeds": 1, "novelty_limit": 100}))
    assert report.novelty is not None
    found = report.novelty["pixels"]
    assert 30 <= found.identical <= 70
    assert set(found.nearest_copies[: found.identical]) <= set(sold.tolist())


def test_without_labels_an_encoder_looks(subject: Subject) -> None:
    from generator.models.autoencoders.factory import build_encoder

    sets = (Images(each.images_NHWC) for each in (subject.synthetic, subject.train, subject.holdout))
    facts = SubjectFacts(**subject.facts.model_dump() | {"classes": ()})
    plain = Subject(facts, *sets, None)
    settings = SHORT.model_copy(update={"measures": ("fidelity", "coverage")})
    found = measure(plain, settings, encoder=build_encoder(CONFIG).eval())
    assert found.features == "encoder"
    assert found.distribution is not None
    assert found.distribution.values["frechet_distance"].synthetic.mean > 0.0
    with pytest.raises(MeasureError, match="encoder"):
        measure(plain, settings)
    with pytest.raises(MeasureError, match="labels"):
        measure(plain, SHORT, encoder=build_encoder(CONFIG).eval())


def test_a_source_that_is_another_one_is_refused(made: Made) -> None:
    source = load_source("digits")
    assert source.labels_N is not None
    images_NHWC = source.images_NHWC.copy()
    images_NHWC[0, 0, 0, 0] ^= 1
    other = make_source(images_NHWC, source.labels_N, source.class_names, name="other")
    _, info = read_info(open_store(str(made.bundle)))
    with pytest.raises(SourceError, match="the images behind the dataset"):
        load_subject(made.dataset, other, info)
    letters = make_source(images_NHWC, source.labels_N, tuple("abcdefghij"), name="letters")
    with pytest.raises(MeasureError, match=r"test\.classes"):
        load_subject(made.dataset, source, info, test=letters)
    small = make_source(np.zeros((4, 16, 16, 1), np.uint8), None, (), name="small")
    with pytest.raises(MeasureError, match="shape"):
        load_subject(made.dataset, source, info, test=small)


def test_more_data_is_more_useful_and_all_arms_get_the_same(subject: Subject) -> None:
    train, test = subject.train.labelled(), subject.holdout.labelled()
    few = LabelledImages(train.images_NHWC[:40], train.labels_N[:40])
    runs: list[tuple[str, int]] = []
    found = usefulness(
        {"real": few, "more": train, "both": Mixed(few, train)},
        test,
        classes=10,
        budget=Budget(steps=40, batch=32),
        seeds=2,
        on_run=lambda arm, seed, *_: runs.append((arm, seed)),
    )
    assert runs == [(arm, seed) for arm in ("real", "more", "both") for seed in (0, 1)]
    few_arm, more = found.arms["real"], found.arms["more"]
    assert more.mean > few_arm.mean
    assert found.arms["both"].mean > few_arm.mean
    assert more.ratio == pytest.approx(more.mean / few_arm.mean)
    assert more.errors_removed == pytest.approx((more.mean - few_arm.mean) / (1.0 - few_arm.mean))
    assert (few_arm.errors_removed, few_arm.ratio) == (0.0, 1.0)
    with pytest.raises(MeasureError, match="one called 'real'"):
        usefulness({"fake": few}, test, classes=10, budget=Budget(steps=1))


def run(made: Made, *words: str) -> Result:
    home = {"LATENTMILL_ROOT": str(made.bundle.parent / "root")}
    return CliRunner(env=home).invoke(root, ["measure", made.dataset, *words])


def test_the_command_writes_a_report_beside_the_commit(made: Made) -> None:
    words = (
        "--bundle",
        str(made.bundle),
        "--measures",
        "novelty,duplicates,usefulness",
        "--seeds",
        "1",
        "--steps",
        "40",
    )
    done = run(made, "digits", *words, "--json")
    assert done.exit_code == 0, done.output
    stored = Path(made.dataset.removeprefix("file://")) / "reports" / "quality.json"
    assert json.loads(stored.read_text()) == json.loads(done.stdout)
    shown = run(made, "digits", *words)
    assert "protection" in shown.stdout
    assert "ratio" in shown.stdout
    assert "seed 0" in shown.stderr
    assert not verify_dataset(made.dataset, deep=True).problems


def test_the_command_refuses_before_it_works(made: Made) -> None:
    bundle = ("--bundle", str(made.bundle))
    for words, error in {
        ("digits", *bundle, "--measures", "beauty"): MeasureError,
        ("digits", *bundle, "--seeds", "0"): MeasureError,
        ("digits", *bundle, "--test", "test"): SourceError,
        ("nowhere", *bundle): SourceError,
    }.items():
        assert isinstance(run(made, *words).exception, error), words
    missing = CliRunner().invoke(root, ["measure", str(made.bundle), "digits"])
    assert isinstance(missing.exception, DatasetError)
