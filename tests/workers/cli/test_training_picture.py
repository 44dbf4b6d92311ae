"""The picture of samples beside a bundle in training: now and then, harmless, and of the bundle at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from torch import Tensor, nn

from generator.curation.quality.early_samples import EarlySamples
from generator.curation.quality.sample_sheets import samples_sheet
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.training import Examples, train_autoencoder
from generator.models.bundle import load_bundle
from generator.production.images import decode_image, is_marked_synthetic
from generator.sources import load_source
from generator.store import open_store
from workers.cli.main import root as cli_root
from workers.cli.training_picture import PICTURE_SECONDS, TrainingPicture, picture_path

SMALL = ("--size", "16", "--model", "linear", "--latent-dim", "4", "--epochs", "3", "--judges", "0", "--json")


def shades(path: Path, *, labelled: bool = True, lonely: bool = False) -> str:
    """Sixty grey images of 8 x 8, in two classes or in none; with ``lonely``, one more in a class of its own."""
    rng = np.random.default_rng(0)
    grey_N = np.array([40] * 30 + [200] * 30 + [120] * lonely)
    images = grey_N[:, None, None] + rng.integers(-30, 30, (len(grey_N), 8, 8))
    facts: dict[str, Any] = {"train_images": images.astype(np.uint8)}
    if labelled:
        labels, names = np.array([0] * 30 + [1] * 30 + [2] * lonely), ["dark", "light"] + ["lonely"] * lonely
        facts |= {"train_labels": labels, "class_names": names}
    np.savez(path, **facts)
    return str(path)


def networks(source: str) -> Any:
    images = load_source(source)
    config = VaeConfig(size=8, channels=1, latent_dim=2, width=4)
    settings = TrainSettings(epochs=1, batch=8, device="cpu")
    trained = train_autoencoder(config, settings, Examples(images.images_NHWC), Examples(images.images_NHWC[:8]))
    return load_encoder(config, trained.encoder_state), load_decoder(config, trained.decoder_state)


def train(*words: str) -> Any:
    done = CliRunner().invoke(cli_root, ["train", *words])
    assert done.exit_code == 0, done.output
    return done


def test_the_last_picture_shows_the_bundle_and_nothing_else_is_changed(tmp_path: Path) -> None:
    facts = json.loads(train("digits", "--out", str(tmp_path / "a"), *SMALL).stdout)
    assert facts["samples"] == str(tmp_path / "a.samples.jpg")
    picture = (tmp_path / "a.samples.jpg").read_bytes()
    assert picture == samples_sheet(load_bundle(open_store(str(tmp_path / "a"))))
    assert is_marked_synthetic(picture)
    plain = json.loads(train("digits", "--out", str(tmp_path / "b"), "--no-pictures", *SMALL).stdout)
    assert plain["digest"] == facts["digest"]
    assert "samples" not in plain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.samples.jpg", "b"]


@pytest.mark.parametrize(("labelled", "lonely"), [(True, False), (True, True), (False, False)])
def test_early_samples_of_any_source(tmp_path: Path, *, labelled: bool, lonely: bool) -> None:
    source = shades(tmp_path / "s.npz", labelled=labelled, lonely=lonely)
    samples, (encoder, decoder) = EarlySamples(load_source(source)), networks(source)
    sheet = samples.sheet(encoder, decoder)
    assert decode_image(sheet, field="picture").std() > 0.0
    assert samples.sheet(encoder, decoder) == sheet


class Watched(nn.Module):
    """An encoder that takes ``cost`` seconds of a clock for each class, and notes when it is asked."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.now, self.cost, self.asked_at = encoder, 1000.0, 0.0, list[float]()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.asked_at.append(self.now - 1000.0)
        self.now += self.cost
        codes_BD: Tensor = self.encoder(x_BCHW)
        return codes_BD


def test_pictures_are_half_a_minute_apart_or_more_where_they_take_long(tmp_path: Path) -> None:
    source = shades(tmp_path / "s.npz", labelled=False)
    encoder, decoder = networks(source)
    watched = Watched(encoder)
    picture = TrainingPicture(tmp_path / "b", load_source(source), quiet=True, clock=lambda: watched.now)
    while watched.now < 1100.0:
        picture.after_epoch(watched, decoder)
        watched.now += 1.0
    assert watched.asked_at == [0.0, PICTURE_SECONDS, 2 * PICTURE_SECONDS, 3 * PICTURE_SECONDS]
    watched.cost = 6.0  # more than a twentieth of half a minute
    while watched.now < 1400.0:
        picture.after_epoch(watched, decoder)
        watched.now += 1.0
    assert watched.asked_at[4:] == [120.0, 240.0, 360.0]
    assert decode_image(picture.path.read_bytes(), field="picture").std() > 0.0


def test_a_picture_that_cannot_be_written_is_told_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = TrainingPicture(tmp_path / "b", load_source(shades(tmp_path / "s.npz")), quiet=False)
    picture_path(tmp_path / "b").mkdir()
    for _ in range(2):
        picture._write(b"sheet")
    told = capsys.readouterr().err
    assert told.count("no picture of samples") == 1
    assert "samples are drawn" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.samples.jpg", "s.npz"]


def test_a_picture_that_cannot_be_drawn_fails_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = TrainingPicture(tmp_path / "b", load_source(shades(tmp_path / "s.npz")), quiet=False)
    assert picture.of_bundle() == {}  # there is no such bundle
    assert "no picture of the bundle's samples" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]
