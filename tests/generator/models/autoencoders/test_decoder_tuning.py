"""Training a decoder on sampled codes: images of sampled codes gain, and nothing but the decoder changes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from generator.errors import SpecError, TrainingDiverged
from generator.models.autoencoders import decoder_tuning
from generator.models.autoencoders.config import AutoencoderConfig, SpatialConfig, StackedConfig, VaeConfig
from generator.models.autoencoders.decoder_tuning import DrawnCodes, check_tuning, tune_decoder
from generator.models.autoencoders.factory import build_decoder, build_encoder, load_decoder
from generator.models.autoencoders.inference import decode
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.training import Examples, TrainedAutoencoder
from generator.models.features.classifier import Classifier, LabelledImages, accuracy, train_classifier
from generator.models.features.config import Budget

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = TrainSettings(epochs=2, batch=32, seed=3, device="cpu", feature_loss=10.0, tuning_steps=30)
CONFIG = StackedConfig(size=8, channels=1, latent_dim=4, width=8)


def stripes(count: int) -> Examples:
    """Two classes: horizontal and vertical stripes of random brightness, two pixels wide."""
    rng, labels_N = np.random.default_rng(0), np.arange(count) % 2
    wave_S = np.arange(8) // 2 % 2
    wave_NHW = np.where(labels_N[:, None, None] == 1, wave_S[None, :, None], wave_S[None, None, :])
    bright_N11 = rng.integers(60, 200, (count, 1, 1))
    images_NHW = (wave_NHW * bright_N11 + rng.integers(0, 50, (count, 8, 8))).astype(np.uint8)
    return Examples(images_NHW[..., None], labels_N)


@cache
def classifier(seed: int) -> Classifier:
    """Trained on ``stripes(256)``."""
    images = stripes(256)
    assert images.labels_N is not None
    return train_classifier(
        images.images_NHWC, images.labels_N, classes=2, seed=seed, budget=Budget(steps=30, batch=32)
    )


@pytest.fixture(autouse=True)
def rate_for_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_tuning, "_RATE", 1e-2)


@cache
def fresh() -> TrainedAutoencoder:
    """With random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TrainedAutoencoder(CONFIG, build_encoder(CONFIG).state_dict(), build_decoder(CONFIG).state_dict(), ())


def codes(labels_N: np.ndarray, seed: int) -> np.ndarray:
    """Two clusters, one a class."""
    spread_ND = 0.5 * np.random.default_rng(seed).normal(size=(len(labels_N), 4))
    return spread_ND + (2 * labels_N - 1)[:, None] * np.array([1.0, -1.0, 0.0, 0.0])


def tuned(trained: TrainedAutoencoder) -> TrainedAutoencoder:
    images = stripes(256)
    assert images.labels_N is not None
    drawn = DrawnCodes(codes(images.labels_N, 1), images.labels_N)
    features, cpu = classifier(0), torch.device("cpu")
    return tune_decoder(trained, SETTINGS, images, codes(images.labels_N, 0), drawn, features, seed=1, device=cpu)


@cache
def tuned_once() -> TrainedAutoencoder:
    return tuned(fresh())


@pytest.mark.slow
def test_another_classifier_recognises_more_of_the_sampled_images() -> None:
    images = stripes(256)
    judge = classifier(seed=7)
    assert images.labels_N is not None
    labels_N, unseen_ND = images.labels_N, codes(images.labels_N, 2)

    def recognised(of: TrainedAutoencoder) -> float:
        images_NHWC = decode(load_decoder(of.config, of.decoder_state), unseen_ND)
        return accuracy(judge, LabelledImages(images_NHWC, labels_N))

    before, after = fresh(), tuned_once()
    assert recognised(before) < 0.6
    assert recognised(after) > 0.9
    assert after.encoder_state is before.encoder_state
    assert after.history == before.history


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_random_state_is_left_alone() -> None:
    one = tuned_once().decoder_state
    torch.manual_seed(5)
    before = torch.get_rng_state()
    other = tuned(fresh()).decoder_state
    assert torch.equal(before, torch.get_rng_state())
    assert one.keys() == fresh().decoder_state.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert any(not torch.equal(value, fresh().decoder_state[name]) for name, value in one.items())


def test_a_loss_that_is_no_number_is_an_error() -> None:
    state = fresh().decoder_state
    broken = {name: value * torch.nan if value.is_floating_point() else value for name, value in state.items()}
    with pytest.raises(TrainingDiverged, match=r"loss: expected a number, got nan in step 1 on sampled codes"):
        tuned(replace(fresh(), decoder_state=broken))


@pytest.mark.parametrize(
    ("config", "classes", "feature_loss", "expected"),
    [
        (SpatialConfig(size=32), 2, 1.0, "0 for the family spatial"),
        (CONFIG, 1, 1.0, "0 without two classes or more"),
        (CONFIG, 2, 0.0, "a feature loss, whose classifier is needed, or 0"),
    ],
    ids=["spatial", "one class", "no feature loss"],
)
def test_what_cannot_be_tuned_is_refused(
    config: AutoencoderConfig, classes: int, feature_loss: float, expected: str
) -> None:
    settings = SETTINGS.model_copy(update={"feature_loss": feature_loss})
    with pytest.raises(SpecError, match=rf"train.tuning_steps: expected {expected}, got 30 steps"):
        check_tuning(config, settings, classes)
    check_tuning(config, settings.model_copy(update={"tuning_steps": 0}), classes)
    check_tuning(VaeConfig(size=8, channels=1, latent_dim=4), SETTINGS, 2)


def test_settings_without_tuning_keep_their_canonical_form() -> None:
    assert "tuning_steps" not in TrainSettings().model_dump(mode="json")
    assert TrainSettings.model_validate(SETTINGS.model_dump(mode="json")) == SETTINGS
