"""The training loop: deterministic, resumable after a kill, and strict about its input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from generator.errors import SettingsError, SourceError, TrainingDiverged
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.devices import resolve_device, training_precision
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import encode, reconstruct
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.training import Examples, Progress, TrainedAutoencoder
from generator.models.autoencoders.training import train_autoencoder as train_examples

CONFIG = VaeConfig(size=8, channels=1, latent_dim=4, width=4)
SETTINGS = TrainSettings(epochs=4, batch=32, seed=3, device="cpu")


def blobs(count: int, seed: int = 0) -> np.ndarray:
    """Images with one round blob each, at a random position."""
    rng = np.random.default_rng(seed)
    row_N11, column_N11 = rng.uniform(1.5, 5.5, (2, count, 1, 1))
    row_HW, column_HW = np.mgrid[:8, :8]
    distance_NHW = (row_HW - row_N11) ** 2 + (column_HW - column_N11) ** 2
    return np.round(255.0 * np.exp(-distance_NHW / 4.0)).astype(np.uint8)[..., None]


def train(
    config: VaeConfig, settings: TrainSettings, train_NHWC: np.ndarray, holdout_NHWC: np.ndarray, **options: Any
) -> TrainedAutoencoder:
    return train_examples(config, settings, Examples(train_NHWC), Examples(holdout_NHWC), **options)


TRAIN, HOLDOUT = blobs(256), blobs(32, seed=1)


pytestmark = pytest.mark.usefixtures("one_thread")


def weights(trained: TrainedAutoencoder) -> dict[str, bytes]:
    states = {"encoder": trained.encoder_state, "decoder": trained.decoder_state}
    return {
        f"{part}.{name}": value.numpy().tobytes() for part, state in states.items() for name, value in state.items()
    }


class Killed(Exception):
    pass


def killed_after(epoch: int) -> Any:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Killed

    return on_epoch


@pytest.mark.slow
def test_training_learns_and_says_how() -> None:
    seen: list[Progress] = []
    settings = TrainSettings(epochs=40, batch=32, learning_rate=0.01, device="cpu")
    trained = train(CONFIG.model_copy(update={"beta": 0.01}), settings, TRAIN, HOLDOUT, on_step=seen.append)
    assert [record.epoch for record in trained.history] == list(range(1, len(trained.history) + 1))
    assert len(seen) == 8 * len(trained.history)
    assert (seen[-1].step, seen[-1].steps) == (8, 8)
    encoder = load_encoder(CONFIG, trained.encoder_state)
    decoder = load_decoder(CONFIG, trained.decoder_state)
    error = np.abs(reconstruct(encoder, decoder, HOLDOUT).astype(int) - HOLDOUT).mean()
    untouched = np.abs(TRAIN.mean(axis=0) - HOLDOUT).mean()
    assert error < 0.5 * untouched
    codes_ND = encode(encoder, HOLDOUT, batch=10)
    assert codes_ND.shape == (32, 4)
    assert codes_ND.dtype == np.float64


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    first, second = train(CONFIG, SETTINGS, TRAIN, HOLDOUT), train(CONFIG, SETTINGS, TRAIN, HOLDOUT)
    other = train(CONFIG, SETTINGS.model_copy(update={"seed": 4}), TRAIN, HOLDOUT)
    assert weights(first) == weights(second) != weights(other)
    assert first.history == second.history


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(CONFIG, SETTINGS.model_copy(update={"epochs": 1}), TRAIN, HOLDOUT)
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, epoch: int) -> None:
    uninterrupted = train(CONFIG, SETTINGS, TRAIN, HOLDOUT)
    with pytest.raises(Killed):
        train(CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=tmp_path / "c", on_epoch=killed_after(epoch))
    epochs: list[int] = []
    resumed = train(
        CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=tmp_path / "c", on_epoch=lambda record: epochs.append(record.epoch)
    )
    assert epochs == list(range(epoch + 1, 5))
    assert weights(resumed) == weights(uninterrupted)
    assert resumed.history == uninterrupted.history


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
import test_training as t
t.torch.set_num_threads(int(sys.argv[3]))
t.train(t.CONFIG, t.SETTINGS, t.TRAIN, t.HOLDOUT, checkpoint=Path(sys.argv[2]),
        on_step=lambda at: print(at.epoch, at.step, flush=True))
"""


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bits(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c"
    command = [sys.executable, "-c", CHILD, __file__, str(checkpoint), str(torch.get_num_threads())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.split() == ["3", "5"]:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    epochs: list[int] = []
    resumed = train(
        CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=checkpoint, on_epoch=lambda record: epochs.append(record.epoch)
    )
    assert epochs == [3, 4]
    assert weights(resumed) == weights(train(CONFIG, SETTINGS, TRAIN, HOLDOUT))


def test_a_finished_checkpoint_gives_its_result_without_training(tmp_path: Path) -> None:
    first = train(CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=tmp_path / "c")
    steps: list[Progress] = []
    again = train(CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=tmp_path / "c", on_step=steps.append)
    assert weights(again) == weights(first)
    assert not steps


@pytest.mark.parametrize("change", ["seed", "fingerprint", "images", "config"])
def test_a_foreign_checkpoint_is_refused(tmp_path: Path, change: str) -> None:
    one = SETTINGS.model_copy(update={"epochs": 1})
    train(CONFIG, one, TRAIN, HOLDOUT, checkpoint=tmp_path / "c", fingerprint="a")
    with pytest.raises(SettingsError, match="checkpoint"):
        train(
            CONFIG.model_copy(update={"latent_dim": 5}) if change == "config" else CONFIG,
            one.model_copy(update={"seed": 9}) if change == "seed" else one,
            TRAIN[:-1] if change == "images" else TRAIN,
            HOLDOUT,
            checkpoint=tmp_path / "c",
            fingerprint="b" if change == "fingerprint" else "a",
        )


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no checkpoint")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    for name in ("text", "other"):
        with pytest.raises(SettingsError, match="checkpoint"):
            train(CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=tmp_path / name)


@pytest.mark.parametrize("part", ["current/decoder.", "optimizer/"])
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, part: str) -> None:
    train(CONFIG, SETTINGS.model_copy(update={"epochs": 1}), TRAIN, HOLDOUT, checkpoint=tmp_path / "c")
    with safe_open(tmp_path / "c", framework="pt") as file:
        header = file.metadata()
        kept = {name: file.get_tensor(name) for name in file.keys() if not name.startswith(part)}  # noqa: SIM118
    save_file(kept, tmp_path / "c", metadata=header)
    with pytest.raises(SettingsError, match="checkpoint: expected the weights of this network"):
        train(CONFIG, SETTINGS.model_copy(update={"epochs": 1}), TRAIN, HOLDOUT, checkpoint=tmp_path / "c")


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="checkpoint"):
        train(CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=tmp_path / "no folder" / "c")


