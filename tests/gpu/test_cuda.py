"""The laws of docs/design.md on a CUDA device; skipped without one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from generator import open_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import InvalidOutput, SettingsError
from generator.models.autoencoders.config import SpatialConfig
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.training import Examples, train_autoencoder
from generator.models.bundle import Bundle, load_bundle, push
from generator.models.converters.diffusers import convert_diffusers
from generator.models.latents.config import PriorSettings
from generator.models.learning import import_network, join_graphs
from generator.production.commit import locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.compilation import missing_compiler
from generator.production.mill import build
from generator.spec.recipe import Execution, JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.foreign_networks import kl_autoencoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def test_a_row_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    bundle = load_bundle(open_store(str(tiny_bundle(tmp_path / "b", size=64, channels=3, dims=16))))
    decoder = ResidentDecoder(bundle, batch=32, dtype="float32", device="cuda")
    z_BD = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    whole = decoder.decode(z_BD)
    for step in (1, 3, 7):
        parts = [decoder.decode(z_BD[start : start + step]) for start in range(0, 32, step)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert decoder.peak_bytes > 0


def test_a_row_of_an_imported_graph_does_not_depend_on_its_place(tmp_path: Path) -> None:
    kl_autoencoder((8, 24)).save_pretrained(tmp_path / "vae")
    network = join_graphs(*convert_diffusers(tmp_path / "vae", 20))
    import_network(network, None, tmp_path / "b", sampler=PriorSettings())
    bundle = load_bundle(open_store(str(tmp_path / "b")))
    z_BD = np.random.default_rng(0).normal(size=(50, bundle.latents.dims)).astype(np.float32)
    for dtype in ("float32", "float16"):
        decoder = ResidentDecoder(bundle, batch=50, dtype=dtype, device="cuda")
        whole = decoder.decode(z_BD)
        for place in range(0, 50, 7):
            moved = decoder.decode(np.roll(z_BD, place, axis=0))
            assert np.array_equal(np.roll(moved, -place, axis=0), whole)
        assert np.array_equal(decoder.decode(z_BD[:3]), whole[:3])


@pytest.mark.parametrize("execution", ["eager", "compiled"])
def test_oblong_images_with_margins_are_as_on_a_cpu(execution: Execution, tmp_path: Path) -> None:
    if execution == "compiled" and (lack := missing_compiler("cuda")):
        pytest.skip(lack)
    kl_autoencoder((8, 24)).save_pretrained(tmp_path / "vae")
    import_network(
        join_graphs(*convert_diffusers(tmp_path / "vae", (47, 33))), None, tmp_path / "b", sampler=PriorSettings()
    )
    bundle = load_bundle(open_store(str(tmp_path / "b")))
    z_BD = np.random.default_rng(0).normal(size=(16, bundle.latents.dims)).astype(np.float32)
    cpu = ResidentDecoder(bundle, batch=16, dtype="float32", device="cpu").decode(z_BD)
    cuda = ResidentDecoder(
        bundle, batch=16, dtype="float32", device="cuda", execution=execution, cache=tmp_path / "c"
    ).decode(z_BD)
    assert cuda.shape == (16, 33, 47, 3)
    assert np.abs(cpu.astype(int) - cuda).max() <= 1


def test_two_builds_on_one_device_kind_are_equal_and_name_it(tmp_path: Path) -> None:
    bundle = load_bundle(open_store(str(tiny_bundle(tmp_path / "b", size=32))))
    recipe = Recipe(bundle=bundle.digest, classes=bundle.info.classes, counts=(50, 50, 50), shard_size=40, batch=32)
    first, second = (
        build(
            locate_build(JobSpec(recipe=recipe, order=Order(destination=f"memory://gpu-{run}", name="gpu"))),
            bundle,
            device="cuda",
        )
        for run in range(2)
    )
    assert first.canonical() == second.canonical()
    assert all(facts["device"].startswith("cuda/") for facts in first.environments.values())


def test_float32_on_the_device_is_float32(tmp_path: Path) -> None:
    bundle = load_bundle(open_store(str(tiny_bundle(tmp_path / "b", size=64, channels=3, dims=16))))
    z_BD = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    cpu, cuda = (
        ResidentDecoder(bundle, batch=32, dtype="float32", device=device).decode(z_BD) for device in ("cpu", "cuda")
    )
    assert np.abs(cpu.astype(int) - cuda).max() <= 1


def wide(tmp_path: Path) -> Bundle:
    return load_bundle(open_store(str(tiny_bundle(tmp_path / "b", size=64, channels=3, dims=16))))


def test_replayed_graphs_show_what_the_network_shows_from_any_number_of_threads(tmp_path: Path) -> None:
    decoder = ResidentDecoder(wide(tmp_path), batch=32, dtype="float32", device="cuda")
    z_NBD = np.random.default_rng(0).normal(size=(64, 32, 16)).astype(np.float32)
    graphs, decoder._graph_runner = decoder._graph_runner, None
    assert graphs is not None
    plain = [decoder.decode(z_BD) for z_BD in z_NBD]
    decoder._graph_runner = graphs
    for threads in (1, 2, 8):
        with ThreadPoolExecutor(threads) as pool:
            assert all(
                np.array_equal(one, two) for one, two in zip(pool.map(decoder.decode, z_NBD), plain, strict=True)
            )
    assert threading.active_count() < 8


def test_poison_is_noticed_in_a_replayed_graph(tmp_path: Path) -> None:
    decoder = ResidentDecoder(wide(tmp_path), batch=8, dtype="float32", device="cuda")
    with pytest.raises(InvalidOutput, match="finite"):
        decoder.decode(np.full((8, 16), np.nan, dtype=np.float32))
    decoder.decode(np.zeros((8, 16), dtype=np.float32))


@pytest.mark.parametrize(("dtype", "levels"), [("float16", 2), ("bfloat16", 8)])
def test_short_types_stay_within_their_tolerance(tmp_path: Path, dtype: str, levels: int) -> None:
    z_BD = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    exact, short = (
        ResidentDecoder(wide(tmp_path / kind), batch=32, dtype=kind, device="cuda").decode(z_BD).astype(int)
        for kind in ("float32", dtype)
    )
    assert np.abs(exact - short).max() <= levels


def test_a_compiled_decoder_on_the_device_is_within_a_level_and_repeats(tmp_path: Path) -> None:
    if lack := missing_compiler("cuda"):
        pytest.skip(lack)
    z_BD = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    eager, compiled, again = (
        ResidentDecoder(
            wide(tmp_path / name), batch=32, dtype="float32", device="cuda", execution=execution, cache=tmp_path / "c"
        ).decode(z_BD)
        for name, execution in (("e", "eager"), ("c1", "compiled"), ("c2", "compiled"))
    )
    assert np.abs(eager.astype(int) - compiled).max() <= 1
    assert np.array_equal(compiled, again)


def test_a_virtual_dataset_is_made_on_the_gpu_as_its_build_is(tmp_path: Path) -> None:
    root = open_store(str(tmp_path / "root"))
    digest = push(open_store(str(tiny_bundle(tmp_path / "b", size=32, channels=3, dims=16))), root)
    recipe = {"bundle": digest, "count": 300, "batch": 64, "shard_size": 128, "published": None}
    job, bundle = resolve_draft(parse_draft({**recipe, "destination": str(tmp_path), "name": "stored"}), root)
    build(locate_build(job), load_bundle(bundle), device="cuda")
    stored = list(open_dataset(locate_build(job).url))
    virtual = open_dataset(recipe=recipe, root=root.url, device="cuda", batch_size=50)
    for options in ({"num_workers": 0}, {"num_workers": 1, "multiprocessing_context": "spawn"}):
        batches = list(DataLoader(virtual, batch_size=None, **options))
        made = np.concatenate([batch.image.numpy() for batch in batches])
        assert np.array_equal(made, np.stack([sample.image for sample in stored]))
    with pytest.raises(SettingsError, match="spawned workers"):
        list(DataLoader(virtual, batch_size=None, num_workers=1, multiprocessing_context="fork"))


def test_training_in_half_precision_is_near_that_in_whole() -> None:
    rng = np.random.default_rng(0)
    shades_NHWC = np.clip(rng.integers(0, 256, (256, 1, 1, 3)) + rng.integers(-20, 20, (256, 32, 32, 3)), 0, 255)
    training, holdout = Examples(shades_NHWC[:224].astype(np.uint8)), Examples(shades_NHWC[224:].astype(np.uint8))
    settings = TrainSettings(epochs=8, batch=32, reconstruction="mse", device="cuda", patience=8)
    config = SpatialConfig(size=32, width=16, code_channels=8)
    half = train_autoencoder(config, settings, training, holdout)  # precision: auto
    whole = train_autoencoder(config, settings.model_copy(update={"precision": "float32"}), training, holdout)
    first, last = whole.history[0].holdout_loss, whole.history[-1].holdout_loss
    assert half.history[-1].holdout_loss == pytest.approx(last, abs=0.1 * (first - last))
    is_half = torch.cuda.is_bf16_supported(including_emulation=False)
    assert (half.history[-1].holdout_loss != last) == is_half
