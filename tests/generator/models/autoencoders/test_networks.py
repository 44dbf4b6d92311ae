"""The networks: every size is exact, outputs are in range, and rows are independent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generator.models.autoencoders.config import VaeConfig
from generator.models.autoencoders.factory import build_decoder, build_encoder
from generator.models.autoencoders.networks import GaussianEncoder

CONFIG = VaeConfig(size=32, channels=3, latent_dim=6, width=8)
OBLONG = VaeConfig(size=28, image_width=50, channels=3, latent_dim=6, width=8)


def with_statistics(network: nn.Module) -> nn.Module:
    """``network`` in eval mode, with batch normalisations that are not the identity."""
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean = 0.1 * torch.randn(part.num_features, generator=generator)
            part.running_var = 0.5 + torch.rand(part.num_features, generator=generator)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width"),
    [
        *((side, side) for side in (8, 9, 12, 20, 28, 31, 33, 64, 65, 128)),
        *((28, 50), (50, 28), (47, 33), (75, 100), (8, 128), (128, 9), (64, 96)),
    ],
)
def test_every_size_comes_out_exactly(height: int, width: int, channels: int) -> None:
    config = VaeConfig(size=height, image_width=width, channels=channels, latent_dim=5, width=4)  # type: ignore[arg-type]
    x_BCHW = torch.rand(2, channels, height, width)
    codes_BD = with_statistics(build_encoder(config))(x_BCHW)
    images_BCHW = with_statistics(build_decoder(config))(codes_BD)
    assert codes_BD.shape == (2, 5)
    assert images_BCHW.shape == x_BCHW.shape
    assert 0.0 <= images_BCHW.min() <= images_BCHW.max() <= 1.0


@pytest.mark.parametrize("config", [CONFIG, OBLONG])
def test_a_row_of_the_decoder_does_not_depend_on_the_others(config: VaeConfig) -> None:
    decoder = with_statistics(build_decoder(config))
    z_BD = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    other_BD = z_BD.clone()
    other_BD[16:] = 100.0
    torch.testing.assert_close(decoder(other_BD)[:16], decoder(z_BD)[:16], rtol=0.0, atol=0.0)


def test_a_row_of_the_encoder_does_not_depend_on_the_others() -> None:
    encoder = with_statistics(build_encoder(CONFIG))
    x_BCHW = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    other_BCHW = x_BCHW.clone()
    other_BCHW[16:] = 1.0
    torch.testing.assert_close(encoder(other_BCHW)[:16], encoder(x_BCHW)[:16], rtol=0.0, atol=0.0)


def test_the_code_is_the_mean_of_the_posterior() -> None:
    encoder = with_statistics(build_encoder(CONFIG))
    assert isinstance(encoder, GaussianEncoder)
    x_BCHW = torch.rand(4, 3, 32, 32)
    mean_BD, log_variance_BD = encoder.posterior(x_BCHW)
    torch.testing.assert_close(encoder(x_BCHW), mean_BD)
    assert log_variance_BD.shape == (4, 6)


@pytest.mark.parametrize("build", [build_encoder, build_decoder])
def test_every_normalisation_follows_a_layer_it_can_be_folded_into(build: object) -> None:
    layers = [part for part in build(CONFIG).modules() if not list(part.children())]  # type: ignore[operator]
    before = [layers[i - 1] for i, part in enumerate(layers) if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert before
    assert all(isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and layer.bias is None for layer in before)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (33, 33), (28, 50), (8, 33)])
def test_a_fresh_layer_of_the_decoder_keeps_a_flat_input_flat(height: int, width: int) -> None:
    config = VaeConfig(size=height, image_width=width, channels=3, latent_dim=6, width=8)
    for layer in build_decoder(config).modules():
        if isinstance(layer, nn.ConvTranspose2d):
            flat_BCHW = torch.rand(1, layer.in_channels, 1, 1).expand(1, layer.in_channels, 6, 6)
            inner_BCHW = layer(flat_BCHW)[:, :, 2:-2, 2:-2]
            torch.testing.assert_close(inner_BCHW, inner_BCHW[:, :, :1, :1].expand_as(inner_BCHW))
