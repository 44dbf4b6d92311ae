"""Importing a decoder: it gives the same images, and errors name what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import BundleError, LatentmillError, SourceError, SpecError
from generator.models.bundle import load_bundle
from generator.models.latents.config import MixtureSettings
from generator.models.learning import refit
from generator.production.commit import locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.mill import build
from generator.store import open_store
from workers.cli.main import root

pytestmark = pytest.mark.slow

DIMS = 6


class OriginalDecoder(nn.Module):
    """A decoder from another project, with its own tensor names, batch normalisation and grid."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(DIMS, 16 * 16)
        self.net = nn.Sequential(
            nn.Sequential(nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.SiLU()),
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8)
            ),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 3, 1, bias=False),
        )

    def forward(self, z_BD: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.net(self.fc(z_BD).view(-1, 16, 4, 4)))


LAYERS: list[dict[str, Any]] = [
    {"kind": "linear", "features": 256, "weights": "fc"},
    {"kind": "unflatten", "channels": 16, "height": 4, "width": 4},
    {"kind": "conv_transpose", "channels": 8, "kernel": 4, "stride": 2, "padding": 1, "weights": "net.0.0"},
    {"kind": "batch_norm", "weights": "net.0.1"},
    {"kind": "silu"},
    {"kind": "upsample", "factor": 2, "mode": "bilinear"},
    {"kind": "conv", "channels": 8, "kernel": 3, "padding": 1, "weights": "net.1.1"},
    {"kind": "group_norm", "groups": 2, "weights": "net.1.2"},
    {"kind": "leaky_relu", "slope": 0.2},
    {"kind": "conv", "channels": 3, "kernel": 1, "bias": False, "weights": "net.3"},
]


@pytest.fixture(scope="module")
def original() -> OriginalDecoder:
    torch.manual_seed(3)
    network = OriginalDecoder()
    for _ in range(3):  # running statistics that differ from those of a fresh network
        network(3.0 * torch.randn(64, DIMS))
    return network.eval()


@pytest.fixture
def files(original: OriginalDecoder, tmp_path: Path) -> Path:
    """``decoder.json``, ``weights.safetensors`` and ``codes.npz`` in one directory."""
    write(tmp_path, layers=LAYERS)
    save_file(original.state_dict(), tmp_path / "weights.safetensors")
    rng = np.random.default_rng(0)
    labels_N = np.arange(120) % 2
    codes_ND = (rng.normal(size=(120, DIMS)) + 3.0 * labels_N[:, None]).astype(np.float32)
    np.savez(tmp_path / "codes.npz", codes=codes_ND, labels=labels_N, class_names=np.array(["low", "high"]))
    return tmp_path


def write(directory: Path, **changes: Any) -> None:
    document = {"latent_dim": DIMS, "output": "sigmoid"} | changes
    (directory / "decoder.json").write_text(json.dumps(document))


def run(directory: Path, *words: str) -> dict[str, Any]:
    arguments = [
        "import",
        directory / "decoder.json",
        directory / "weights.safetensors",
        "--out",
        directory / "bundle",
        "--json",
        *words,
    ]
    done = CliRunner().invoke(root, list(map(str, arguments)), catch_exceptions=False)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_an_imported_decoder_gives_the_same_images_and_builds_datasets(original: OriginalDecoder, files: Path) -> None:
    facts = run(files, "--codes", str(files / "codes.npz"), "--clusters", "2")
    bundle = load_bundle(open_store(str(files / "bundle")))
    assert facts["digest"] == bundle.digest
    assert bundle.info.classes == ("low", "high")
    z_BD = np.random.default_rng(1).normal(size=(9, DIMS)).astype(np.float32)
    with torch.inference_mode():
        wanted_BHWC = original(torch.from_numpy(z_BD)).mul(255).round().permute(0, 2, 3, 1).numpy()
    got_BHWC = ResidentDecoder(bundle, batch=16, dtype="float32", device="cpu").decode(z_BD)
    assert got_BHWC.shape == (9, 16, 16, 3)
    assert np.abs(got_BHWC - wanted_BHWC).max() <= 1
    fields = {"bundle": str(files / "bundle"), "count": 60, "destination": str(files / "out"), "name": "theirs"}
    spec, _ = resolve_draft(parse_draft(fields), open_store(str(files / "root")))
    location = locate_build(spec)
    build(location, bundle, device="cpu")
    assert len(list(open_dataset(location.url))) == 60
    assert not verify_dataset(location.url, deep=True).problems
    refitted = refit(open_store(str(files / "bundle")), MixtureSettings(clusters=3), files / "other")
    assert load_bundle(open_store(str(files / "other"))).info.latents["clusters"] == [3, 3]
    assert refitted.digest != bundle.digest