def test_training_stops_once_the_holdout_no_longer_improves() -> None:
    settings = TrainSettings(epochs=200, batch=8, learning_rate=0.02, patience=3, device="cpu")
    history = train(CONFIG.model_copy(update={"beta": 0.0}), settings, TRAIN[:16], HOLDOUT).history
    assert len(history) < 200
    assert [record.best for record in history[-4:]] == [True, False, False, False]


def test_a_loss_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=tmp_path / "c", on_epoch=killed_after(1))
    with safe_open(tmp_path / "c", framework="pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    leapt = {name: value * torch.inf if value.is_floating_point() else value for name, value in tensors.items()}
    save_file(leapt, tmp_path / "c", metadata=header)
    with pytest.raises(TrainingDiverged, match="step 1 of epoch 2") as diverged:
        train(CONFIG, SETTINGS, TRAIN, HOLDOUT, checkpoint=tmp_path / "c")
    assert "learning_rate" in diverged.value.hint


@pytest.mark.parametrize(
    "images",
    [TRAIN.astype(np.float32), TRAIN[:, :, :, 0], np.zeros((5, 9, 9, 1), np.uint8), np.zeros((5, 8, 8, 3), np.uint8)],
)
def test_images_that_do_not_fit_the_network_are_refused(images: np.ndarray) -> None:
    with pytest.raises(SourceError, match="train images"):
        train(CONFIG, SETTINGS, images, HOLDOUT)
    with pytest.raises(SourceError, match="holdout images"):
        train(CONFIG, SETTINGS, TRAIN, images)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(SourceError, match="at least 2"):
        train(CONFIG, SETTINGS, TRAIN[:1], HOLDOUT)
    with pytest.raises(SourceError, match="at least 1"):
        train(CONFIG, SETTINGS, TRAIN, HOLDOUT[:0])


def test_two_images_are_enough() -> None:
    trained = train(CONFIG, SETTINGS.model_copy(update={"epochs": 1}), TRAIN[:2], HOLDOUT[:1])
    assert len(trained.history) == 1


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "mps", ""])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match="device"):
        resolve_device(name)


