"""Training a bundle: it resumes, locks its output, and refuses invalid requests before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from generator.errors import BundleError, SettingsError
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.training import Progress
from generator.models.bundle import load_bundle, read_info
from generator.models.features.config import Budget
from generator.models.learning import TrainingCallbacks, train, train_bundle
from generator.sources import load_source
from generator.store import open_store
from workers.cli.main import root as cli_root

pytestmark = pytest.mark.slow


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Sixty grey images of 8 x 8 in two classes."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.array([40, 200]), 30)[:, None, None] + rng.integers(-30, 30, (60, 8, 8))
    labels, names = np.repeat([0, 1], 30), ["dark", "light"]
    np.savez(tmp_path / "shades.npz", train_images=images.astype(np.uint8), train_labels=labels, class_names=names)
    return tmp_path / "shades.npz"


SMALL = VaeConfig(size=8, channels=1, latent_dim=2, width=4)
SHORT = TrainSettings(epochs=2, batch=16, holdout=0.2)


def test_a_bundle_that_could_not_be_written_is_refused_before_training(shades: Path, tmp_path: Path) -> None:
    steps: list[Progress] = []
    for out in (Path("/proc/x/b"), tmp_path / ("n" * 250), tmp_path / ("n" * 240)):
        with pytest.raises(BundleError) as caught:
            train_bundle(load_source(str(shades)), SMALL, SHORT, out, callbacks=TrainingCallbacks(on_step=steps.append))
        assert caught.value.field == "out"
    assert steps == []
    assert [path.name for path in tmp_path.iterdir()] == ["shades.npz"]


def test_two_trainings_do_not_share_a_checkpoint(shades: Path, tmp_path: Path) -> None:
    source, out = load_source(str(shades)), tmp_path / "below" / "b"
    refusals: list[str] = []

    def second(record: EpochRecord) -> None:
        with pytest.raises(BundleError, match="no other training") as caught:
            train_bundle(source, SMALL, SHORT, out)
        refusals.append(caught.value.field)

    learned = train_bundle(source, SMALL, SHORT, out, callbacks=TrainingCallbacks(on_epoch=second))
    assert refusals == ["out", "out"]
    assert [path.name for path in out.parent.iterdir()] == ["b"]
    facts = read_info(open_store(str(out)))[1].source
    assert (learned.trained_on, learned.held_out) == (facts.images, facts.holdout)


def run_cli(*words: str) -> Any:
    return CliRunner().invoke(cli_root, list(words))


def test_a_training_says_that_it_goes_on_only_where_it_does(shades: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(record: EpochRecord) -> None:
        raise Stopped

    words = ("--latent-dim", "2", "--width", "4", "--epochs", "2", "--batch", "16", "--patience", "10", "--judges", "0")
    out, settings = tmp_path / "b", TrainSettings(epochs=2, batch=16, patience=10)
    with pytest.raises(Stopped):
        train_bundle(load_source(str(shades)), SMALL, settings, out, callbacks=TrainingCallbacks(on_epoch=stop))
    assert {path.name for path in tmp_path.iterdir()} == {"shades.npz", "b.checkpoint"}
    foreign = run_cli("train", str(shades), "--out", str(out), *words, "--seed", "5")
    assert isinstance(foreign.exception, SettingsError)
    assert "continuing" not in foreign.output
    resumed = run_cli("train", str(shades), "--out", str(out), *words)
    assert "continuing after epoch 1" in resumed.output
    assert {path.name for path in tmp_path.iterdir()} == {"shades.npz", "b", "b.samples.jpg"}


def test_a_training_killed_while_its_decoder_is_tuned_ends_as_one_that_was_not(
    shades: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, steps: int) -> None:
        assert steps == 3
        if done == 2:
            raise Killed

    monkeypatch.setattr(train, "FEATURE_BUDGET", Budget(steps=2))
    source, settings = load_source(str(shades)), SHORT.model_copy(update={"feature_loss": 1.0, "tuning_steps": 3})
    with pytest.raises(Killed):
        train_bundle(source, SMALL, settings, tmp_path / "b", callbacks=TrainingCallbacks(on_tune=kill))
    assert (tmp_path / "b.checkpoint").exists()
    trained_again: list[EpochRecord] = []
    listening = TrainingCallbacks(on_epoch=trained_again.append)
    resumed = train_bundle(source, SMALL, settings, tmp_path / "b", callbacks=listening)
    whole = train_bundle(source, SMALL, settings, tmp_path / "c")
    untuned = train_bundle(source, SMALL, settings.model_copy(update={"tuning_steps": 0}), tmp_path / "d")
    assert trained_again == []
    assert resumed.digest == whole.digest
    weights = [load_bundle(open_store(str(tmp_path / name))).decoder for name in ("c", "d")]
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert untuned.history == whole.history


def test_train_and_inspect_count_alike(shades: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    words = ("--width", "4", "--epochs", "2", "--batch", "16", "--judges", "0", "--json")
    done = run_cli("train", str(shades), "--out", out, *words)
    trained, inspected = json.loads(done.stdout), json.loads(run_cli("inspect", out, "--no-diagnosis", "--json").stdout)
    assert trained["images"] == 60 == trained["trained_on"] + trained["held_out"]
    assert {name: inspected[name] for name in ("digest", "images", "trained_on", "held_out")} == {
        name: trained[name] for name in ("digest", "images", "trained_on", "held_out")
    }
