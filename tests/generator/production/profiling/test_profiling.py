"""Profiles are consistent, and suggested workers fit the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from generator.errors import SpecError
from generator.models.bundle import Bundle, load_bundle
from generator.production.profiling.profile import profile
from generator.production.profiling.random_bundle import random_bundle
from generator.production.profiling.suggestion import suggest_worker
from generator.spec.recipe import Recipe
from generator.store import open_store
from tests.support.bundles import screened_bundle
from workers.settings import Settings
from workers.worker.tuning import tuned_settings


def recipe_for(bundle: Bundle, **changes: object) -> Recipe:
    fields = {"classes": bundle.info.classes, "counts": (40,) * len(bundle.info.classes), "shard_size": 50, "batch": 16}
    return Recipe.model_validate({"bundle": bundle.digest, **fields, **changes})


def test_a_profile_adds_up(tmp_path: Path) -> None:
    bundle = load_bundle(open_store(str(screened_bundle(tmp_path / "bundle", size=16, channels=3))))
    recipe = recipe_for(bundle, label_floor=0.334)
    found = profile(recipe, bundle, tmp_path, device="cpu", price_per_hour=3.6, stage_seconds=0.02)
    assert set(found.alone) == {"latents", "decode", "screen", "encode", "write", "upload"}
    assert all(seconds > 0.0 for seconds in found.alone.values())
    assert found.limit == pytest.approx(min(found.decode_rate, found.cores / sum(found.alone.values())), rel=0.01)
    assert found.share_of_limit == pytest.approx(found.whole_rate / found.limit, rel=0.01)
    assert sum(found.share.values()) == pytest.approx(100.0, abs=0.5)
    assert found.cost_per_million == pytest.approx(1000.0 / found.whole_rate, rel=0.01)
    assert found.images == 120
    assert found.image == "16 x 16 x 3, png"


def test_a_machine_can_be_measured_without_a_bundle(tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path / "reference", 16)
    found = profile(recipe_for(bundle, image={"format": "jpeg"}), bundle, tmp_path, device="cpu", stage_seconds=0.02)
    assert found.image == "16 x 16 x 3, jpeg"
    assert found.cost_per_million is None
    assert random_bundle(tmp_path / "again", 16).digest == bundle.digest
    oblong = random_bundle(tmp_path / "oblong", (24, 16)).info.image
    assert (oblong.height, oblong.width) == (16, 24)
    with pytest.raises(SpecError, match=r"size: expected 8 to 128 pixels a side for the model stacked, got 129x16"):
        random_bundle(tmp_path / "large", (129, 16))


def test_a_cpu_gets_a_process_a_core_as_far_as_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, wanted in ((2**40, (8, 1)), (3 * 10**9, (3, 2)), (10**6, (1, 8))):
        monkeypatch.setattr("generator.production.profiling.suggestion.available_memory", lambda free=free: free)
        found = suggest_worker(cuda=False, cores=8)
        assert (found.concurrency, found.threads) == wanted


def test_a_gpu_gets_the_processes_that_keep_up_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.production.profiling.suggestion.available_memory", lambda: 2**40)
    assert suggest_worker(cuda=True, cores=16).concurrency == 2
    assert suggest_worker(cuda=True, cores=16, feeding=4.1).concurrency == 6
    assert suggest_worker(cuda=True, cores=4, feeding=40.0).concurrency == 4
    assert suggest_worker(cuda=True, cores=1).concurrency == 1


def test_a_tuned_worker_keeps_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.production.profiling.suggestion.available_memory", lambda: 2**40)
    monkeypatch.setattr("generator.production.profiling.suggestion.usable_cores", lambda: 6)
    free = tuned_settings(Settings(device="cpu"))
    assert (free.concurrency, free.threads) == (6, 1)
    assert {"concurrency", "threads"} <= free.model_fields_set, "a worker is told what is set"
    assert tuned_settings(Settings(device="cpu", concurrency=3)).concurrency == 3
    assert tuned_settings(Settings(device="cuda:1")).concurrency == 2


def test_tuning_needs_no_torch() -> None:
    code = "import sys, workers.worker.tuning; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])
