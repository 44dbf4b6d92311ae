"""Recommended settings for a source, and that the command `train` uses them by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from generator.errors import SpecError
from generator.models.bundle import read_info
from generator.models.bundle.format import BundleInfo
from generator.models.features.config import Budget
from generator.models.learning import defaults, recommended_model, recommended_sampler, recommended_settings, train
from generator.models.learning.defaults import MIN_PHOTOGRAPHS
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
    assert (info.latent_dim, info.training.settings.feature_loss) == (128, 1000.0)
    info = trained(photographs, "--latent-dim", "4", "--feature-loss", "0")
    assert (info.latent_dim, info.fitting.settings.family, info.training.settings.feature_loss) == (4, "flow", 0.0)
    info = trained(photographs, "--latent-dim", "4", "--clusters", "1", "--feature-loss", "3")
    assert (info.fitting.settings.family, info.training.settings.feature_loss) == ("mixture", 3.0)