def test_auto_is_a_device() -> None:
    assert resolve_device("auto").type in ("cpu", "cuda")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.slow
def test_a_network_trained_with_augmentation_knows_shifted_images() -> None:
    """All images are centred; only a network trained on shifted images can reconstruct shifted ones."""
    row_HW, column_HW = np.mgrid[:8, :8] - 3.5
    wide_N11 = np.random.default_rng(0).uniform(1.0, 3.0, (256, 1, 1))
    images_NHW = np.round(255.0 * np.exp(-(row_HW**2 + column_HW**2) / wide_N11)).astype(np.uint8)
    images_NHWC = images_NHW[..., None]
    shifted_NHWC = np.roll(images_NHWC[:32], 1, axis=1)
    errors = []
    for augmentation in (Augmentation(), Augmentation(shift=1)):
        settings = SETTINGS.model_copy(update={"epochs": 10, "learning_rate": 0.01, "augmentation": augmentation})
        trained = train(CONFIG.model_copy(update={"width": 16}), settings, images_NHWC, images_NHWC[:32])
        encoder = load_encoder(trained.config, trained.encoder_state)
        again_NHWC = reconstruct(encoder, load_decoder(trained.config, trained.decoder_state), shifted_NHWC)
        errors.append(np.mean((again_NHWC.astype(float) - shifted_NHWC) ** 2))
    assert errors[1] < 0.3 * errors[0]


def test_a_resumed_run_with_augmentation_ends_with_the_same_bits(tmp_path: Path) -> None:
    def kill(record: EpochRecord) -> None:
        raise Killed

    settings = SETTINGS.model_copy(update={"epochs": 2, "augmentation": Augmentation(shift=1, rotation=10.0)})
    uninterrupted = train(CONFIG, settings, TRAIN, HOLDOUT)
    with pytest.raises(Killed):
        train(CONFIG, settings, TRAIN, HOLDOUT, checkpoint=tmp_path / "c", on_epoch=kill)
    assert weights(train(CONFIG, settings, TRAIN, HOLDOUT, checkpoint=tmp_path / "c")) == weights(uninterrupted)
    assert weights(train(CONFIG, SETTINGS.model_copy(update={"epochs": 2}), TRAIN, HOLDOUT)) != weights(uninterrupted)


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_half_precision_is_near_and_weights_are_not_half(kind: Literal["mse", "bce"]) -> None:
    whole_settings = SETTINGS.model_copy(update={"epochs": 8, "reconstruction": kind, "precision": "float32"})
    whole = train(CONFIG, whole_settings, TRAIN, HOLDOUT)
    half = train(CONFIG, whole_settings.model_copy(update={"precision": "bfloat16"}), TRAIN, HOLDOUT)
    assert weights(half) != weights(whole)
    assert {value.dtype for value in half.encoder_state.values()} == {torch.float32}
    first, last = whole.history[0].holdout_loss, whole.history[-1].holdout_loss
    assert half.history[-1].holdout_loss == pytest.approx(last, abs=0.1 * (first - last))


def test_the_default_precision_on_a_processor_is_whole() -> None:
    explicit = SETTINGS.model_copy(update={"precision": "float32"})
    assert weights(train(CONFIG, SETTINGS, TRAIN, HOLDOUT)) == weights(train(CONFIG, explicit, TRAIN, HOLDOUT))
    assert "precision" not in SETTINGS.model_dump(mode="json")
    assert training_precision(torch.device("cpu"), "bfloat16")._enabled
