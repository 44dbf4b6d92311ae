"""The command import: every way in, its options, and choices that exclude each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.numpy import load_file, save_file

from generator.errors import InputError
from generator.models.bundle import load_bundle
from generator.production.decoding import ResidentDecoder
from generator.store import open_store
from tests.support.foreign_networks import tiny_autoencoder
from workers.cli.main import root

pytestmark = pytest.mark.slow


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(root, ["import", *map(str, arguments)], catch_exceptions=False)


def bundle_facts(result: Result) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ``AutoencoderTiny`` as published (four stages, 64 maps), so that its parts are a TAESD too."""
    directory = tmp_path_factory.mktemp("vae")
    tiny_autoencoder(4, 64, num_blocks=(1, 3, 3, 3)).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty squares of 40 pixels in two class folders."""
    directory, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(40):
        folder = directory / ("bright" if number % 2 else "dark")
        folder.mkdir(exist_ok=True)
        level = 200 if number % 2 else 40
        pixels = np.clip(rng.normal(level, 20, (40, 40, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return directory


def test_diffusers_with_images(saved: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    result = invoke(
        "diffusers", saved, "--encode", photographs, "--size", 32, "--out", out,
        "--sampler", "transport", "--map-epochs", 0, "--judges", 0, "--json",
    )  # fmt: skip
    facts = bundle_facts(result)
    assert (facts["images"], facts["classes"], facts["code"]) == (40, 2, "4 x 4 x 4")
    assert facts["reconstruction_error"] > 0
    bundle = load_bundle(open_store(str(out)))
    assert bundle.digest == facts["digest"]
    assert bundle.info.classes == ("bright", "dark")
    described = CliRunner().invoke(root, ["inspect", str(out), "--json"], catch_exceptions=False)
    assert json.loads(described.stdout)["epochs"] == 0


def test_finetuning(saved: Path, tmp_path: Path) -> None:
    """Without labels, so that no classifier has to be trained for the feature loss."""
    images_NHWC = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images_NHWC)
    result = invoke(
        "diffusers", saved, "--encode", tmp_path / "images.npz", "--size", 32, "--out", tmp_path / "bundle",
        "--finetune", 1, "--map-epochs", 0, "--judges", 0, "--json",
    )  # fmt: skip
    assert bundle_facts(result)["finetuned_epochs"] == 1


def test_taesd(saved: Path, tmp_path: Path) -> None:
    tensors = load_file(saved / "diffusion_pytorch_model.safetensors")
    for part in ("encoder", "decoder"):
        own = {name.removeprefix(f"{part}.layers."): t for name, t in tensors.items() if name.startswith(part)}
        shift = int(part == "decoder")  # the soft clamp is a numbered module there
        named = {f"{int(name.split('.')[0]) + shift}.{name.split('.', 1)[1]}": t for name, t in own.items()}
        save_file(named, tmp_path / f"{part}.safetensors")
    encoder, decoder = (tmp_path / f"{part}.safetensors" for part in ("encoder", "decoder"))
    result = invoke("taesd", "--encoder", encoder, "--decoder", decoder, "--size", 32, "--out", tmp_path / "a")
    assert "no images were encoded" in result.stderr
    assert "prior" in result.stdout
    same = invoke("diffusers", saved, "--size", 32, "--out", tmp_path / "b", "--json")
    first, second = (load_bundle(open_store(str(tmp_path / name))) for name in "ab")
    assert bundle_facts(same)["digest"] == second.digest
    assert all(np.array_equal(weight, second.decoder[name]) for name, weight in first.decoder.items())


def test_sizes_are_width_and_height(saved: Path, tmp_path: Path) -> None:
    facts = bundle_facts(invoke("diffusers", saved, "--size", "45x30", "--out", tmp_path / "a", "--json"))
    assert (facts["image"], facts["code"]) == ("30 x 45, RGB", "4 x 4 x 6")
    image = load_bundle(open_store(str(tmp_path / "a"))).info.image
    assert (image.height, image.width) == (30, 45)


def test_codes_of_a_file(saved: Path, tmp_path: Path) -> None:
    codes_ND = np.random.default_rng(0).normal(size=(80, 64)).astype(np.float32)
    np.savez(tmp_path / "codes.npz", codes=codes_ND, labels=np.arange(80) % 2, class_names=np.array(["a", "b"]))
    common = ("diffusers", saved, "--size", 32, "--codes", tmp_path / "codes.npz")
    assert (
        bundle_facts(invoke(*common, "--out", tmp_path / "a", "--sampler", "gaussian", "--json"))["sampler"]
        == "gaussian"
    )
    assert load_bundle(open_store(str(tmp_path / "a"))).info.classes == ("a", "b")


def test_a_chain_of_layers_may_end_in_an_oblong_image(tmp_path: Path) -> None:
    layers = [{"kind": "linear", "features": 240}, {"kind": "unflatten", "channels": 1, "height": 10, "width": 24}]
    (tmp_path / "decoder.json").write_text(json.dumps({"latent_dim": 4, "layers": layers}))
    weights = {"0.weight": np.zeros((240, 4), np.float32), "0.bias": np.linspace(0.0, 1.0, 240, dtype=np.float32)}
    save_file(weights, tmp_path / "weights.safetensors")
    files = (tmp_path / "decoder.json", tmp_path / "weights.safetensors")
    assert bundle_facts(invoke(*files, "--out", tmp_path / "a", "--json"))["image"] == "10 x 24, grey"
    bundle = load_bundle(open_store(str(tmp_path / "a")))
    decoder = ResidentDecoder(bundle, batch=1, dtype="float32", device="cpu")
    image_HW = decoder.decode(np.zeros((1, 4), np.float32))[0, :, :, 0]
    assert np.array_equal(image_HW, np.rint(255.0 * np.linspace(0.0, 1.0, 240)).reshape(10, 24))


def test_a_chain_of_layers_needs_no_word(tmp_path: Path) -> None:
    layers = [{"kind": "linear", "features": 192}, {"kind": "unflatten", "channels": 3, "height": 8, "width": 8}]
    (tmp_path / "decoder.json").write_text(json.dumps({"latent_dim": 4, "layers": layers}))
    weights = {"0.weight": np.zeros((192, 4), np.float32), "0.bias": np.full(192, 0.5, np.float32)}
    save_file(weights, tmp_path / "weights.safetensors")
    digests = set()
    for name, word in (("a", []), ("b", ["layers"])):
        files = (tmp_path / "decoder.json", tmp_path / "weights.safetensors")
        digests.add(bundle_facts(invoke(*word, *files, "--out", tmp_path / name, "--json"))["digest"])
    digests.add(bundle_facts(invoke("--out", tmp_path / "c", "--json", *files))["digest"])
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--encode", "digits", "--codes", "x.npz"), "encode"),
        (("--finetune", "3"), "finetune"),
        (("--truncation", "0.5", "--encode", "digits"), "truncation"),
        (("--sampler", "gaussian"), "sampler"),
        (("--map-epochs", "3"), "sampler"),
        (("--truncation", "0"), "prior.truncation"),
        (("--encode", "nowhere"), "nowhere"),
        (("--encode", "digits", "--device", "tpu"), "train.device"),
        (("--encode", "digits", "--size", "7"), "size"),
        (("--size", "0x64"), "size"),
        (("--size", "64x"), "size"),
        (("--size", "axb"), "size"),
        (("--size", "64x1025"), "size"),
    ],
)
def test_choices_that_exclude_each_other(options: tuple[str, ...], field: str, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        invoke("diffusers", saved, "--out", tmp_path / "bundle", *options)
    assert error.value.field == field
    assert not (tmp_path / "bundle").exists()


def test_help_names_the_ways() -> None:
    text = invoke("--help").stdout
    assert all(way in text for way in ("diffusers", "layers", "onnx", "taesd"))
