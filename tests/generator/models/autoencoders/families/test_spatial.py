"""The family spatial: codes with a shape, equivariant to mirroring, and averaged weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from generator.errors import SpecError
from generator.models.autoencoders.config import SpatialConfig, code_shape, default_config, parse_config
from generator.models.autoencoders.factory import build_decoder, build_encoder, load_decoder, load_encoder
from generator.models.autoencoders.inference import encode, reconstruct
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.autoencoders.spatial_networks import SpatialDecoder, SpatialEncoder
from generator.models.autoencoders.training import Examples, TrainedAutoencoder, train_autoencoder
from generator.models.weight_average import WeightAverage
from generator.spec.image_size import AnySize, as_size

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SpatialConfig(size=32, channels=1, code_channels=4, width=8)
SETTINGS = TrainSettings(epochs=3, batch=16, seed=1, device="cpu", reconstruction="mse", learning_rate=1e-2)


def scenes(count: int, seed: int) -> np.ndarray:
    """Images with one bright rectangle each on a sloping background, uint8 (N, 32, 32, 1)."""
    rng, images_NHWC = np.random.default_rng(seed), np.empty((count, 32, 32, 1), dtype=np.uint8)
    for image_HW in images_NHWC[..., 0]:
        top, left, height, width = (int(number) for number in rng.integers(4, 14, 4))
        image_HW[:] = np.linspace(0.0, 90.0, 32)[:, None]
        image_HW[top : top + height, left : left + width] = 200
    return images_NHWC


TRAIN, HOLDOUT = scenes(640, 0), scenes(32, 1)


def train(config: SpatialConfig = CONFIG, settings: TrainSettings = SETTINGS, **options: object) -> TrainedAutoencoder:
    return train_autoencoder(config, settings, Examples(TRAIN), Examples(HOLDOUT), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "channels", "wanted"),
    [
        (32, 3, (32, 4, 4)),
        (40, 1, (32, 5, 5)),
        (64, 3, (8, 8, 8)),
        (128, 3, (8, 8, 8)),
        ((96, 64), 3, (8, 8, 12)),
        ((33, 47), 1, (32, 6, 5)),
        (36, 1, (32, 5, 5)),
        ((300, 100), 3, (8, 7, 19)),
    ],
)
def test_codes_are_grids_and_images_come_back_in_size(size: AnySize, channels: int, wanted: tuple[int, ...]) -> None:
    config = default_config(size, channels, "spatial", width=8)
    assert code_shape(config) == wanted
    assert config.latent_dim == int(np.prod(wanted))
    width, height = as_size(size)
    x_BCHW = torch.rand(2, channels, height, width)
    with torch.inference_mode():
        z_BD = build_encoder(config)(x_BCHW)
        out_BCHW = build_decoder(config)(z_BD)
    assert z_BD.shape == (2, config.latent_dim)
    assert out_BCHW.shape == x_BCHW.shape
    assert 0.0 <= float(out_BCHW.min()) <= float(out_BCHW.max()) <= 1.0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 24}, "size"),
        ({"image_width": 24}, "image_width"),
        ({"size": 512, "code_channels": 256}, "at most 65536 numbers"),
        ({"code_noise": -1.0}, "code_noise"),
        ({"latent_dim": 64}, "latent_dim"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(SpecError, match=field):
        parse_config({"family": "spatial", "size": 32} | changes)


def test_a_pixel_loss_for_probabilities_is_refused() -> None:
    with pytest.raises(SpecError, match=r"train\.reconstruction"):
        train(settings=TrainSettings(epochs=1, batch=16, device="cpu"))


@pytest.mark.slow
def test_training_brings_images_back() -> None:
    trained = train(settings=SETTINGS.model_copy(update={"epochs": 15}))
    encoder = load_encoder(trained.config, trained.encoder_state)
    again_NHWC = reconstruct(encoder, load_decoder(trained.config, trained.decoder_state), HOLDOUT)
    error, spread = ((HOLDOUT.astype(float) - other) ** 2 for other in (again_NHWC, HOLDOUT.mean(axis=0)))
    assert error.mean() < 0.35 * spread.mean()
    assert encode(encoder, HOLDOUT).shape == (32, 64)


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_averages(tmp_path: Path) -> None:
    whole, path = train(), tmp_path / "checkpoint"

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=path, on_epoch=stop)
    resumed = train(checkpoint=path)
    assert resumed.history == whole.history
    for name, weight in whole.decoder_state.items():
        assert torch.equal(weight, resumed.decoder_state[name]), name


@pytest.mark.slow
def test_mirrored_codes_decode_to_mirrored_images() -> None:
    """Without equivariance they do not: the same training, the share of mirrored codes set to none."""
    errors = []
    for share in (0.0, 0.5):
        config = CONFIG.model_copy(update={"equivariance": share})
        trained = train(config, SETTINGS.model_copy(update={"epochs": 8}))
        encoder, decoder = (
            load_encoder(config, trained.encoder_state),
            load_decoder(config, trained.decoder_state),
        )
        x_BCHW = torch.from_numpy(HOLDOUT).permute(0, 3, 1, 2).float() / 255.0
        with torch.inference_mode():
            flipped_BD = encoder(x_BCHW).unflatten(1, config.code_shape).flip(3).flatten(1)
            errors.append(float((decoder(flipped_BD) - x_BCHW.flip(3)).square().mean()))
    assert errors[1] < 0.5 * errors[0]


def test_odd_sides_are_extended_by_their_border_and_cut_out_again() -> None:
    config = SpatialConfig(size=47, image_width=33, channels=1, code_channels=4, width=8)
    assert config.margins == (0, 1, 3, 4)
    encoder, decoder, x_BCHW = SpatialEncoder(config), SpatialDecoder(config), torch.rand(2, 1, 47, 33)
    extended_BCHW = encoder.extend(x_BCHW)
    assert torch.equal(extended_BCHW[:, :, :47, 3:36], x_BCHW)
    assert torch.equal(extended_BCHW[:, :, 47], extended_BCHW[:, :, 46])
    assert torch.equal(extended_BCHW[:, :, :, :3], extended_BCHW[:, :, :, 3:4].expand(-1, -1, -1, 3))
    z_BD = encoder(x_BCHW)
    whole_BCHW = decoder.unclamped(z_BD.unflatten(1, config.code_shape)).clamp(0.0, 1.0)
    assert torch.equal(decoder(z_BD), whole_BCHW[:, :, :47, 3:36])


def test_the_average_is_that_of_the_weights() -> None:
    network, values = torch.nn.Linear(1, 1, bias=False), [3.0, 5.0, 4.0, 8.0]
    with torch.no_grad():
        network.weight.fill_(100.0)
    average, wanted = WeightAverage(network, 0.5), 100.0
    for step, value in enumerate(values):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(step, len(values))
        kept = min(0.5 ** (1.0 / 2.0), (1 + step) / (10 + step))
        wanted = kept * wanted + (1.0 - kept) * value
    with average.applied():
        assert network.weight.item() == pytest.approx(wanted, rel=1e-6)
    assert network.weight.item() == 8.0
