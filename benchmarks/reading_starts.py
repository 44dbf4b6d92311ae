"""How long an epoch takes to begin, from a directory and from S3 over HTTP; and what the tables of a build cost.

    python benchmarks/reading_starts.py [--shards 1000] [--rounds 5] [--samples 2000] [--json FILE]

Makes a build of many small shards (JPEG of 32 pixels), copies it to a private S3 server (SeaweedFS on the same
cores), and measures the seconds from ``open_dataset`` to the first sample: of a shuffled epoch, and of one that is gone
on from in its middle. Then, on a build of 64-pixel JPEG with shards of 1,000: samples a second from S3,
whole shards and by index, beside ``webdataset`` with signed URLs and plain GETs of the same objects by boto3; and the
time of tables as shares of making the build and of reading it by index.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import webdataset
from arguments import output_file
from torch.utils.data import DataLoader

from generator import open_dataset
from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.builds import resolve_build
from generator.drafts import parse_draft, resolve_draft
from generator.models.bundle import load_bundle
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.production.pipeline import shard_maker
from generator.production.profiling.random_bundle import random_bundle
from generator.store import S3Settings, open_store

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.servers import S3Server, SeaweedServer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=output_file, default=None)
    args = parser.parse_args()
    server = SeaweedServer()
    try:
        with tempfile.TemporaryDirectory(prefix="latentmill-starts-") as directory:
            results = _measure(Path(directory), server, args.shards, args.samples, args.rounds)
    finally:
        server.stop()
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


def _measure(home: Path, server: S3Server, shards: int, samples: int, rounds: int) -> dict[str, float]:
    remote, results = server.make_bucket("reading"), dict[str, float]()

    def note(name: str, value: float) -> None:
        results[name] = value
        print(f"{name:<64} {value:>12,.4f}", flush=True)

    many, _ = _make_build(home / "many", 32, 4 * shards, 4)
    _copy(many, f"{remote}/many", server.settings)
    for name, url, s3 in (("local", many, None), ("S3", f"{remote}/many", server.settings)):
        first, resumed = _starts(url, s3, rounds)
        note(f"first sample of {shards} shards, {name} (s)", first)
        note(f"first sample of a resumed epoch, {name} (s)", resumed)
    large, written = _make_build(home / "large", 64, samples, 1000)
    _copy(large, f"{remote}/large", server.settings)
    for name, rate in _remote_rates(f"{remote}/large", server, samples, rounds).items():
        note(f"S3, {name} (samples/s)", rate)
    for name, share in _table_shares(large, written, samples, rounds).items():
        note(f"tables, share of {name}", share)
    return results


def _make_build(home: Path, size: int, samples: int, shard_size: int) -> tuple[str, float]:
    """The URL of a build, and the share of its time that its tables took."""
    random_bundle(home / "bundle", size)
    fields = {"bundle": str(home / "bundle"), "destination": str(home / "out"), "name": "read", "count": samples}
    fields |= {"image": "jpeg", "label_floor": None, "novelty_floor": None, "shard_size": shard_size}
    job, bundle = resolve_draft(parse_draft(fields))
    began = time.perf_counter()
    with _TableTime() as tables:
        build(locate_build(job), load_bundle(bundle), device="cpu")
    return locate_build(job).url, tables.seconds / (time.perf_counter() - began)


def _copy(url: str, target: str, s3: S3Settings) -> None:
    source, stored = open_store(url), open_store(target, s3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda info: stored.put(info.key, source.get(info.key)), source.list()))


def _starts(url: str, s3: S3Settings | None, rounds: int) -> tuple[float, float]:
    first, resumed = list[float](), list[float]()
    for number in range(rounds + 1):  # the first round, which imports libraries, is not counted
        began = time.perf_counter()
        dataset = open_dataset(url, s3=s3, shuffle=True, seed=number)
        next(iter(dataset))
        first.append(time.perf_counter() - began)
        state = dataset.state_dict(consumed=dataset.samples // 2)
        began = time.perf_counter()
        again = open_dataset(url, s3=s3, shuffle=True, seed=number)
        again.load_state_dict(state)
        next(iter(again))
        resumed.append(time.perf_counter() - began)
    return median(first[1:]), median(resumed[1:])


def _remote_rates(url: str, server: S3Server, samples: int, rounds: int) -> dict[str, float]:
    s3 = server.settings
    store, manifest = resolve_build(url, s3)
    tars = [server.signed_url(f"{store.url}/{receipt.shard.key}") for receipt in manifest.shards]

    def plain() -> None:
        for receipt in manifest.shards:
            store.get(receipt.shard.key)

    def iterate() -> None:
        assert sum(1 for _ in open_dataset(url, s3=s3, shuffle=True)) == samples

    def indexed() -> None:
        dataset = open_dataset(url, s3=s3, map_style=True, provenance=False)
        loader = DataLoader(dataset, batch_size=64, shuffle=True)
        assert sum(len(batch.label) for batch in loader) == samples

    def with_webdataset() -> None:
        reader = webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8").to_tuple("jpg", "json")
        assert sum(1 for _ in reader) == samples

    ways = {
        "plain GETs of the shards, not decoded": plain,
        "open_dataset": iterate,
        "by index, shuffled": indexed,
        "webdataset, signed URLs": with_webdataset,
    }
    seconds = _in_turns(ways, rounds)
    return {name: samples / each for name, each in seconds.items()}


def _table_shares(url: str, written: float, samples: int, rounds: int) -> dict[str, float]:
    """The time of tables as shares of making a build, and of reading it by index (whole shards need no table)."""
    store, manifest = resolve_build(url)

    def places() -> None:
        reader = ArchiveReader(store, manifest, "jpg", None)
        for number in range(len(manifest.shards)):
            reader._find_places(number)

    def indexed() -> None:
        dataset = open_dataset(url, map_style=True, provenance=False)
        assert sum(len(batch.label) for batch in DataLoader(dataset, batch_size=64, shuffle=True)) == samples

    seconds = _in_turns({"places": places, "indexed": indexed}, rounds)
    return {"making the build": written, "reading it by index": seconds["places"] / seconds["indexed"]}


class _TableTime:
    """Sums the time of ``table_bytes`` where shards are made."""

    def __init__(self) -> None:
        self.seconds, self._write = 0.0, shard_maker.table_bytes

    def __enter__(self) -> _TableTime:
        shard_maker.table_bytes = self._timed
        return self

    def __exit__(self, *_: object) -> None:
        shard_maker.table_bytes = self._write

    def _timed(self, *arguments: Any) -> bytes:
        began = time.perf_counter()
        try:
            return self._write(*arguments)
        finally:
            self.seconds += time.perf_counter() - began


def _in_turns(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: median(each) for name, each in seconds.items()}


if __name__ == "__main__":
    main()
