"""Images that would take most of the memory lie in a temporary file, and a bundle of them is the same."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator.errors import SourceError
from generator.models.autoencoders.settings import TrainSettings
from generator.models.features import neighbours
from generator.models.features.classifier import Classifier
from generator.models.features.extractors import classifier_features
from generator.models.features.neighbours import nearest_neighbours
from generator.models.latents.config import TransportSettings
from generator.models.learning import encode_source, pretrained_network
from generator.models.screening.config import JudgeSettings
from generator.sources import Source, load_source
from generator.sources.pixels import storage
from generator.sources.pixels.storage import (
    ImageRows,
    allocate_images,
    flat_pixels,
    image_rows,
    is_on_disk,
    map_rows,
    take_rows,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty squares in two class folders; one file is broken."""
    directory, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(30):
        folder = directory / ("bright" if number % 2 else "dark")
        folder.mkdir(exist_ok=True)
        pixels = np.clip(rng.normal(200 if number % 2 else 40, 20, (48, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (directory / "dark" / "10.png").write_bytes(b"not an image")
    return directory


def load(path: Path) -> Source:
    return load_source(str(path), size=24, skip_bad=True)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "available_memory", lambda: 1000.0)


def bundle_digest(source: Source, path: Path) -> str:
    return encode_source(
        pretrained_network(24, 3),
        source,
        path,
        sampler=TransportSettings(map=None),
        settings=TrainSettings(epochs=1, reconstruction="mse", batch=16),
        finetune=True,
        judge=JudgeSettings(members=1, budget={"steps": 5}),  # type: ignore[arg-type]
    ).digest


def test_a_source_on_disk_gives_the_same_bundle(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = load(photographs)
    assert not is_on_disk(in_memory.images_NHWC)
    monkeypatch.setattr(storage, "available_memory", lambda: 1000.0)
    on_disk = load(photographs)
    assert is_on_disk(on_disk.images_NHWC)
    assert on_disk.fingerprint == in_memory.fingerprint
    assert len(on_disk) == 29
    assert [Path(skipped.file).name for skipped in on_disk.skipped] == ["10.png"]
    assert np.array_equal(on_disk.images_NHWC, in_memory.images_NHWC)
    assert bundle_digest(on_disk, tmp_path / "a") == bundle_digest(in_memory, tmp_path / "b")


def test_rows_are_read_when_asked(little_memory: None) -> None:
    images = allocate_images((10, 8, 8, 3))
    images[:] = np.arange(10)[:, None, None, None]
    rows = image_rows(images, np.array([7, 2, 5]))
    assert isinstance(rows, ImageRows)
    assert rows.shape == (3, 8, 8, 3)
    assert len(rows) == 3
    assert rows[1:][:, 0, 0, 0].tolist() == [2, 5]
    assert rows[np.array([2, 0])][:, 0, 0, 0].tolist() == [5, 7]
    assert rows[np.array([])].shape == (0, 8, 8, 3)
    for key in ((0, 1), (slice(None), 0), Ellipsis, None):
        with pytest.raises(TypeError, match="by one index"):
            rows[key]
    assert is_on_disk(images[2:])
    assert not is_on_disk(np.zeros(3)[1:])


def test_features_of_many_images_lie_on_disk_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1300, 8, 8, 3)).astype(np.uint8)
    extract = classifier_features(Classifier(8, 3, 2).eval().requires_grad_(False))
    in_memory = extract(images)
    monkeypatch.setattr(storage, "available_memory", lambda: 1000.0)
    on_disk = extract(images)
    assert (is_on_disk(in_memory), is_on_disk(on_disk), on_disk.dtype) == (False, True, np.float32)
    np.testing.assert_array_equal(on_disk, in_memory)
    rows = take_rows(on_disk, np.array([1200, 7]))
    assert isinstance(rows, ImageRows)
    np.testing.assert_array_equal(rows[:], in_memory[[1200, 7]])


def test_no_room_anywhere(photographs: Path, little_memory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", full)
    with pytest.raises(SourceError, match="or in the directory for temporary files"):
        load(photographs)


def test_points_are_computed_when_asked(little_memory: None) -> None:
    images = allocate_images((2000, 8, 8, 3))
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape)
    rows_N = np.random.default_rng(1).permutation(2000)[:1500]
    points = flat_pixels(image_rows(images, rows_N))
    expected = np.asarray(images)[rows_N].reshape(1500, -1)
    assert isinstance(points, ImageRows)
    assert (points.shape, points.ndim, len(points), points.dtype) == ((1500, 192), 2, 1500, np.uint8)
    taken = take_rows(points, np.array([3, 1400, 7]))
    np.testing.assert_array_equal(taken[:], expected[[3, 1400, 7]])
    means = map_rows(points, lambda some: some.mean(axis=1), (), np.float64)
    for key in (5, slice(10, 1300), np.array([[1, 2], [3, 4]]), expected[:, 0] > 100, np.array([], dtype=np.int64)):
        np.testing.assert_array_equal(points[key], expected[key])
        np.testing.assert_array_equal(means[key], expected[key].mean(axis=-1))


@pytest.mark.parametrize("exclude", [False, True])
def test_neighbours_of_points_on_disk(little_memory: None, monkeypatch: pytest.MonkeyPatch, exclude: bool) -> None:
    monkeypatch.setattr(neighbours, "_POINT_BYTES", 2**18)
    monkeypatch.setattr(neighbours, "_QUERY_BYTES", 2**20)
    images = allocate_images((3000, 8, 8, 3))
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape)
    points, in_memory = flat_pixels(images), np.array(images).reshape(3000, -1)
    queries = in_memory if exclude else np.random.default_rng(1).integers(0, 256, (1500, 192)).astype(np.uint8)
    exclude_Q = np.arange(3000) if exclude else None
    found = nearest_neighbours(queries, points, 3, exclude_Q=exclude_Q)
    wanted = nearest_neighbours(queries, in_memory, 3, exclude_Q=exclude_Q)
    np.testing.assert_array_equal(found.rows_QK, wanted.rows_QK)
    np.testing.assert_array_equal(found.distances_QK, wanted.distances_QK)
    some = slice(0, 1500, 150)
    squared = ((queries[some, None].astype(float) - in_memory[None].astype(float)) ** 2).sum(-1)
    if exclude:
        squared[np.arange(10), np.arange(0, 1500, 150)] = np.inf
    np.testing.assert_allclose(found.distances_QK[some], np.sqrt(np.sort(squared, axis=1)[:, :3]))


@pytest.mark.skipif(not hasattr(mmap, "MADV_RANDOM"), reason="the system takes no advice")
def test_rows_in_random_order_do_not_read_what_lies_around_them(tmp_path: Path) -> None:
    images_NHWC = np.arange(4096 * 32 * 32 * 3, dtype=np.uint8).reshape(4096, 32, 32, 3)
    with (tmp_path / "pixels").open("wb") as file:
        file.write(images_NHWC.data)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mapped = np.memmap(tmp_path / "pixels", dtype=np.uint8, mode="r", shape=images_NHWC.shape)
    rows = ImageRows(mapped)
    chosen_N = np.random.default_rng(0).permutation(4096)[:100]
    before = bytes_read()
    assert np.array_equal(rows[chosen_N], images_NHWC[chosen_N])
    assert bytes_read() - before < 100 * 4 * mmap.PAGESIZE
    assert np.array_equal(rows[100:200], images_NHWC[100:200])


def bytes_read() -> int:
    """What this process has had read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))
