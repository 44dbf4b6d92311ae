"""Autoencoders as diffusers writes them give what diffusers' own forward pass gives; others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional

from generator.errors import SpecError
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.converters.diffusers import CONFIG_FILE, WEIGHTS_FILE, convert_diffusers
from generator.models.learning import join_graphs
from tests.support.foreign_networks import DecoderOf, EncoderOf, kl_autoencoder, tiny_autoencoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny

TINY: dict[str, tuple[dict[str, Any], int]] = {
    "as published": ({"stages": 4, "width": 16}, 64),
    "scaled": ({"stages": 4, "width": 24, "latent_channels": 8, "scaling_factor": 0.7, "act_fn": "silu"}, 512),
    "large steps": ({"stages": 3, "width": 8, "in_channels": 1, "out_channels": 1, "upsample_fn": "bilinear"}, 256),
}
KL: dict[str, tuple[dict[str, Any], int]] = {
    "stable diffusion": ({"widths": (16, 16, 32, 32), "layers_per_block": 2}, 64),
    "flux": (
        {
            "widths": (16, 24, 32),
            "latent_channels": 16,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
        128,
    ),
    "no attention, statistics": (
        {
            "widths": (8, 16),
            "mid_block_add_attention": False,
            "latent_channels": 2,
            "latents_mean": [0.5, -0.25],
            "latents_std": [2.0, 0.5],
            "scaling_factor": 1.0,
        },
        256,
    ),
}


def assert_as_diffusers(model: AutoencoderTiny | AutoencoderKL, directory: Path, size: int) -> None:
    model.save_pretrained(directory)
    imported = join_graphs(*convert_diffusers(directory, size))
    assert imported.encoder is not None
    encoder, decoder = (
        {name: torch.from_numpy(weight) for name, weight in part.items()}
        for part in (imported.encoder, imported.decoder)
    )
    settings, channels = model.config, imported.config.channels
    mean = torch.tensor(settings.get("latents_mean") or [settings.get("shift_factor") or 0.0])[:, None, None]
    spread = torch.tensor(settings.get("latents_std") or [1.0])[:, None, None]
    with torch.inference_mode():
        x_BCHW = torch.rand(2, channels, size, size)
        raw = EncoderOf(model)(2.0 * x_BCHW - 1.0)
        code = (raw - mean) / spread * settings.scaling_factor
        found = load_encoder(imported.config, encoder)(x_BCHW).view_as(code)
        assert (found - code).abs().max() <= 1e-4 * max(1.0, float(code.abs().max()))
        image = (DecoderOf(model)(raw) / 2.0 + 0.5).clamp(0.0, 1.0)
        error = (load_decoder(imported.config, decoder)(code.flatten(1)) - image).abs().max()
        assert error <= 1e-4
        assert image.std() > 0.001  # something to compare


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_autoencoder_tiny(name: str, tmp_path: Path) -> None:
    options, size = TINY[name]
    assert_as_diffusers(tiny_autoencoder(**options), tmp_path, size)


@pytest.mark.parametrize("name", KL)
def test_autoencoder_kl(name: str, tmp_path: Path) -> None:
    options, size = KL[name]
    assert_as_diffusers(kl_autoencoder(**options), tmp_path, size)


def test_tensors_under_the_names_of_old_files(tmp_path: Path) -> None:
    kl_autoencoder((8, 8)).save_pretrained(tmp_path)
    wanted, tensors = convert_diffusers(tmp_path, 32), load_file(tmp_path / WEIGHTS_FILE)
    old = dict[str, np.ndarray]()
    for name, tensor in tensors.items():
        for new_part, old_part in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
            name = name.replace(new_part, old_part)
        is_matrix = "attentions" in name and tensor.ndim == 2
        old[name] = tensor[:, :, None, None] if is_matrix else tensor
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in old.items()}, tmp_path / WEIGHTS_FILE)
    for found, expected in zip(convert_diffusers(tmp_path, 32), wanted, strict=True):
        assert found.graph == expected.graph
        assert all(np.array_equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())


def test_half_precision_and_another_file_name(tmp_path: Path) -> None:
    tiny_autoencoder(2, 8).to(torch.bfloat16).save_pretrained(tmp_path, variant="bf16")
    assert not (tmp_path / WEIGHTS_FILE).exists()
    encoder, decoder = convert_diffusers(tmp_path, 32)
    assert all(weight.dtype == np.float32 for part in (encoder, decoder) for weight in part.tensors.values())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    kl_autoencoder((8, 8)).save_pretrained(tmp_path)
    return tmp_path


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"_class_name": "AutoencoderDC"}, "config.json._class_name"),
        ({"_class_name": ["AutoencoderKL"]}, "config.json._class_name"),
        ({"act_fn": "os.system"}, "config.json.act_fn"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "config.json.down_block_types"),
        ({"up_block_types": ["UpDecoderBlock2D"]}, "config.json.up_block_types"),
        ({"block_out_channels": [8, 2**40]}, "config.json.block_out_channels"),
        ({"layers_per_block": -1}, "config.json.layers_per_block"),
        ({"norm_num_groups": 3}, "encoder.encoder.down_blocks.0.resnets.0.norm1"),
        ({"latent_channels": 3}, "weights"),
        ({"scaling_factor": 0.0}, "config.json.scaling_factor"),
        ({"latents_mean": [0.0], "latents_std": [1.0]}, "config.json.latents_mean"),
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0, 1.0, 0.0, 1.0]}, "config.json.latents_std"),
        ({"use_quant_conv": False}, "weights"),
        ({"layers_per_block": 2}, "weights"),
    ],
)
def test_a_configuration_that_does_not_fit(saved: Path, changes: dict[str, Any], field: str) -> None:
    change_config(saved, **changes)
    with pytest.raises(SpecError) as error:
        join_graphs(*convert_diffusers(saved, 32))
    assert error.value.field.startswith(field)


def test_sides_that_do_not_halve_get_margins(saved: Path) -> None:
    imported, even = (join_graphs(*convert_diffusers(saved, size)) for size in ((47, 33), (48, 34)))
    assert imported.config.image_size == (47, 33)
    assert imported.config.code_shape == even.config.code_shape
    assert imported.encoder is not None
    assert even.encoder is not None
    found, wanted = (
        load_encoder(
            network.config, {name: torch.from_numpy(weight) for name, weight in (network.encoder or {}).items()}
        )
        for network in (imported, even)
    )
    x_BCHW = torch.rand(2, imported.config.channels, 33, 47)
    x_BCHW, z_BD = functional.pad(x_BCHW, (0, 1, 0, 1), mode="replicate"), found(x_BCHW)
    torch.testing.assert_close(z_BD, wanted(x_BCHW))
    decoded, whole = (
        load_decoder(network.config, {name: torch.from_numpy(weight) for name, weight in network.decoder.items()})(z_BD)
        for network in (imported, even)
    )
    torch.testing.assert_close(decoded, whole[:, :, :33, :47])


def test_directories_that_are_not_whole(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(SpecError, match=r"a directory with config.json.*folder vae"):
        convert_diffusers(tmp_path_factory.mktemp("empty"), 32)
    (saved / WEIGHTS_FILE).rename(saved / "diffusion_pytorch_model.bin")
    with pytest.raises(SpecError, match=r"got none.*pickles"):
        convert_diffusers(saved, 32)
    for name in ("a.safetensors", "b.safetensors"):
        (saved / name).write_bytes(b"")
    with pytest.raises(SpecError, match=r"one .safetensors file, got a.safetensors, b.safetensors"):
        convert_diffusers(saved, 32)
    (saved / CONFIG_FILE).write_text('{"a": 1, "a": 2}')
    with pytest.raises(SpecError, match="duplicate key"):
        convert_diffusers(saved, 32)
