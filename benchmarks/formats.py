"""How fast shards of each format are written and read: samples a second, and what one sample by index costs.

    python benchmarks/formats.py [--samples 4000] [--size 64] [--rounds 5] [--json FILE]

The same JPEG files are packed into shards of 1,000 by the writers of this project, and read back whole, from memory:
no decoding, no store. Then samples of a build of each format in a directory are read by index in a random order,
decoded, their sha256 checked; ``bytes read`` counts what the store was asked for, without the tables. Formats take
turns within a round, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from arguments import output_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from generator.datasets.torch_dataset import open_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.models.bundle import load_bundle
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.production.profiling.random_bundle import random_bundle
from generator.production.shards import Member, ShardFormat, shard_format
from generator.spec.recipe import Recipe, ShardFormatName
from generator.store.local import LocalStore

FORMATS: tuple[ShardFormatName, ...] = ("webdataset", "parquet", "mds")
Samples = list[tuple[str, dict[str, bytes]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=output_file)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        urls = {name: make_build(Path(home), name, args.samples, args.size) for name in FORMATS}
        forms = {
            name: shard_format(Recipe.model_validate(open_dataset(url).manifest.recipe)) for name, url in urls.items()
        }
        first = open_dataset(urls["webdataset"], map_style=True)
        samples = [sample for number in range(len(first.manifest.shards)) for sample in first._reader.shard(number)]
        rates = in_turns(forms, samples, args.rounds)
        indexed = [{name: by_index(urls[name]) for name in FORMATS} for _ in range(args.rounds)]
        found = {name: rates[name] | medians([turn[name] for turn in indexed]) for name in FORMATS}
    for name, figures in found.items():
        print(name, *(f"{figure} {value:,.6g}" for figure, value in figures.items()), sep="  ")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {figure: statistics.median(each[figure] for each in rounds) for figure in rounds[0]}


def make_build(home: Path, name: ShardFormatName, samples: int, size: int) -> str:
    if not (home / "bundle").exists():
        random_bundle(home / "bundle", size)
    fields: dict[str, Any] = {"bundle": str(home / "bundle"), "destination": str(home), "name": name, "count": samples}
    fields |= {"image": "jpeg", "label_floor": None, "novelty_floor": None, "format": name}
    job, bundle = resolve_draft(parse_draft(fields))
    build(locate_build(job), load_bundle(bundle), device="cpu")
    return str(home / name)


def in_turns(forms: dict[ShardFormatName, ShardFormat], samples: Samples, rounds: int) -> dict[str, dict[str, float]]:
    """Samples a second, packed and written, and read, by format."""
    written: dict[str, list[float]] = {name: [] for name in forms}
    read: dict[str, list[float]] = {name: [] for name in forms}
    sizes: dict[str, int] = {}
    for _ in range(rounds):
        for name, form in forms.items():
            shards: list[bytes] = []
            written[name].append(len(samples) / seconds_of(lambda: shards.extend(write(form, samples))))  # noqa: B023
            read[name].append(len(samples) / seconds_of(lambda: read_all(form, shards)))  # noqa: B023
            sizes[name] = sum(map(len, shards))
    return {
        name: {
            "written/s": statistics.median(written[name]),
            "read/s": statistics.median(read[name]),
            "bytes a sample": sizes[name] / len(samples),
        }
        for name in forms
    }


def write(form: ShardFormat, samples: Samples) -> list[bytes]:
    shards = []
    for begin in range(0, len(samples), 1000):
        writer = form.writer()
        for key, files in samples[begin : begin + 1000]:
            writer.append(form.pack(key, [Member(name, data) for name, data in files.items()]))
        shards.append(writer.finish().data)
    return shards


def read_all(form: ShardFormat, shards: list[bytes]) -> None:
    for data in shards:
        for _ in form.read_samples(data, field="shard"):
            pass


def by_index(url: str) -> dict[str, float]:
    """Samples a second by index in a random order, and the bytes that one of them asks the store for."""
    dataset = open_dataset(url, map_style=True)
    for number in range(0, len(dataset), 1000):
        dataset[number]  # places of the shards are known from here on
    order, asked, read = np.random.default_rng(0).permutation(len(dataset)), [0], LocalStore.read

    def counting(store: LocalStore, key: str, start: int, length: int) -> bytes:
        asked[0] += length
        return read(store, key, start, length)

    LocalStore.read = counting  # type: ignore[method-assign]
    try:
        seconds = seconds_of(lambda: [dataset[int(index)] for index in order])
    finally:
        LocalStore.read = read  # type: ignore[method-assign]
    shard = dataset.manifest.shards[0].shard.size
    return {"by index/s": len(order) / seconds, "bytes read a sample": asked[0] / len(order), "bytes of a shard": shard}


def seconds_of(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
