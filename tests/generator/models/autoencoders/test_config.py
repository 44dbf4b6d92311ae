"""Configurations: defaults, and the refusal of invalid values."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from generator.errors import SpecError
from generator.models.autoencoders.config import FAMILIES, check_model_size, default_config, grid_shapes, parse_config
from generator.models.autoencoders.settings import TrainSettings, default_settings, parse_settings
from generator.spec.image_size import ImageSize


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
        ({"image_width": 7}, "model.image_width"),
        ({"image_width": 129}, "model.image_width"),
        ({"family": "linear", "patch": 8, "latent_dim": 24, "image_width": 28}, "model"),
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
def test_grids_halve_down_to_the_coarsest(size: int) -> None:
    for grids in (grid_shapes(ImageSize(size, size)), grid_shapes(ImageSize(size, 8)), grid_shapes(ImageSize(8, size))):
        assert 3 <= min(grids[-1]) <= max(grids[-1]) <= 4
        for before, after in pairwise(grids):
            for side, halved in zip(before, after, strict=True):
                assert halved == (side if side <= 4 else (side + 1) // 2)
    assert grid_shapes(ImageSize(50, 28)) == ((28, 50), (14, 25), (7, 13), (4, 7), (4, 4))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_side_is_left_out_of_the_json_of_squares(family: str) -> None:
    square = default_config(64, 1, family)
    assert square == default_config((64, 64), 1, family)
    assert b"image_width" not in square.canonical()
    assert square.image_size == (64, 64)
    oblong = default_config((96, 64), 1, family)
    assert b'"image_width":96' in oblong.canonical()
    assert oblong.image_size == ImageSize(width=96, height=64)
    assert parse_config(oblong.model_dump(mode="json")) == oblong


@pytest.mark.parametrize(
    ("family", "size", "limits"),
    [
        ("vae", (129, 64), "8 to 128"),
        ("vae", (64, 7), "8 to 128"),
        ("spatial", (513, 64), "32 to 512"),
        ("spatial", (64, 31), "32 to 512"),
    ],
)
def test_sides_that_a_family_does_not_have_are_refused(family: str, size: tuple[int, int], limits: str) -> None:
    with pytest.raises(SpecError, match=f"size: expected {limits} pixels a side.*got {size[0]}x{size[1]}"):
        check_model_size(family, size)
    with pytest.raises(SpecError, match=r"model\.(size|image_width)"):
        default_config(size, 1, family)


def test_importing_the_configuration_does_not_import_torch() -> None:
    code = (
        "import sys, generator.models.autoencoders.config, generator.models.latents; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
