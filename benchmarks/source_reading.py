"""How fast real images are read beside the libraries that read the same files: datasets and webdataset.

    python benchmarks/source_reading.py [--images 10000] [--size 128] [--rounds 3] [--json FILE]

One set of JPEG photographs (crops of the two of scikit-learn) lies in a folder, in Parquet and in tars. The ways take
turns within one run: ``load_source`` (decoded, resized to 64 pixels, hashed), the same once more from its cache,
``datasets`` (Parquet, decoded by Pillow, resized by Pillow) and ``webdataset`` (tars, likewise), each with its default
number of threads. A figure is the median over rounds of images a second.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import datasets
import numpy as np
import pyarrow as pa
import webdataset
from arguments import output_file
from PIL import Image
from pyarrow import parquet
from simplejpeg import encode_jpeg
from sklearn.datasets import load_sample_images

from generator.sources import PixelCache, load_source

_SIDE = 64
_TARS = 4


def main() -> None:
    """Measure all ways in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=output_file, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latentmill-reading-") as directory:
        home = Path(directory)
        _write(home, args.images, args.size)
        ways = _ways(home)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, run in ways.items():
                began = time.perf_counter()
                count = run()
                seconds[name].append(time.perf_counter() - began)
                assert count == args.images, (name, count)
    rates = {name: args.images / median(each) for name, each in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:<28} {rate:>10,.0f} images/s   {rate / rates['datasets (Parquet)']:>6.2f} of datasets")
    if args.json is not None:
        args.json.write_text(json.dumps({"images": args.images, "size": args.size, "rates": rates}, indent=2) + "\n")


def _ways(home: Path) -> dict[str, Callable[[], int]]:
    cache = PixelCache(home / "cache", 2**34)

    def ours(place: str, kept: PixelCache | None = None) -> Callable[[], int]:
        return lambda: len(load_source(str(home / place), size=_SIDE, cache=kept))

    def with_datasets() -> int:
        files = str(home / "table" / "*.parquet")
        reader = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        return sum(1 for row in reader if _resized(row["image"]).any())

    def with_webdataset() -> int:
        files = [str(path) for path in sorted((home / "tars").iterdir())]
        reader = webdataset.WebDataset(files, shardshuffle=False).decode("pil")
        return sum(1 for sample in reader if _resized(sample["jpg"]).any())

    ours("tars", cache)()
    return {
        "load_source (Parquet)": ours("table"),
        "datasets (Parquet)": with_datasets,
        "load_source (tars)": ours("tars"),
        "webdataset (tars)": with_webdataset,
        "load_source (folder)": ours("folder"),
        "load_source (cached)": ours("tars", cache),
    }


def _resized(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))


def _write(home: Path, count: int, size: int) -> None:
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    encoded = []
    for number in range(count):
        pixels = photographs[number % 2]
        top, left = rng.integers(0, pixels.shape[0] - size), rng.integers(0, pixels.shape[1] - size)
        encoded.append(encode_jpeg(np.ascontiguousarray(pixels[top : top + size, left : left + size]), quality=90))
    for place in ("folder/a", "folder/b", "table", "tars"):
        (home / place).mkdir(parents=True)
    for number, data in enumerate(encoded):
        (home / "folder" / "ab"[number % 2] / f"{number:06d}.jpg").write_bytes(data)
    images = pa.array(
        [{"bytes": data, "path": None} for data in encoded], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    metadata = {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}).encode()}
    parquet.write_table(pa.table({"image": images}).replace_schema_metadata(metadata), home / "table" / "all.parquet")
    step = -(-count // _TARS)
    for shard in range(_TARS):
        with tarfile.open(home / "tars" / f"{shard:03d}.tar", "w") as archive:
            for number in range(shard * step, min(count, (shard + 1) * step)):
                info = tarfile.TarInfo(f"{number:06d}.jpg")
                info.size = len(encoded[number])
                archive.addfile(info, io.BytesIO(encoded[number]))


if __name__ == "__main__":
    main()
