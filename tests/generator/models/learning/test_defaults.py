"""Recommended settings for a source, and that the command `train` uses them by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from generator.errors import SpecError
from generator.models.autoencoders.config import VaeConfig
from generator.models.bundle import read_info
from generator.models.bundle.format import BundleInfo
from generator.models.features.config import Budget
from generator.models.latents.config import TransportSettings
from generator.models.learning import (
    defaults,
    pretrained_sampler,
    recommended_judge,
    recommended_model,
    recommended_sampler,
    recommended_settings,
    train,
)
from generator.models.learning.defaults import MIN_PHOTOGRAPHS
from generator.models.screening import mirroring
from generator.models.screening.config import default_judge
from generator.sources import Source
from generator.store import open_store
from workers.cli.main import root

pytestmark = pytest.mark.slow


def source(images: int, size: int, channels: int, *, classes: int = 2) -> Source:
    images_NHWC = np.broadcast_to(np.uint8(0), (images, size, size, channels))
    labels_N = np.arange(images) % classes if classes else None
    return Source(images_NHWC, labels_N, ("a", "b")[:classes], fingerprint="sha256:" + "0" * 64, name="some")


@pytest.mark.parametrize(
    ("of", "family", "wanted"),
    [
        (source(MIN_PHOTOGRAPHS, 32, 3), "vae", (128, "flow", 1000.0)),
        (source(MIN_PHOTOGRAPHS, 64, 3), "vae", (128, "flow", 1000.0)),
        (source(MIN_PHOTOGRAPHS, 32, 3, classes=0), "vae", (128, "flow", 0.0)),
        (source(MIN_PHOTOGRAPHS, 32, 3, classes=1), "vae", (128, "flow", 0.0)),
        (source(MIN_PHOTOGRAPHS, 32, 3), "stacked", (48, "flow", 0.0)),
        (source(MIN_PHOTOGRAPHS, 32, 3), "linear", (48, "flow", 0.0)),
        (source(MIN_PHOTOGRAPHS - 1, 32, 3), "vae", (48, "mixture", 0.0)),
        (source(MIN_PHOTOGRAPHS, 28, 3), "vae", (48, "mixture", 0.0)),
        (source(MIN_PHOTOGRAPHS, 32, 1), "vae", (24, "mixture", 0.0)),
        (source(MIN_PHOTOGRAPHS, 36, 3), "vae", (128, "flow", 1000.0)),
    ],
)
def test_what_is_recommended(of: Source, family: str, wanted: tuple[int, str, float]) -> None:
    settings = recommended_settings(of, family)
    found = (recommended_model(of, family).latent_dim, recommended_sampler(of).family, settings.feature_loss)
    assert found == wanted
    assert recommended_model(of, family, latent_dim=7).latent_dim == 7
    assert (settings.tuning_steps > 0) == (family == "vae" and settings.feature_loss > 0.0)
    if family == "vae":
        model = recommended_model(of, family)
        assert isinstance(model, VaeConfig)
        assert (model.label_weight > 0.0) == (settings.feature_loss > 0.0)


@pytest.mark.parametrize(
    ("count", "flow", "transport"), [(100_000, 24, 40), (300_000, 8, 13), (1_000_000, 2, 4), (10_000_000, 2, 2)]
)
def test_maps_and_flows_of_large_sources_take_fewer_epochs(count: int, flow: int, transport: int) -> None:
    colour, grey = (
        replace(source(1, 32, 3), images_NHWC=np.broadcast_to(np.uint8(0), (count, 32, 32, channels)))
        for channels in (3, 1)
    )
    found = [recommended_sampler(colour, "vae"), recommended_sampler(grey, "spatial")]
    assert [(each.family, getattr(each, "epochs", None)) for each in found] == [
        ("flow", flow),
        ("transport", transport),
    ]


@pytest.mark.parametrize(("family", "limits"), [("vae", "8 to 128"), ("spatial", "32 to 512")])
def test_sides_that_a_family_does_not_have_are_named(family: str, limits: str) -> None:
    wide = source(4, 600, 3)
    wide = replace(wide, images_NHWC=wide.images_NHWC[:, :100])
    with pytest.raises(SpecError, match=rf"size: expected {limits} pixels a side for the model {family}, got 600x100"):
        recommended_model(wide, family)


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hundred photographs, with a lower threshold, and a classifier trained for few steps."""
    monkeypatch.setattr(defaults, "MIN_PHOTOGRAPHS", 100)
    monkeypatch.setattr(defaults, "_TUNING_STEPS", 2)
    monkeypatch.setattr(train, "FEATURE_BUDGET", Budget(steps=2))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8), np.arange(100) % 2
    np.savez(tmp_path / "photographs.npz", train_images=images, train_labels=labels, class_names=["a", "b"])
    return tmp_path / "photographs.npz"


