"""The command ``latentmill label``: images with confident labels become a source for training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from generator.errors import BundleError, SettingsError, SourceError
from generator.models.bundle import load_bundle
from generator.models.screening.label_judge import load_judge
from generator.production.decoding import ResidentDecoder
from generator.sources import load_source
from generator.store import open_store
from tests.support.bundles import screened_bundle, tiny_bundle
from workers.cli.label import label_command


def label(*words: object) -> Result:
    return CliRunner().invoke(label_command, [*map(str, words), "--json"], catch_exceptions=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return screened_bundle(tmp_path_factory.mktemp("label") / "guarded")


@pytest.fixture(scope="module")
def shown(bundle: Path) -> np.ndarray:
    """Images of the bundle's own decoder."""
    decoder = ResidentDecoder(load_bundle(open_store(str(bundle))), batch=60, dtype="float32", device="cpu")
    return decoder.decode(2.0 * np.random.default_rng(3).normal(size=(60, 4)).astype(np.float32))


@pytest.fixture
def unlabelled(shown: np.ndarray, tmp_path: Path) -> Path:
    np.savez(tmp_path / "images.npz", images=shown)
    return tmp_path / "images.npz"


def test_what_the_judge_is_sure_of_can_be_loaded_with_its_labels(
    bundle: Path, shown: np.ndarray, unlabelled: Path, tmp_path: Path
) -> None:
    held = load_bundle(open_store(str(bundle)))
    assert held.info.judge is not None
    assert held.screening.judge_weights is not None
    judge = load_judge(held.info.judge, held.screening.judge_weights, size=8, channels=1, classes=3)
    said_NC = judge.probabilities(shown)
    floor = float(np.median(said_NC.max(axis=1)))
    sure_N = said_NC.max(axis=1) >= floor
    done = label(bundle, unlabelled, "--out", tmp_path / "labelled.npz", "--floor", floor)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert (facts["images"], facts["labelled"]) == (60, sure_N.sum())
    again = load_source(str(tmp_path / "labelled.npz"))
    np.testing.assert_array_equal(again.images_NHWC, shown[sure_N])
    assert again.labels_N is not None
    np.testing.assert_array_equal(again.labels_N, said_NC[sure_N].argmax(axis=1))
    assert again.class_names == held.info.classes
    with np.load(tmp_path / "labelled.npz") as archive:
        np.testing.assert_array_equal(archive["train_probabilities"], said_NC[sure_N])


def test_what_cannot_be_labelled_is_refused(bundle: Path, unlabelled: Path, tmp_path: Path) -> None:
    plain, out = tiny_bundle(tmp_path / "plain"), tmp_path / "labelled.npz"
    assert isinstance(label(plain, unlabelled, "--out", out).exception, BundleError)
    assert isinstance(label(bundle, unlabelled, "--out", out, "--floor", 1.0).exception, SourceError)
    assert isinstance(label(bundle, unlabelled, "--out", unlabelled).exception, SettingsError)
    assert not out.exists()
