"""The laws on a CUDA device; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from generator.bundle import load_bundle
from generator.decoding import ResidentDecoder
from generator.mill import build
from generator.publish import place_of
from generator.spec import JobSpec, Order, Recipe
from generator.store import open_store
from tests.bundles import tiny_bundle

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


def test_two_builds_on_one_device_kind_are_equal_and_name_it(tmp_path: Path) -> None:
    bundle = load_bundle(open_store(str(tiny_bundle(tmp_path / "b", size=32))))
    recipe = Recipe(bundle=bundle.digest, classes=bundle.info.classes, counts=(50, 50, 50), shard_size=40, batch=32)
    first, second = (
        build(
            place_of(JobSpec(recipe=recipe, order=Order(destination=f"memory://gpu-{run}", name="gpu"))),
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
