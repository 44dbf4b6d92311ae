"""Every family: it learns, resumes to the same bits, and gives networks that a bundle can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.errors import SpecError
from generator.models.autoencoders.config import FAMILIES, AutoencoderConfig, parse_config
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import encode, reconstruct
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.training import Examples, TrainedAutoencoder, train_autoencoder

VARIANTS: list[dict[str, Any]] = [
    *({"family": family} for family in FAMILIES if family != "spatial"),  # test_spatial.py: it has other sizes
    {"family": "linear", "patch": 4, "latent_dim": 16},
    {"family": "stacked-layerwise", "pretraining": 0.9},
    {"family": "denoising", "noise": "masking"},
    {"family": "denoising", "noise": "salt-and-pepper"},
    {"family": "adversarial", "conditioned": True},
    {"family": "regularized", "decoder_penalty": "gradient"},
    {"family": "regularized", "decoder_penalty": "spectral"},
]
SETTINGS = TrainSettings(epochs=3, batch=32, seed=3, device="cpu")


pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def config_of(variant: dict[str, Any], size: int = 8, channels: int = 1) -> AutoencoderConfig:
    width = {} if variant["family"] == "linear" else {"width": 4}
    return parse_config({"size": size, "channels": channels, "latent_dim": 4, **width, **variant})


def stripes(count: int, size: int = 8, channels: int = 1, seed: int = 0) -> Examples:
    """Horizontal (label 0) or vertical (label 1) waves with a random phase."""
    rng = np.random.default_rng(seed)
    labels_N, phase_N1 = np.arange(count) % 2, rng.uniform(0.0, 2.0 * np.pi, (count, 1))
    wave_NS = 127.5 + 127.5 * np.sin(np.arange(size) * 1.2 + phase_N1)
    across_NHW = np.repeat(wave_NS[:, None], size, axis=1)
    images_NHW = np.where(labels_N[:, None, None] == 0, across_NHW, across_NHW.transpose(0, 2, 1))
    images_NHWC = np.repeat(images_NHW.round().astype(np.uint8)[..., None], channels, axis=3)
    return Examples(images_NHWC, labels_N)


TRAIN, HOLDOUT = stripes(96), stripes(32, seed=1)


def run(variant: dict[str, Any], settings: TrainSettings = SETTINGS, **options: Any) -> TrainedAutoencoder:
    return train_autoencoder(config_of(variant), settings, TRAIN, HOLDOUT, classes=2, **options)


def weights(trained: TrainedAutoencoder) -> dict[str, bytes]:
    states = {"encoder": trained.encoder_state, "decoder": trained.decoder_state}
    return {f"{part} {name}": value.numpy().tobytes() for part, of in states.items() for name, value in of.items()}


class Killed(Exception):
    pass


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))
def test_a_resumed_run_of_any_family_ends_with_the_same_bits(tmp_path: Path, variant: dict[str, Any]) -> None:
    def kill(record: EpochRecord) -> None:
        if record.epoch == 1:
            raise Killed

    uninterrupted = run(variant)
    with pytest.raises(Killed):
        run(variant, checkpoint=tmp_path / "c", on_epoch=kill)
    epochs: list[int] = []
    resumed = run(variant, checkpoint=tmp_path / "c", on_epoch=lambda record: epochs.append(record.epoch))
    assert epochs == [2, 3]
    assert weights(resumed) == weights(uninterrupted)
    assert resumed.history == uninterrupted.history


@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if v.get("pretraining") is None], ids=lambda v: "-".join(map(str, v.values()))
)
def test_every_family_learns_networks_that_a_bundle_can_load(variant: dict[str, Any]) -> None:
    settings = TrainSettings(epochs=30, batch=16, learning_rate=0.01, patience=30, device="cpu")
    trained = run(variant, settings)
    encoder = load_encoder(trained.config, trained.encoder_state)
    decoder = load_decoder(trained.config, trained.decoder_state)
    error = np.abs(reconstruct(encoder, decoder, HOLDOUT.images_NHWC).astype(int) - HOLDOUT.images_NHWC).mean()
    untouched = np.abs(TRAIN.images_NHWC.mean(axis=0) - HOLDOUT.images_NHWC).mean()
    assert error < 0.8 * untouched
    assert encode(encoder, HOLDOUT.images_NHWC).shape == (32, trained.config.latent_dim)


@pytest.mark.parametrize(("size", "channels"), [(9, 3), (33, 1), (128, 3)])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))
def test_every_family_takes_every_size_with_labels_or_without(
    variant: dict[str, Any], size: int, channels: int
) -> None:
    if "patch" in variant:
        variant = {"family": "linear", "patch": size // {9: 3, 33: 3, 128: 2}[size], "latent_dim": 36}
    config, one = config_of(variant, size, channels), SETTINGS.model_copy(update={"epochs": 1, "batch": 4})
    images_NHWC = stripes(8, size, channels).images_NHWC
    labels_N = np.arange(8) % 2 if variant.get("conditioned") else None
    examples = Examples(images_NHWC, labels_N)
    trained = train_autoencoder(config, one, examples, examples, classes=0 if labels_N is None else 2)
    assert all(bool(value.isfinite().all()) for value in trained.decoder_state.values())


def test_a_prior_for_every_class_needs_labels() -> None:
    config = config_of({"family": "adversarial", "conditioned": True})
    with pytest.raises(SpecError) as refused:
        train_autoencoder(config, SETTINGS, Examples(TRAIN.images_NHWC), Examples(HOLDOUT.images_NHWC))
    assert refused.value.field == "model.conditioned"
