"""``latentmill train`` of colour photographs starts from the pretrained autoencoder, and from scratch where asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from generator.errors import SpecError
from generator.models.bundle import Bundle, load_bundle
from generator.models.converters.pretrained import pretrained_graphs
from generator.models.learning import budget, pretrained_network, suits_pretrained
from generator.sources.base import make_source
from generator.store import open_store
from workers.cli.main import root

pytestmark = pytest.mark.slow
QUICK = ("--judges", 0, "--json")


def train(*arguments: object) -> Result:
    return CliRunner().invoke(root, ["train", *map(str, arguments)], catch_exceptions=False)


def facts(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def load(path: Path) -> Bundle:
    return load_bundle(open_store(str(path)))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of 32 pixels in two classes: smooth fields, warm and cold."""
    rng = np.random.default_rng(0)
    field_NHW = rng.normal(size=(40, 4, 4)).repeat(8, axis=1).repeat(8, axis=2)
    labels_N = np.arange(40) % 2
    tint_N113 = np.where(labels_N[:, None, None, None] == 1, [220, 120, 60], [40, 90, 200])
    images_NHWC = np.clip(tint_N113 + 20 * field_NHW[..., None], 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("colours") / "colours.npz"
    np.savez(path, images=images_NHWC, labels=labels_N, class_names=np.array(["cold", "warm"]))
    return path


@pytest.fixture(scope="module")
def plain(colours: Path) -> dict[str, Any]:
    """What is said of a bundle without training of the autoencoder, ``plain`` beside the images."""
    return facts(train(colours, "--out", colours.with_name("plain"), *QUICK))


def test_colour_images_start_from_the_pretrained_autoencoder(colours: Path, plain: dict[str, Any]) -> None:
    assert plain["model"] == "pretrained autoencoder"
    assert plain["reconstruction_error"] < 0.006
    info = load(colours.with_name("plain")).info
    assert (info.autoencoder.family, info.latent_dim, info.classes) == ("graph", 512, ("cold", "warm"))
    assert info.fitting.settings.family == "transport"


def test_a_judge_is_mirrored_where_the_user_says_so(colours: Path, tmp_path: Path) -> None:
    train(colours, "--out", tmp_path / "bundle", "--judge-steps", 5, "--judge-mirror", "--json")
    judge = load(tmp_path / "bundle").info.judge
    assert judge is not None
    assert judge.mirrored
    assert not judge.calibrated


def test_epochs_train_the_decoder_further(colours: Path, plain: dict[str, Any], tmp_path: Path) -> None:
    tuned = facts(train(colours, "--out", tmp_path / "tuned", "--epochs", 2, "--batch", 8, "--feature-loss", 0, *QUICK))
    assert (plain["epochs"], tuned["epochs"]) == (0, 2)
    assert tuned["reconstruction_error"] < plain["reconstruction_error"]


def test_a_budget_becomes_epochs(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 16 images takes a hundredth of a second, so an epoch of 36 takes three of them."""
    monkeypatch.setattr(budget, "_step_seconds", lambda *_: 0.01)
    quick = ("--judges", 0, "--feature-loss", 0, "--batch", 16)
    result = train(colours, "--out", tmp_path / "bundle", "--budget", "0.1s", *quick)
    assert "plan for 0 s: the pretrained autoencoder, 512 numbers a code, 3 epochs" in result.stderr
    assert load(tmp_path / "bundle").info.training_facts.settings.epochs == 3
    with pytest.raises(SpecError, match=r"budget: expected at least \d+ seconds to encode the images"):
        train(colours, "--out", tmp_path / "other", "--budget", "0.01s", *quick)


@pytest.mark.parametrize(
    ("options", "family"),
    [
        (("--from", "scratch"), "vae"),
        (("--model", "linear"), "linear"),
        (("--latent-dim", 8), "vae"),
        (("--size", 28), "vae"),
        (("--channels", 1), "vae"),
        (("--from", "pretrained", "--channels", 1), "graph"),
    ],
)
def test_what_is_trained(options: tuple[object, ...], family: str, colours: Path, tmp_path: Path) -> None:
    epochs = () if family == "graph" else ("--epochs", 1)
    sampler = ("--sampler", "gaussian", "--covariance", "diagonal")
    train(colours, "--out", tmp_path / "bundle", *options, *epochs, *sampler, *QUICK)
    info = load(tmp_path / "bundle").info
    assert info.autoencoder.family == family
    assert info.image.channels == (1 if "--channels" in options else 3)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--from", "pretrained", "--model", "vae"), "from"),
        (("--from", "pretrained", "--latent-dim", 8), "from"),
        (("--from", "pretrained", "--size", 513), "size"),
        (("--epochs", 2, "--reconstruction", "bce"), "train.reconstruction"),
        (("--budget", "60s", "--epochs", 2), "budget"),
    ],
)
def test_choices_that_exclude_each_other(
    options: tuple[object, ...], field: str, colours: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as error:
        train(colours, "--out", tmp_path / "bundle", *options, *QUICK)
    assert error.value.field == field
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("options", [("--from", "pretrained", "--size", 7), ("--size", 513)])
def test_a_size_is_refused_before_anything_is_read(options: tuple[object, ...], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"size: expected 8 to .* pixels a side"):
        train(tmp_path / "nowhere", "--out", tmp_path / "bundle", *options, *QUICK)


def test_grey_images_are_three_equal_channels() -> None:
    grey, colour = pretrained_network(32, 1), pretrained_network(32, 3)
    assert (grey.config.channels, grey.config.code_shape) == (1, (32, 4, 4))
    assert sum(weight.size for weight in grey.decoder.values()) == sum(
        weight.size for weight in colour.decoder.values()
    )
    encoder, decoder = pretrained_graphs(64, 3)
    assert encoder.graph.shapes()[encoder.graph.output] == decoder.graph.shapes()["code"] == (32, 8, 8)


@pytest.mark.parametrize(
    ("height", "width", "channels", "suits"),
    [
        (32, 32, 3, True),
        (36, 36, 3, True),
        (75, 100, 3, True),
        (24, 64, 3, False),
        (64, 24, 3, False),
        (32, 32, 1, False),
    ],
)
def test_which_sources_suit(height: int, width: int, channels: int, suits: bool) -> None:
    source = make_source(np.zeros((4, height, width, channels), np.uint8), None, (), name="s")
    assert suits_pretrained(source) is suits
