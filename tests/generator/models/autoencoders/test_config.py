"""Configurations: defaults, and the refusal of invalid values."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from generator.errors import SpecError
from generator.models.autoencoders.config import default_config, parse_config, side_lengths
from generator.models.autoencoders.settings import TrainSettings, default_settings, parse_settings


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 12, 28, 32, 64, 100, 128])
def test_defaults_fit_every_image(size: int, channels: int) -> None:
    config = default_config(size, channels)
    assert (config.size, config.channels) == (size, channels)
    assert 1 <= config.latent_dim < size * size * channels


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": 7}, "model.size"),
        ({"size": 129}, "model.size"),
        ({"size": "32"}, "model.size"),
        ({"channels": 2}, "model.channels"),
        ({"latent_dim": 0}, "model.latent_dim"),
        ({"latent_dim": 513}, "model.latent_dim"),
        ({"width": 1}, "model.width"),
        ({"family": "gan"}, "model.family"),
        ({"beta": -1.0}, "model.beta"),
        ({"family": "linear", "width": 8}, "model.width"),
        ({"family": "linear", "patch": 5}, "model"),
        ({"family": "linear", "patch": 8, "latent_dim": 8}, "model"),
        ({"depth": 3}, "model.depth"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_config({"family": "vae", "size": 32, "channels": 1, "latent_dim": 8, **change})
    assert refused.value.field == field


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch": 1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"holdout": 0.0},
        {"holdout": 1.0},
        {"device": "tpu"},
        {"seed": -1},
        {"momentum": 0.9},
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings(**change)


@pytest.mark.parametrize("images", [2, 20, 100, 500, 1797, 5000, 54_000, 1_000_000])
def test_few_images_are_seen_as_often_as_they_need(images: int) -> None:
    settings = default_settings(images)
    steps = settings.epochs * max(1, images // min(settings.batch, images))
    assert steps >= 400
    assert steps >= 1400 or settings.epochs == 400
    assert settings.epochs >= 16
    assert settings.patience <= settings.epochs or images > 5000


@pytest.mark.parametrize(("images", "epochs", "patience"), [(45_000, 4, 10), (45_000, 160, 32), (100, 20, 50)])
def test_a_longer_training_is_more_patient(images: int, epochs: int, patience: int) -> None:
    settings = default_settings(images, epochs)
    assert settings.epochs == epochs
    assert settings.patience == patience >= default_settings(images).patience


def test_settings_name_the_field_that_is_wrong() -> None:
    assert parse_settings({"epochs": 3}).epochs == 3
    with pytest.raises(SpecError) as refused:
        parse_settings({"epochs": 3, "batch": -1})
    assert refused.value.field == "train.batch"


@pytest.mark.parametrize("size", range(8, 129))
def test_side_lengths_halve_down_to_the_coarsest_grid(size: int) -> None:
    sides = side_lengths(size)
    assert sides[0] == size
    assert 3 <= sides[-1] <= 4
    assert all(after == (before + 1) // 2 for before, after in pairwise(sides))


def test_importing_the_configuration_does_not_import_torch() -> None:
    code = (
        "import sys, generator.models.autoencoders.config, generator.models.latents; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
