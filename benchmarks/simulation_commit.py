"""Commits of large builds, and readers of very large ones: parts of ``simulation.py``, in real time."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.simulated_build import SimulatedBuild  # noqa: E402
from benchmarks.simulated_store import Objects, SimulatedStore  # noqa: E402
from generator.datasets.builds import read_manifest  # noqa: E402
from generator.models.bundle import BundleInfo, load_bundle  # noqa: E402
from generator.production.commit.finish import finish_build  # noqa: E402
from generator.production.commit.segments import gather_segment  # noqa: E402
from generator.production.provenance.manifest import (  # noqa: E402
    MANIFEST_KEY,
    ImageFacts,
    Provenance,
    SegmentedManifest,
)
from generator.spec.canonical import digest_of, read_json  # noqa: E402
from generator.spec.plan import Plan  # noqa: E402
from generator.store import open_store  # noqa: E402
from tests.support.small_builds import BUNDLE, ENVIRONMENT  # noqa: E402


class Clock:
    """Seconds, processor seconds and the growth of the peak of memory, from its beginning on."""

    def __init__(self) -> None:
        with suppress(OSError):  # forgets the earlier peak
            Path("/proc/self/clear_refs").write_text("5")
        self._memory, self._start, self._processor = _memory("VmRSS"), time.perf_counter(), time.process_time()

    def facts(self) -> dict[str, float]:
        return {
            "seconds": round(time.perf_counter() - self._start, 3),
            "processor_seconds": round(time.process_time() - self._processor, 3),
            "memory_mib": round((_memory("VmHWM") - self._memory) / 1024, 1),
        }


def _memory(name: str) -> int:
    """A figure of this process's memory in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def tiny_info() -> BundleInfo:
    from tests.support.bundles import tiny_bundle

    with tempfile.TemporaryDirectory() as home:
        return load_bundle(open_store(str(tiny_bundle(Path(home) / "tiny")))).info


def measure_commit(shards: int, delay: float, *, gathered: bool) -> dict[str, Any]:
    """The commit of a build of ``shards`` shards against a store in which every call takes ``delay`` seconds.

    ``gathered``: whether its segments, all but the last, were written while the job ran.
    """
    objects = Objects()
    build = SimulatedBuild("large", shards)
    location = build.location(SimulatedStore(objects, "large"))
    build.begin(location)
    for number in range(1, shards):
        build.publish(location, number)
    segments, info = Plan(location.recipe).segments(), tiny_info()
    one: dict[str, float] = {}
    objects.delay = delay
    if gathered and segments:
        clock = Clock()
        gather_segment(location, segments[0])
        one, objects.delay = clock.facts(), 0.0
        for each in segments[1:-1]:
            gather_segment(location, each)
    objects.delay = delay
    objects.calls.clear()
    gc.collect()
    gc.freeze()  # the objects of the store, which would lie in another process
    clock = Clock()
    finish_build(location, info)
    facts: dict[str, Any] = clock.facts()
    size = len(objects.held[f"large/{MANIFEST_KEY}"][0])
    facts |= {"calls": sum(objects.calls.values()), "manifest_kib": round(size / 2**10, 1)}
    return {"shards": shards, "gathered": gathered, **facts, "one_segment": one}


def write_manifest(home: Path, shards: int) -> str:
    """A local build of ``shards`` shards, of which only manifest and segments exist. Returns its path."""
    build, path = SimulatedBuild("million", shards), home / "million"
    location = build.location(open_store(str(path)))
    listed = []
    for each in Plan(location.recipe).segments():
        segment, data = build.segment(location, each)
        listed.append(segment)
        (path / segment.key).parent.mkdir(parents=True, exist_ok=True)
        (path / segment.key).write_bytes(data)
    manifest = SegmentedManifest(
        name=build.name,
        build_id=location.build_id,
        recipe_digest=location.recipe_digest,
        recipe=read_json(location.recipe_bytes, field="recipe", error=ValueError),  # type: ignore[arg-type]
        environments={ENVIRONMENT.digest: ENVIRONMENT.model_dump(mode="json")},
        provenance=Provenance(
            bundle=BUNDLE, model="vae", sampler="mixture", source="digits", source_fingerprint=digest_of(b"a source")
        ),
        image=ImageFacts(height=8, width=8, channels=1, format="png"),
        classes=location.recipe.classes,
        counts=location.recipe.counts,
        samples=location.recipe.total,
        bytes=sum(each.bytes for each in listed),
        refused=0,
        segments=tuple(listed),
        extras=(),
    )
    (path / MANIFEST_KEY).write_bytes(manifest.canonical())
    return str(path)


def measure_reading(path: str) -> dict[str, Any]:
    """Open the build at ``path``, then ask for some shards of it. For a process of its own."""
    import numpy as np

    from generator.datasets.epoch_order import EpochOrder

    clock = Clock()
    manifest = read_manifest(open_store(path))
    opened, size = clock.facts(), (Path(path) / MANIFEST_KEY).stat().st_size
    clock = Clock()
    order = EpochOrder(manifest.shard_sizes(), 7, None)
    ordered = clock.facts()
    clock = Clock()
    assert manifest.shards[0].number == 0
    first = clock.facts()
    rng, clock = np.random.default_rng(0), Clock()
    numbers = rng.integers(0, len(manifest.shards), 300).tolist()
    assert all(manifest.shards[number].number == number for number in numbers)
    accessed = clock.facts()
    return {
        "shards": len(manifest.shards),
        "samples": order.total,
        "manifest_mib": round(size / 2**20, 2),
        "open": opened,
        "order_of_an_epoch": ordered,
        "first_shard": first,
        "random_shards": accessed | {"ms_each": round(1000 * accessed["seconds"] / len(numbers), 2)},
    }


def measure_reading_apart(shards: int) -> dict[str, Any]:
    """``measure_reading`` in a fresh process."""
    with tempfile.TemporaryDirectory() as home:
        path = write_manifest(Path(home), shards)
        command = [sys.executable, __file__, "--read", path]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--read", required=True, help="the path of a build")
    print(json.dumps(measure_reading(parser.parse_args().read)))