def trained(photographs: Path, *options: str) -> BundleInfo:
    out = photographs.with_name("".join(options) + ".bundle")
    quick = ("--width", "4", "--epochs", "1", "--judges", "0", "--holdout", "0.2")
    done = CliRunner().invoke(root, ["train", str(photographs), "--out", str(out), *quick, *options])
    assert done.exit_code == 0, done.output
    return read_info(open_store(str(out)))[1]


def test_train_follows(photographs: Path) -> None:
    info = trained(photographs, "--flow-epochs", "1", "--sampler", "flow")
    assert isinstance(info.autoencoder, VaeConfig)
    assert (info.latent_dim, info.training.settings.feature_loss) == (128, 1000.0)
    assert (info.training.settings.tuning_steps, info.autoencoder.label_weight) == (2, 30.0)
    info = trained(photographs, "--latent-dim", "4", "--feature-loss", "0")
    assert (info.latent_dim, info.fitting.settings.family, info.training.settings.feature_loss) == (4, "flow", 0.0)
    assert info.training.settings.tuning_steps == 0
    info = trained(photographs, "--latent-dim", "4", "--clusters", "1", "--feature-loss", "3")
    assert (info.fitting.settings.family, info.training.settings.feature_loss) == ("mixture", 3.0)


def test_photographs_get_a_wider_calibrated_judge_and_others_the_usual_one() -> None:
    settings, many = recommended_settings(source(10, 32, 3)), source(MIN_PHOTOGRAPHS, 32, 3)
    for of in (source(MIN_PHOTOGRAPHS - 1, 32, 3), source(MIN_PHOTOGRAPHS, 32, 1), source(100, 8, 1)):
        assert recommended_judge(of, settings) == default_judge(of.size)
        assert recommended_judge(of, settings, mirrored=True).mirrored
    for mirrored in (False, True):
        judge = recommended_judge(many, settings, mirrored=mirrored)
        assert (judge.calibrated, judge.mirrored) == (True, mirrored)
        assert judge.width >= default_judge(32).width
        assert judge.budget.steps > default_judge(32).budget.steps
    assert not recommended_judge(source(MIN_PHOTOGRAPHS, 32, 3, classes=0), settings).mirrored


@pytest.mark.parametrize("symmetric", [False, True])
def test_photographs_are_mirrored_where_that_keeps_their_class(
    symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classes: a bright left side and a bright right side, or a bright middle and bright sides."""
    monkeypatch.setattr(defaults, "MIN_PHOTOGRAPHS", 100)
    monkeypatch.setattr(mirroring, "MIN_IMAGES", 10)
    monkeypatch.setattr(mirroring, "_STEPS", 20)
    rng, labels_N = np.random.default_rng(0), np.arange(200) % 2
    position_W = np.arange(32) / 31
    profile_W = 2.0 * np.abs(position_W - 0.5) if symmetric else position_W
    bright_NW = np.where(labels_N[:, None] == 1, profile_W, 1.0 - profile_W)
    images_NHWC = (bright_NW[:, None, :, None] * 200 + rng.integers(0, 50, (200, 32, 32, 3))).astype(np.uint8)
    some = Source(images_NHWC, labels_N, ("a", "b"), fingerprint="sha256:" + "0" * 64, name="some")
    assert recommended_judge(some, recommended_settings(some)).mirrored == symmetric


def test_codes_with_a_shape_get_clusters_for_many_photographs_and_else_a_map() -> None:
    many, few, grey = (source(*of) for of in ((MIN_PHOTOGRAPHS, 32, 3), (MIN_PHOTOGRAPHS - 1, 32, 3), (10**5, 32, 1)))
    assert recommended_sampler(many, "spatial") == pretrained_sampler(many)
    assert [recommended_sampler(each, "spatial") for each in (few, grey)] == [TransportSettings()] * 2


def test_the_pretrained_autoencoder_gets_clusters_for_many_photographs() -> None:
    many, few = (pretrained_sampler(source(count, 32, 3)) for count in (MIN_PHOTOGRAPHS, MIN_PHOTOGRAPHS - 1))
    assert (many, few) == (TransportSettings(map=None, clusters=20), TransportSettings(map=None))
