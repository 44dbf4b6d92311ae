"""How long does it take to search 60,000 samples for copies of 60,000 training images, and in how much memory?

Everything ``generator.curation.quality.novelty`` does is timed: the nearest of all training images, the holdout's own
distances, authenticity, protection from overfitting. The images are made up: smooth random
shapes, as many and as large as asked.

    python benchmarks/novelty_search.py                       pixels, then features
    python benchmarks/novelty_search.py --size 28 --only pixels
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from typing import Any

import numpy as np

from generator.curation.quality.novelty import novelty
from generator.errors import LatentmillError

_RANK = 32


def main() -> int:
    """0 done, 2 bad input."""
    asked = _arguments()
    spaces = [asked.only] if asked.only else ["pixels", "features"]
    try:
        report = {space: _measured(space, asked) for space in spaces}
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(report, indent=2) if asked.json else _told(report, asked))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--train", type=int, default=60_000)
    parser.add_argument("--holdout", type=int, default=6_000)
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--features", type=int, default=1024, help="dimensions of the features")
    parser.add_argument("--only", choices=("pixels", "features"))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _measured(space: str, asked: argparse.Namespace) -> dict[str, Any]:
    dims = asked.size**2 if space == "pixels" else asked.features
    make = _pixels if space == "pixels" else _features
    counts = (asked.samples, asked.train, asked.holdout)
    sets = [make(count, dims, seed) for seed, count in enumerate(counts)]
    clock, processor = time.perf_counter(), time.process_time()
    shape = (asked.size, asked.size, 1) if space == "pixels" else None
    found = novelty(*sets, shape=shape, on_stage=lambda stage: print(f"{space}: {stage}", file=sys.stderr, flush=True))
    return {
        "dims": dims,
        "seconds": round(time.perf_counter() - clock, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "copies": found.copies,
        "protection": round(found.protection.score, 4),
    }


def _features(count: int, dims: int, seed: int) -> np.ndarray:
    """float32 points near a space of few dimensions, as features are; half of them zero, as after a rectifier."""
    base_RD = np.random.default_rng(1000).normal(size=(_RANK, dims)).astype(np.float32)
    rng = np.random.default_rng(seed)
    points_ND = np.empty((count, dims), dtype=np.float32)
    for begin in range(0, count, 4096):
        block_BD = points_ND[begin : begin + 4096]
        block_BD[:] = rng.normal(size=(len(block_BD), _RANK)).astype(np.float32) @ base_RD
        block_BD += rng.normal(size=block_BD.shape).astype(np.float32)
    return np.maximum(points_ND, 0.0, out=points_ND)


def _pixels(count: int, dims: int, seed: int) -> np.ndarray:
    """uint8; mostly black."""
    points_ND = np.empty((count, dims), dtype=np.uint8)
    features_ND = _features(count, dims, seed)
    for begin in range(0, count, 4096):
        rows = slice(begin, begin + 4096)
        points_ND[rows] = np.minimum(features_ND[rows] * 16.0, 255.0)
    return points_ND


def _told(report: dict[str, dict[str, Any]], asked: argparse.Namespace) -> str:
    lines = [f"{asked.samples} samples against {asked.train} training and {asked.holdout} held-out images"]
    for space, facts in report.items():
        lines.append(
            f"  {space:8}  {facts['dims']:5} dims  {facts['seconds']:7.1f} s ({facts['processor_seconds']:.0f} s of "
            f"processors)  at most {facts['peak_mib']} MiB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
