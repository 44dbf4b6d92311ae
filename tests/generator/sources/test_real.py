"""Real photographs in mixed sizes and modes, and the benchmark datasets if they are available."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from generator.sources import load_source

ROOT = Path(__file__).resolve().parents[3]


def benchmark(name: str) -> str:
    """The path of a benchmark dataset. A missing one fails in CI and skips elsewhere."""
    path = Path(os.environ.get("LATENTMILL_DATA", ROOT.parent / "shared" / "data")) / name
    if path.exists():
        return str(path)
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not in LATENTMILL_DATA")
    pytest.skip(f"{name} is not in LATENTMILL_DATA")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of two photographs: a temple and a flower, in many sizes, modes and formats."""
    root = tmp_path_factory.mktemp("photographs")
    kinds = [
        ("RGB", "jpg"),
        ("L", "jpg"),
        ("CMYK", "jpg"),
        ("RGBA", "png"),
        ("P", "gif"),
        ("LA", "png"),
        ("RGB", "webp"),
    ]
    rng = np.random.default_rng(0)
    for name, pixels in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for number in range(21):
            width, height = rng.integers(70, 400, 2)
            left, top = rng.integers(0, 640 - width), rng.integers(0, 427 - height)
            mode, suffix = kinds[number % len(kinds)]
            crop = Image.fromarray(pixels).crop((left, top, left + width, top + height))
            crop.convert(mode).save(root / name / f"{number:02d}.{suffix}")
    return root


def test_photographs_of_mixed_sizes_and_modes_become_one_array(photographs: Path) -> None:
    source = load_source(str(photographs))
    assert source.images_NHWC.shape == (42, 64, 64, 3)
    assert source.class_names == ("flower", "temple")
    assert source.skipped == ()
    assert np.median(source.images_NHWC.std(axis=(1, 2, 3))) > 30
    assert load_source(str(photographs)).fingerprint == source.fingerprint
    assert load_source(str(photographs), channels=1, size=128).images_NHWC.shape == (42, 128, 128, 1)


def test_one_photograph_looks_alike_in_every_mode(tmp_path: Path) -> None:
    photograph = Image.fromarray(load_sample_images().images[0])
    for mode, suffix in [
        ("RGB", "png"),
        ("RGB", "jpg"),
        ("RGB", "webp"),
        ("RGBA", "png"),
        ("P", "gif"),
        ("YCbCr", "jpg"),
    ]:
        photograph.convert(mode).save(tmp_path / f"{mode}.{suffix}")
    photograph.convert("CMYK").save(tmp_path / "cmyk.tif")
    images_NHWC = load_source(str(tmp_path)).images_NHWC.astype(int)
    differences_N = np.abs(images_NHWC - images_NHWC[0]).mean(axis=(1, 2, 3))
    assert differences_N.max() < 6, differences_N


def test_mnist_as_it_is_stored() -> None:
    location = benchmark("mnist.npz")
    train, test = load_source(location), load_source(location, split="test")
    assert train.images_NHWC.shape == (60_000, 28, 28, 1)
    assert test.images_NHWC.shape == (10_000, 28, 28, 1)
    assert train.class_names == test.class_names == tuple("0123456789")
    assert test.labels_N is not None
    assert np.bincount(test.labels_N).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.fingerprint != test.fingerprint


@pytest.mark.slow
def test_cifar_as_it_is_stored() -> None:
    source = load_source(benchmark("cifar10-test.parquet"))
    assert source.images_NHWC.shape == (10_000, 32, 32, 3)
    assert source.labels_N is not None
    assert np.bincount(source.labels_N).tolist() == [1000] * 10
    assert source.class_names[:3] == ("airplane", "automobile", "bird")
    assert source.class_names[9] == "truck"


def test_train_and_test_in_one_folder_are_told_apart() -> None:
    folder = Path(benchmark("cifar10-train.parquet")).parent
    source = load_source(str(folder), split="test")
    assert (len(source), source.facts.split, source.facts.splits) == (10_000, "test", ("train", "test"))
