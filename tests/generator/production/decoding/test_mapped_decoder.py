"""A map in front of the decoder keeps the laws: a row depends on its point and label alone, builds are replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from generator.datasets.replay import replay
from generator.datasets.verification.verify import verify_dataset
from generator.models.bundle import Bundle, load_bundle
from generator.models.latents.transport_map import to_codes
from generator.production.commit import locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.compilation import missing_compiler
from generator.production.mill import build
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import mapped_bundle


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(mapped_bundle(tmp_path_factory.mktemp("mapped") / "bundle"))))


def points(bundle: Bundle, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, bundle.latents.dims)).astype(np.float32), rng.integers(0, 2, count)


def decoder_of(bundle: Bundle, batch: int, **options: object) -> ResidentDecoder:
    return ResidentDecoder(bundle, batch=batch, dtype="float32", device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [250, 256])
def test_a_row_is_the_same_in_every_place(bundle: Bundle, batch: int) -> None:
    z_BD, labels_B = points(bundle, batch)
    decoder = decoder_of(bundle, batch)
    whole = decoder.decode(z_BD, labels_B)
    for row in range(0, batch, 31):
        assert decoder.decode(z_BD[row : row + 1], labels_B[row : row + 1])[0].tobytes() == whole[row].tobytes(), row
    for place in range(0, batch, 23):
        for count in (1, 2):
            torch.set_num_threads(count)
            moved = decoder.decode(np.roll(z_BD, place, axis=0), np.roll(labels_B, place))
            assert np.roll(moved, -place, axis=0).tobytes() == whole.tobytes(), (place, count)


def test_a_point_gives_other_images_in_other_classes(bundle: Bundle) -> None:
    z_BD, _ = points(bundle, 8)
    decoder = decoder_of(bundle, 8)
    first, second = (decoder.decode(z_BD, np.full(8, label)) for label in (0, 1))
    assert (first != second).any(axis=(1, 2, 3)).all()


def test_the_decoder_shows_the_codes_that_the_map_gives(bundle: Bundle) -> None:
    z_BD, labels_B = points(bundle, 8)
    codes_BD = to_codes(bundle.latents, z_BD.astype(np.float64), labels_B)
    wanted = decoder_of(bundle, 8, mapped=False).decode(codes_BD.astype(np.float32))
    found = decoder_of(bundle, 8).decode(z_BD, labels_B)
    assert np.abs(wanted.astype(int) - found).max() <= 1
    assert np.abs(wanted.astype(int) - decoder_of(bundle, 8, mapped=False).decode(z_BD)).max() > 1


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_compiler("cpu")), reason="no C++ compiler here")
def test_compiled_rows_are_the_same_in_every_place(bundle: Bundle, compile_cache: Path) -> None:
    torch.set_num_threads(2)
    decoder = decoder_of(bundle, 250, execution="compiled", cache=compile_cache)
    z_BD, labels_B = points(bundle, 250)
    eager = decoder_of(bundle, 250).decode(z_BD, labels_B)
    whole = decoder.decode(z_BD, labels_B)
    assert np.abs(eager.astype(int) - whole).max() <= 1
    for place in range(0, 250, 49):
        moved = decoder.decode(np.roll(z_BD, place, axis=0), np.roll(labels_B, place))
        assert np.roll(moved, -place, axis=0).tobytes() == whole.tobytes()
        assert (
            decoder.decode(z_BD[place : place + 1], labels_B[place : place + 1])[0].tobytes() == whole[place].tobytes()
        )


def test_a_build_is_verified_and_replayed(bundle: Bundle, tmp_path: Path) -> None:
    recipe = Recipe(
        bundle=bundle.digest, classes=("cat", "dog"), counts=(13, 12), shard_size=10, batch=8, density_floor=0.3
    )
    spec = JobSpec(recipe=recipe, order=Order(destination=str(tmp_path), name="mapped"))
    location = locate_build(spec)
    build(location, bundle, device="cpu")
    assert not verify_dataset(location.url, deep=True).problems
    store = open_store(str(mapped_bundle(tmp_path / "again")))
    for index in (0, 11, 24):
        assert replay(location.url, index, bundle=load_bundle(store), device="cpu").identical, index
