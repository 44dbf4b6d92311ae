"""How fast builds are read: samples a second of ``open_dataset`` beside webdataset and datasets, in turns.

    python benchmarks/reading.py [--samples 10000] [--size 64] [--rounds 3] [--workers 0 1 2] [--json FILE]

Makes a build of random images (JPEG) in a temporary directory, then reads it whole, decoded to arrays: ``open_dataset``
iterated (each shard's digest checked), shuffled, in batches and by index (each image's sha256 checked), ``webdataset``
on the same tars, ``datasets`` on a Parquet file of the same images, and, where ``make test-readers`` has made its
environment, ``mosaicml-streaming`` on an MDS build of the same recipe. A figure is the median over rounds; ratios are
to the best of the others with the same number of loader workers. Also: the time to the first sample of an epoch, of a
resumed one, and ``verify`` beside a sha256 of the same bytes, one file after the other. ``reading_starts.py`` beside it
reads from S3 over HTTP.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import webdataset
from arguments import output_file
from pyarrow import parquet
from torch.utils.data import DataLoader

from generator import open_dataset
from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.models.bundle import load_bundle
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.production.profiling.random_bundle import random_bundle

Run = Callable[[], int]

_READERS = Path(__file__).parents[1] / ".venv-readers" / "bin" / "python"
_VERIFY_ROUNDS = 25  # a round takes a fraction of a second


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--json", type=output_file, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latentmill-reading-") as directory:
        url = _make_build(Path(directory), args.samples, args.size)
        table = _write_parquet(url, Path(directory))
        mds = _make_build(Path(directory), args.samples, args.size, "mds") if _READERS.exists() else None
        results: dict[str, Any] = {"samples": args.samples, "size": args.size}
        for workers in args.workers:
            with _mosaicml(mds, workers) as others:
                rates = _in_turns(_ways(url, table, workers) | others, args.samples, args.rounds)
            best = max(rate for name, rate in rates.items() if not name.startswith("open_dataset"))
            results[f"workers {workers}"] = rates
            for name, rate in rates.items():
                print(f"{workers} workers  {name:<32} {rate:>10,.0f} samples/s  {rate / best:>6.2f} of the best other")
        results |= _starts(url)
        results["verify / sha256"] = _verify_ratio(url, max(args.rounds, _VERIFY_ROUNDS))
        for name in ("first sample (s)", "first sample of a resumed epoch (s)", "verify / sha256"):
            print(f"{name:<40} {results[name]:.4f}")
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


def _make_build(home: Path, samples: int, size: int, form: str = "webdataset") -> str:
    random_bundle(home / form, size)
    fields = {"bundle": str(home / form), "destination": str(home / "out"), "name": f"read-{form}", "count": samples}
    fields |= {"image": "jpeg", "label_floor": None, "novelty_floor": None, "format": form}
    job, bundle = resolve_draft(parse_draft(fields))
    build(locate_build(job), load_bundle(bundle), device="cpu")
    return str(home / "out" / f"read-{form}")


@contextmanager
def _mosaicml(url: str | None, workers: int) -> Iterator[dict[str, Run]]:
    """The reading by mosaicml-streaming in its own environment: a process that has everything imported."""
    if url is None:
        yield {}
        return
    directory = open_dataset(url).url.removeprefix("file://") + "/shards"
    script = Path(__file__).with_name("reading_mosaicml.py")
    command = [str(_READERS), "-W", "ignore", str(script), directory, str(workers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def run() -> int:
            asked.write("\n")
            asked.flush()
            return int(answers.readline())

        run()  # imports, and makes its index
        yield {"mosaicml-streaming": run}
        asked.close()


def _write_parquet(url: str, home: Path) -> Path:
    store = open_dataset(url)
    images = []
    for receipt in store.manifest.shards:
        path = Path(store.url.removeprefix("file://")) / receipt.shard.key
        reader = webdataset.WebDataset(str(path), shardshuffle=False)
        images += [{"bytes": sample["jpg"], "path": None} for sample in reader]
    column = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    metadata = {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}).encode()}
    parquet.write_table(pa.table({"image": column}).replace_schema_metadata(metadata), home / "all.parquet")
    return home / "all.parquet"


def _ways(url: str, table: Path, workers: int) -> dict[str, Run]:
    tars = [str(path) for path in sorted(Path(open_dataset(url).url.removeprefix("file://")).glob("shards/*.tar"))]

    def iterate(**options: Any) -> Run:
        def run() -> int:
            dataset = open_dataset(url, **options)
            return len(list(DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=_keep)))

        return run

    def batched() -> int:
        dataset = open_dataset(url, batch_size=64, uneven="keep", provenance=False)
        return sum(len(batch.label) for batch in DataLoader(dataset, batch_size=None, num_workers=workers))

    def indexed() -> int:
        dataset = open_dataset(url, map_style=True, provenance=False)
        loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=workers)
        return sum(len(batch.label) for batch in loader)

    def with_webdataset() -> int:
        reader = webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8").to_tuple("jpg", "json")
        return len(list(DataLoader(reader, batch_size=None, num_workers=workers, collate_fn=_keep)))

    def with_datasets() -> int:
        reader = datasets.load_dataset("parquet", data_files=str(table), split="train", streaming=True)
        arrays = reader.map(_to_array, remove_columns=["image"])
        return len(list(DataLoader(arrays, batch_size=None, num_workers=min(workers, 1), collate_fn=_keep)))

    return {
        "open_dataset": iterate(),
        "open_dataset, shuffled": iterate(shuffle=True),
        "open_dataset, batches of 64": batched,
        "open_dataset, by index, shuffled": indexed,
        "webdataset": with_webdataset,
        "datasets": with_datasets,
    }


def _keep(item: Any) -> None:
    """Leave the pixels in the worker: what is measured is reading and decoding, not the transport of arrays."""


def _to_array(row: dict[str, Any]) -> dict[str, Any]:
    return {"pixels": np.asarray(row["image"].convert("RGB"))}


def _in_turns(ways: dict[str, Run], samples: int, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            found = run()
            seconds[name].append(time.perf_counter() - began)
            assert found == samples, (name, found)
    return {name: samples / median(each) for name, each in seconds.items()}


def _starts(url: str) -> dict[str, float]:
    began = time.perf_counter()
    dataset = open_dataset(url, shuffle=True)
    next(iter(dataset))
    first = time.perf_counter() - began
    state = dataset.state_dict(consumed=dataset.manifest.samples // 2)
    began = time.perf_counter()
    again = open_dataset(url, shuffle=True)
    again.load_state_dict(state)
    next(iter(again))
    return {"first sample (s)": first, "first sample of a resumed epoch (s)": time.perf_counter() - began}


def _verify_ratio(url: str, rounds: int) -> float:
    root = Path(open_dataset(url).url.removeprefix("file://"))
    ratios = []
    for _ in itertools.repeat(None, rounds):
        began = time.perf_counter()
        for path in root.rglob("*"):
            if path.is_file():
                hashlib.sha256(path.read_bytes()).hexdigest()
        plain = time.perf_counter() - began
        began = time.perf_counter()
        assert not verify_dataset(url).problems
        ratios.append(plain / (time.perf_counter() - began))
    return median(ratios)


if __name__ == "__main__":
    main()