def test_without_codes_it_draws_from_a_standard_normal_prior(files: Path) -> None:
    run(files)
    bundle = load_bundle(open_store(str(files / "bundle")))
    assert bundle.info.classes == ()
    z_BD, zeros_B = np.linspace(-2, 2, 2 * DIMS).reshape(2, DIMS), np.zeros(2, dtype=np.int64)
    normal = -0.5 * (z_BD**2).sum(axis=1) - 0.5 * DIMS * np.log(2 * np.pi)
    assert bundle.latents.log_prob(z_BD, zeros_B) == pytest.approx(normal)
    output = CliRunner().invoke(root, ["inspect", str(files / "bundle"), "--quick"], catch_exceptions=False).stdout
    assert "standard normal prior" in output


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        (LAYERS[1:], "in layer 0 .unflatten.: channels x height x width = 6"),
        ([*LAYERS[:1], *LAYERS[2:]], r"in layer 1 .conv_transpose.: an image, not 256 features"),
        (LAYERS[:-1], "an image at the end"),
        ([*LAYERS, {"kind": "conv", "channels": 3, "kernel": 31}], "in layer 10 .conv.: 1 to"),
        ([*LAYERS, {"kind": "lambda"}], "decoder.layers.10.layer"),
        ([{"kind": "linear", "features": 2**20}, {"kind": "linear", "features": 2**20}], "weights in all"),
        ([{"kind": "upsample"}] * 201, "decoder.layers"),
        ([{**LAYERS[0], "weights": "elsewhere"}, *LAYERS[1:]], "elsewhere.weight"),
        ([{**LAYERS[0], "bias": False}, *LAYERS[1:]], "only tensors of the described layers"),
        ([*LAYERS[:7], {**LAYERS[7], "groups": 3}, *LAYERS[8:]], "groups that divide 8"),
        (
            [*LAYERS[:9], {**LAYERS[9], "kernel": 3, "padding": 1}],
            r"net.3.weight: expected floats of shape \(3, 8, 3, 3\)",
        ),
    ],
)
def test_layers_that_do_not_fit_are_named(files: Path, layers: list[dict[str, Any]], named: str) -> None:
    write(files, layers=layers)
    with pytest.raises(SpecError, match=named):
        run(files)
    assert not (files / "bundle").exists()


def test_weights_and_codes_that_are_none_are_refused(files: Path, original: OriginalDecoder) -> None:
    weights, good = files / "weights.safetensors", (files / "weights.safetensors").read_bytes()
    torch.save(original.state_dict(), weights)
    with pytest.raises(SpecError, match="unpickled"):
        run(files)
    weights.unlink()
    with pytest.raises(SpecError, match="can be read"):
        run(files)
    weights.write_bytes(good)
    for codes, error in (
        ({"codes": np.zeros((50, DIMS + 1))}, SpecError),
        ({"codes": np.full((50, DIMS), np.nan)}, SpecError),
        ({"codes": np.zeros((50, DIMS))}, SourceError),
        ({"codes": np.ones((50, DIMS)), "labels": np.zeros(3, dtype=int)}, SourceError),
        ({"other": np.zeros(3)}, SourceError),
    ):
        np.savez(files / "codes.npz", **codes)
        with pytest.raises(error):
            run(files, "--codes", str(files / "codes.npz"))
    with pytest.raises(SpecError, match="codes"):
        run(files, "--sampler", "flow")
    assert not (files / "bundle").exists()


def test_an_output_that_is_no_image_is_said_so(files: Path) -> None:
    write(files, layers=LAYERS, output="unit")
    given = ["import", files / "decoder.json", files / "weights.safetensors", "--out", files / "bundle"]
    done = CliRunner().invoke(root, list(map(str, given)), catch_exceptions=False)
    assert "outside of [0, 1]" in done.stderr


def test_what_needs_an_encoder_or_a_training_says_that_there_is_none(files: Path) -> None:
    run(files)
    info = load_bundle(open_store(str(files / "bundle"))).info
    with pytest.raises(BundleError, match="imported"):
        _ = info.training_facts
    around = {"mode": "around", "image": str(files / "image.png"), "distance": 0.3}
    fields = {"bundle": str(files / "bundle"), "count": 6, "destination": str(files / "out"), "name": "x"}
    draft = parse_draft(fields | {"draw": around})
    with pytest.raises(LatentmillError, match="encoder"):
        resolve_draft(draft, open_store(str(files / "root")))


def test_large_images(tmp_path: Path) -> None:
    layers = [
        {"kind": "linear", "features": 192},
        {"kind": "unflatten", "channels": 48, "height": 2, "width": 2},
        {"kind": "pixel_shuffle", "factor": 4},
        {"kind": "upsample", "factor": 16},
        {"kind": "upsample", "factor": 4, "mode": "bilinear"},
    ]
    write(tmp_path, layers=layers, output="sigmoid")
    torch.manual_seed(0)
    save_file({"0.weight": torch.randn(192, DIMS), "0.bias": torch.randn(192)}, tmp_path / "weights.safetensors")
    run(tmp_path)
    bundle = load_bundle(open_store(str(tmp_path / "bundle")))
    fields = {"bundle": str(tmp_path / "bundle"), "count": 5, "batch": 4, "destination": str(tmp_path), "name": "large"}
    spec, _ = resolve_draft(parse_draft(fields), open_store(str(tmp_path / "root")))
    location = locate_build(spec)
    build(location, bundle, device="cpu")
    assert [image.shape for image, _, _ in open_dataset(location.url)] == [(512, 512, 3)] * 5
    assert not verify_dataset(location.url, deep=True).problems
