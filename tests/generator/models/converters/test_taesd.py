"""TAESD: every variant gives what a reference network with the same weights gives; others are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.errors import SpecError
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import reconstruct
from generator.models.converters.taesd import convert_taesd
from generator.models.converters.weights import read_weights
from generator.models.learning import ImportedNetwork, join_graphs
from generator.sources import load_source
from generator.spec.image_size import AnySize, as_size
from tests.support.reference_data import reference_file


class Residual(nn.Module):
    """Three convolutions around a skip, and the pooled norm of the variant for FLUX.2."""

    def __init__(self, width: int, pooled: bool) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])
        wide = 4 * width
        layers = (
            nn.Conv2d(width, wide, 1, bias=False),
            nn.GroupNorm(4, wide),
            nn.ReLU(),
            nn.Conv2d(wide, width, 1, bias=False),
        )
        self.pool = nn.Sequential(*layers) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        result: Tensor = torch.relu(x + self.conv(x))
        return result


class SoftClamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3.0 * torch.tanh(x / 3.0)


def same(before: int, after: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, **options)  # type: ignore[arg-type]


def reference(channels: int, pooled: bool, halvings: int = 3) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder with fresh weights."""
    down: list[nn.Module] = [same(3, 64), Residual(64, False)]
    if halvings == 5:
        down = [same(3, 32, stride=2), nn.ReLU(), same(32, 64, stride=2), nn.ReLU(), Residual(64, False)]
    for stage in range(3):
        down += [same(64, 64, stride=2, bias=False), *(Residual(64, pooled and stage == 2) for _ in range(3))]
    widths = [64] * 4 if halvings == 3 else [256, 128, 64, 64, 64, 64]
    up: list[nn.Module] = [SoftClamp(), same(channels, widths[0]), nn.ReLU()]
    for stage in range(halvings):
        up += [Residual(widths[stage], pooled and stage == 0) for _ in range(3)]
        up += [nn.Upsample(scale_factor=2), same(widths[stage], widths[stage + 1], bias=False)]
    return nn.Sequential(*down, same(64, channels)).eval(), nn.Sequential(*up, Residual(64, False), same(64, 3)).eval()


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in network.state_dict().items()}


def networks(imported: ImportedNetwork) -> tuple[nn.Module, nn.Module]:
    assert imported.encoder is not None
    encoder, decoder = (
        {name: torch.from_numpy(weight) for name, weight in part.items()}
        for part in (imported.encoder, imported.decoder)
    )
    return load_encoder(imported.config, encoder), load_decoder(imported.config, decoder)


def assert_equal_outputs(encoder: nn.Module, decoder: nn.Module, imported: ImportedNetwork) -> None:
    ours, (width, height) = networks(imported), imported.config.image_size
    rows, columns = -height % 8, -width % 8
    top, left = rows // 2, columns // 2
    with torch.inference_mode():
        x_BCHW = torch.rand(3, 3, height, width)
        code = encoder(functional.pad(x_BCHW, (left, columns - left, top, rows - top), mode="replicate"))
        found = ours[0](x_BCHW).view_as(code)
        assert (found - code).abs().max() <= 1e-4 * max(1.0, code.abs().max())
        image = decoder(code).clamp(0.0, 1.0)[:, :, top : top + height, left : left + width]
        assert (ours[1](code.flatten(1)) - image).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("channels", "pooled", "halvings"), [(4, False, 3), (16, False, 3), (32, True, 3), (32, False, 5)]
)
def test_every_variant_gives_what_the_reference_gives(channels: int, pooled: bool, halvings: int) -> None:
    torch.manual_seed(0)
    encoder, decoder = reference(channels, pooled, halvings)
    imported = join_graphs(*convert_taesd(arrays(encoder), arrays(decoder), 64))
    assert imported.config.code_shape == (channels, 64 // 2**halvings, 64 // 2**halvings)
    assert_equal_outputs(encoder, decoder, imported)


@pytest.fixture(scope="module")
def flux_2() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    encoder, decoder = (read_weights(reference_file(f"taef2_{part}.safetensors")) for part in ("encoder", "decoder"))
    return encoder, decoder


def test_the_pretrained_weights(flux_2: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]) -> None:
    pair = reference(32, True)
    for network, weights in zip(pair, flux_2, strict=True):
        network.load_state_dict({name: torch.from_numpy(np.float32(weight)) for name, weight in weights.items()})
    assert_equal_outputs(*pair, join_graphs(*convert_taesd(*flux_2, 32)))


@pytest.mark.parametrize("size", [(40, 24), (33, 47), (28, 50), 30])
def test_other_sides_get_margins_that_repeat_the_border(size: AnySize) -> None:
    torch.manual_seed(0)
    encoder, decoder = reference(4, False)
    imported = join_graphs(*convert_taesd(arrays(encoder), arrays(decoder), size))
    assert imported.config.image_size == as_size(size)
    assert imported.config.code_shape == (4, -(-as_size(size).height // 8), -(-as_size(size).width // 8))
    assert_equal_outputs(encoder, decoder, imported)


@pytest.mark.slow
def test_photographs_come_back(flux_2: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]) -> None:
    for name, size, limit in (("cifar10-test.parquet", 32, 0.0055), ("sign-digits/test", 64, 0.0015)):
        images_NHWC = load_source(str(reference_file(name)), size=size).images_NHWC[:40]
        ours = networks(join_graphs(*convert_taesd(*flux_2, size)))
        error = ((reconstruct(*ours, images_NHWC) / 255.0 - images_NHWC / 255.0) ** 2).mean()
        assert error < limit


def test_a_decoder_alone() -> None:
    torch.manual_seed(0)
    encoded, decoded = convert_taesd(None, arrays(reference(4, False)[1]), 32)
    assert encoded is None
    assert join_graphs(encoded, decoded).config.code_shape == (4, 4, 4)


def test_what_is_not_a_taesd(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, decoder = map(arrays, reference(4, False))
    with pytest.raises(SpecError, match=r"at least 8"):
        join_graphs(*convert_taesd(encoder, decoder, (64, 7)))
    with pytest.raises(SpecError, match="a known TAESD variant"):
        convert_taesd(decoder, decoder, 64)
    with pytest.raises(SpecError, match="a known TAESD variant"):
        convert_taesd(encoder, {f"vae.{name}": weight for name, weight in decoder.items()}, 64)
    with pytest.raises(SpecError, match=r"only tensors of this network, got 3\.extra"):
        convert_taesd(encoder, decoder | {"3.extra.gain": np.zeros(3)}, 64)
    broken = decoder | {"3.conv.2.weight": decoder["3.conv.2.weight"][:, :, :2]}
    with pytest.raises(SpecError, match=r"decoder"):
        convert_taesd(encoder, broken, 64)
    nan = decoder | {"3.conv.2.bias": np.full(64, np.nan, dtype=np.float32)}
    with pytest.raises(SpecError, match=r"decoder:3.conv.2.bias: expected finite numbers"):
        convert_taesd(encoder, nan, 64)
    other = reference(16, False)[0]
    with pytest.raises(SpecError, match="an encoder with an output of 4 x 8 x 8, not 16 x 8 x 8"):
        join_graphs(*convert_taesd(arrays(other), decoder, 64))
    (tmp_path / "weights.safetensors").write_bytes(b"PK\x03\x04 a pickle of torch.save")
    with pytest.raises(SpecError, match=r"a safetensors file.*must be unpickled"):
        read_weights(tmp_path / "weights.safetensors")
