"""Measures time and memory of searching 60,000 samples for copies of 60,000 training images.

Times everything that ``generator.curation.quality.novelty`` does: nearest training images, distances of the holdout,
authenticity, protection from overfitting. The images are random points near a low-dimensional subspace.

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
    args = _arguments()
    spaces = [args.only] if args.only else ["pixels", "features"]
    try:
        report = {space: _measure(space, args) for space in spaces}
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(report, indent=2) if args.json else _report_text(report, args))
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


def _measure(space: str, args: argparse.Namespace) -> dict[str, Any]:
    dims = args.size**2 if space == "pixels" else args.features
    make = _pixels if space == "pixels" else _features
    counts = (args.samples, args.train, args.holdout)
    sets = [make(count, dims, seed) for seed, count in enumerate(counts)]
    start, processor = time.perf_counter(), time.process_time()
    shape = (args.size, args.size, 1) if space == "pixels" else None
    found = novelty(*sets, shape=shape, on_stage=lambda stage: print(f"{space}: {stage}", file=sys.stderr, flush=True))
    return {
        "dims": dims,
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "copies": found.copies,
        "protection": round(found.protection.score, 4),
    }


def _features(count: int, dims: int, seed: int) -> np.ndarray:
    """float32 points (N, D) near a subspace of few dimensions; half of the values are zero, as after a ReLU."""
    base_RD = np.random.default_rng(1000).normal(size=(_RANK, dims)).astype(np.float32)
    rng = np.random.default_rng(seed)
    points_ND = np.empty((count, dims), dtype=np.float32)
    for first in range(0, count, 4096):
        block_BD = points_ND[first : first + 4096]
        block_BD[:] = rng.normal(size=(len(block_BD), _RANK)).astype(np.float32) @ base_RD
        block_BD += rng.normal(size=block_BD.shape).astype(np.float32)
    return np.maximum(points_ND, 0.0, out=points_ND)


def _pixels(count: int, dims: int, seed: int) -> np.ndarray:
    """uint8 points (N, D), mostly black."""
    points_ND = np.empty((count, dims), dtype=np.uint8)
    features_ND = _features(count, dims, seed)
    for first in range(0, count, 4096):
        rows = slice(first, first + 4096)
        points_ND[rows] = np.minimum(features_ND[rows] * 16.0, 255.0)
    return points_ND


def _report_text(report: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    lines = [f"{args.samples} samples against {args.train} training and {args.holdout} held-out images"]
    for space, facts in report.items():
        lines.append(
            f"  {space:8}  {facts['dims']:5} dims  {facts['seconds']:7.1f} s ({facts['processor_seconds']:.0f} s of "
            f"processors)  at most {facts['peak_mib']} MiB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
