"""Refitting a bundle: all but the latent distribution is unchanged; invalid requests are refused before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from generator.errors import BundleError, SourceError, SpecError
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import load_bundle, load_codes, load_encoder_weights, save_bundle
from generator.models.latents.config import FlowSettings, GaussianSettings, MixtureSettings, PolarSettings
from generator.models.latents.fitting.code_map import fit_code_map
from generator.models.learning import refit, train_bundle
from generator.sources import load_source
from generator.store import open_store
from tests.support.bundles import tiny_contents
from workers.cli.main import root as cli_root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of sixty grey images of 8 x 8 in two classes, with three latent dimensions."""
    home = tmp_path_factory.mktemp("refitting")
    rng = np.random.default_rng(0)
    images = np.repeat(np.array([40, 200]), 30)[:, None, None] + rng.integers(-30, 30, (60, 8, 8))
    labels, names = np.repeat([0, 1], 30), ["dark", "light"]
    np.savez(home / "shades.npz", train_images=images.astype(np.uint8), train_labels=labels, class_names=names)
    config = VaeConfig(size=8, channels=1, latent_dim=3, width=4)
    train_bundle(load_source(str(home / "shades.npz")), config, TrainSettings(epochs=2, batch=16, seed=5), home / "b")
    return home / "b"


def test_all_but_the_latent_distribution_stays(bundle: Path, tmp_path: Path) -> None:
    refitted = refit(open_store(str(bundle)), GaussianSettings(covariance="tied"), tmp_path / "new")
    old_store, new_store = open_store(str(bundle)), open_store(str(tmp_path / "new"))
    old, new = load_bundle(old_store), load_bundle(new_store, refitted.digest)
    assert (refitted.before, new.info.latents["family"]) == (old.digest, "gaussian")
    assert new.info.fitting.settings == GaussianSettings(covariance="tied")
    assert new.info.fitting.seed == 5
    for field in ("autoencoder", "source", "training", "classes", "image"):
        assert getattr(new.info, field) == getattr(old.info, field)
    for name in ("decoder.safetensors", "encoder.safetensors", "codes.safetensors"):
        assert new.info.files[name] == old.info.files[name]  # type: ignore[index]
    assert load_encoder_weights(new_store, new.info).keys() == load_encoder_weights(old_store, old.info).keys()
    assert len(load_codes(new_store, new.info).codes_ND) == old.info.source.images


def test_the_map_stays_and_an_old_bundle_gets_one(bundle: Path, tmp_path: Path) -> None:
    refit(open_store(str(bundle)), GaussianSettings(), tmp_path / "new")
    old, new = (json.loads((path / "bundle.json").read_text())["files"] for path in (bundle, tmp_path / "new"))
    assert old["map.safetensors"] == new["map.safetensors"]
    save_bundle(tmp_path / "without", replace(tiny_contents(), code_map=None))
    assert load_bundle(open_store(str(tmp_path / "without"))).code_map is None
    refit(open_store(str(tmp_path / "without")), GaussianSettings(), tmp_path / "with")
    found = load_bundle(open_store(str(tmp_path / "with"))).code_map
    assert found is not None
    codes = load_codes(open_store(str(tmp_path / "with")), load_bundle(open_store(str(tmp_path / "with"))).info)
    assert np.array_equal(found.axes_2D, fit_code_map(codes).axes_2D)


def test_the_sampler_it_had_gives_the_bundle_it_was(bundle: Path, tmp_path: Path) -> None:
    refitted = refit(open_store(str(bundle)), MixtureSettings(), tmp_path / "new")
    assert refitted.digest == refitted.before


def test_what_cannot_be_done_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist yet"):
        refit(open_store(str(bundle)), GaussianSettings(), bundle)
    with pytest.raises(SourceError, match="2 dimensions"):
        refit(open_store(str(bundle)), PolarSettings(), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    asked = ["fit", str(bundle), "--sampler", "mixture", "--clusters", "2", "--covariance", "diagonal"]
    done = CliRunner().invoke(cli_root, [*asked, "--out", str(out), "--json"], catch_exceptions=False)
    facts = json.loads(done.stdout)
    assert load_bundle(open_store(str(out))).digest == facts["digest"] != facts["fitted_from"]
    assert facts["chosen"] == {"clusters": {"dark": 2, "light": 2}}


def test_options_of_a_sampler_need_its_name(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="named sampler"):
        CliRunner().invoke(
            cli_root, ["fit", str(bundle), "--clusters", "2", "--out", str(tmp_path / "n")], catch_exceptions=False
        )


def test_settings_of_a_flow_reach_it(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    asked = ["fit", str(bundle), "--sampler", "flow", "--transforms", "2", "--hidden", "8", "--out", str(out)]
    CliRunner().invoke(
        cli_root,
        [*asked, "--flow-epochs", "3", "--flow-rate", "0.001", "--flow-decay", "0.5"],
        catch_exceptions=False,
    )
    settings = load_bundle(open_store(str(out))).info.fitting.settings
    assert settings == FlowSettings(transforms=2, hidden=8, epochs=3, learning_rate=0.001, weight_decay=0.5)
    words = [*asked[:3], "mixture", "--flow-epochs", "3", "--out", str(tmp_path / "n")]
    with pytest.raises(SpecError, match="unknown field 'epochs'"):
        CliRunner().invoke(cli_root, words, catch_exceptions=False)
