"""Imported graphs in the resident decoder: a row is the same in every place, with one thread and two, also compiled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from generator.models.bundle import Bundle, load_bundle
from generator.models.converters.diffusers import convert_diffusers
from generator.models.latents.config import PriorSettings
from generator.models.learning import import_network, join_graphs
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.compilation import missing_compiler
from generator.store import open_store
from tests.support.foreign_networks import kl_autoencoder

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An AutoencoderKL with sides, widths and groups that are no multiples of a vector."""
    root = tmp_path_factory.mktemp("imported")
    kl_autoencoder((8, 24)).save_pretrained(root / "vae")
    network = join_graphs(*convert_diffusers(root / "vae", 20))
    import_network(network, None, root / "bundle", sampler=PriorSettings())
    return load_bundle(open_store(str(root / "bundle")))


def points(bundle: Bundle, count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, bundle.latents.dims)).astype(np.float32)


def decoder_of(bundle: Bundle, batch: int, **options: object) -> ResidentDecoder:
    return ResidentDecoder(bundle, batch=batch, dtype="float32", device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [50, 64])
def test_a_row_is_the_same_in_every_place(bundle: Bundle, batch: int) -> None:
    decoder, z_BD = decoder_of(bundle, batch), points(bundle, batch)
    whole = decoder.decode(z_BD)
    for row in range(0, batch, 9):
        assert decoder.decode(z_BD[row : row + 1])[0].tobytes() == whole[row].tobytes(), row
    for place in range(0, batch, 11):
        for count in (1, 2):
            torch.set_num_threads(count)
            moved = decoder.decode(np.roll(z_BD, place, axis=0))
            assert np.roll(moved, -place, axis=0).tobytes() == whole.tobytes(), (place, count)


@pytest.mark.skipif(bool(missing_compiler("cpu")), reason="no C++ compiler here")
def test_compiled_rows_are_the_same_in_every_place(bundle: Bundle, compile_cache: Path) -> None:
    torch.set_num_threads(2)
    decoder, z_BD = decoder_of(bundle, 50, execution="compiled", cache=compile_cache), points(bundle, 50)
    whole = decoder.decode(z_BD)
    eager = decoder_of(bundle, 50).decode(z_BD)
    assert np.abs(whole.astype(int) - eager).max() <= 1
    for place in range(0, 50, 7):
        assert np.roll(decoder.decode(np.roll(z_BD, place, axis=0)), -place, axis=0).tobytes() == whole.tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(bundle: Bundle, dtype: str) -> None:
    z_BD, exact = points(bundle, 8), decoder_of(bundle, 8).decode(points(bundle, 8))
    found = ResidentDecoder(bundle, batch=8, dtype=dtype, device="cpu").decode(z_BD)
    assert np.abs(found.astype(int) - exact).mean() < 2.0


def test_memory_is_known_before_work_begins(bundle: Bundle) -> None:
    config = bundle.info.autoencoder
    assert decoder_of(bundle, 16).peak_bytes >= 16 * 4 * config.decoder.live_features()  # type: ignore[union-attr]
