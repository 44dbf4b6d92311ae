"""The sharpening losses: their effect, and that training with them still resumes to the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generator.errors import SpecError
from generator.models.autoencoders.config import LayerwiseConfig, LinearConfig, StackedConfig, VaeConfig
from generator.models.autoencoders.posterior_collapse import collapse_notices
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.sharpening import PATCH_LOSS_START, SharpeningLosses
from generator.models.autoencoders.training import Examples, TrainedAutoencoder, train_autoencoder
from generator.models.learning import train_bundle
from generator.sources import load_source

SETTINGS = TrainSettings(epochs=5, batch=32, seed=3, device="cpu")
CONFIG = StackedConfig(size=8, channels=1, latent_dim=4, width=4)


pytestmark = pytest.mark.usefixtures("one_thread")


class Slopes(nn.Module):
    """Known feature maps: horizontal and vertical differences of neighbouring pixels."""

    def maps(self, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        return x_BCHW.diff(dim=2), x_BCHW.diff(dim=3)


def noise_images(count: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples(rng.integers(0, 2, (count, 8, 8, 1)).astype(np.uint8) * 255)


TRAIN, HOLDOUT = noise_images(128, 0), noise_images(32, 1)


def state_of(trained: TrainedAutoencoder) -> dict[str, bytes]:
    states = {"encoder": trained.encoder_state, "decoder": trained.decoder_state}
    return {f"{part} {name}": value.numpy().tobytes() for part, of in states.items() for name, value in of.items()}


def test_equal_images_are_at_no_distance_and_others_at_one_that_grows() -> None:
    sharpening = SharpeningLosses(SETTINGS.model_copy(update={"feature_loss": 2.0}), 1, Slopes())
    x_BCHW = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    change_BCHW = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.5
    near, far = (sharpening.feature_distance(x_BCHW, x_BCHW + share * change_BCHW) for share in (0.1, 0.2))
    assert sharpening.feature_distance(x_BCHW, x_BCHW) == 0.0 < near < far
    assert sharpening.feature_distance(x_BCHW, x_BCHW.mean() + 0.0 * x_BCHW).item() == pytest.approx(1.0)
    torch.testing.assert_close(sharpening.holdout_loss(x_BCHW, x_BCHW + change_BCHW)[0] / 2.0, far * 25.0)


def test_the_feature_loss_brings_the_features_nearer() -> None:
    wave_NS = 127.5 + 127.5 * np.sin(np.arange(8) + np.linspace(0.0, 40.0, 128)[:, None])
    waves = Examples(np.repeat(wave_NS[:, :, None, None], 8, axis=2).round().astype(np.uint8))
    weighed, free = (
        train_autoencoder(CONFIG, SETTINGS.model_copy(update={"feature_loss": weight}), waves, waves, features=Slopes())
        for weight in (1000.0, 1e-6)
    )
    distances = [trained.history[-1].holdout_terms["features"] for trained in (weighed, free)]
    assert distances[0] < 0.9 * distances[1]


def test_a_feature_loss_without_features_is_refused() -> None:
    with pytest.raises(SpecError) as refused:
        train_autoencoder(CONFIG, SETTINGS.model_copy(update={"feature_loss": 1.0}), TRAIN, HOLDOUT)
    assert refused.value.field == "train.feature_loss"


def test_neither_term_trains_the_others_network() -> None:
    sharpening = SharpeningLosses(SETTINGS.model_copy(update={"patch_loss": 3.0}), 1)
    x_BCHW, output_BCHW = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8, requires_grad=True)
    assert sharpening.training_loss(x_BCHW, output_BCHW, PATCH_LOSS_START - 0.01).item() == 0.0
    assert sharpening.discriminator is not None
    sharpening.training_loss(x_BCHW, output_BCHW, PATCH_LOSS_START).backward()  # type: ignore[no-untyped-call]
    assert output_BCHW.grad is not None
    mine = {name: weight.grad for name, weight in sharpening.discriminator.named_parameters()}
    generator_loss = 3.0 * nn.functional.softplus(-sharpening.discriminator(output_BCHW)).sum() / len(x_BCHW)
    (alone_BCHW,) = torch.autograd.grad(generator_loss, output_BCHW)
    torch.testing.assert_close(output_BCHW.grad, alone_BCHW)
    for weight in (0.0, 100.0):  # the weight of the family's term does not affect the discriminator
        other = SharpeningLosses(SETTINGS.model_copy(update={"patch_loss": weight or 1.0}), 1)
        other.load_state_dict(sharpening.state_dict())
        other.training_loss(x_BCHW, output_BCHW.detach(), 1.0).backward()  # type: ignore[no-untyped-call]
        for name, parameter in other.discriminator.named_parameters():  # type: ignore[union-attr]
            torch.testing.assert_close(parameter.grad, mine[name])


@pytest.mark.parametrize(
    "config", [CONFIG, LayerwiseConfig(size=8, latent_dim=4, width=4), LinearConfig(size=8, latent_dim=4)]
)
def test_a_resumed_sharpened_run_ends_with_the_same_bits(
    tmp_path: Path, config: StackedConfig | LayerwiseConfig | LinearConfig
) -> None:
    class Killed(Exception):
        pass

    def kill(record: EpochRecord) -> None:
        if record.epoch == 4:
            raise Killed

    settings = SETTINGS.model_copy(update={"feature_loss": 5.0, "patch_loss": 1.0})
    uninterrupted = train_autoencoder(config, settings, TRAIN, HOLDOUT, features=Slopes())
    with pytest.raises(Killed):
        train_autoencoder(config, settings, TRAIN, HOLDOUT, features=Slopes(), checkpoint=tmp_path / "c", on_epoch=kill)
    resumed = train_autoencoder(config, settings, TRAIN, HOLDOUT, features=Slopes(), checkpoint=tmp_path / "c")
    assert state_of(resumed) == state_of(uninterrupted)
    assert resumed.history == uninterrupted.history
    assert [record.best for record in resumed.history] == [False] * 4 + [True]


def test_a_feature_loss_needs_labels_and_says_so_before_training(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", train_images=TRAIN.images_NHWC[..., 0])
    source = load_source(str(tmp_path / "plain.npz"))
    with pytest.raises(SpecError) as refused:
        train_bundle(source, CONFIG, SETTINGS.model_copy(update={"feature_loss": 1.0}), tmp_path / "b")
    assert refused.value.field == "train.feature_loss"
    assert [path.name for path in tmp_path.iterdir()] == ["plain.npz"]


def test_a_collapsed_posterior_is_noticed() -> None:
    config = VaeConfig(size=8, latent_dim=4, width=4)
    codes_ND = np.random.default_rng(0).normal(size=(500, 4))
    assert collapse_notices(config, codes_ND) == ()
    (some,) = collapse_notices(config, codes_ND * np.array([1.0, 0.01, 1.0, 0.01]))
    assert "2 of 4" in some
    (all_of_them,) = collapse_notices(config, codes_ND * 0.01)
    assert "collapsed" in all_of_them
    assert collapse_notices(CONFIG, codes_ND * 0.01) == ()


def test_a_collapsed_vae_is_noticed_by_the_fit_of_its_bundle(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", train_images=TRAIN.images_NHWC[..., 0])
    config = VaeConfig(size=8, latent_dim=2, width=4, beta=100.0, warmup=0.0)
    learned = train_bundle(load_source(str(tmp_path / "plain.npz")), config, SETTINGS, tmp_path / "b")
    assert "collapsed" in learned.fit.notices[0]
