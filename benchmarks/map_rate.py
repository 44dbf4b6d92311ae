"""What the map of a `transport` distribution costs: whole builds with it and without it, from the same decoder.

    python benchmarks/map_rate.py [--size 64] [--rounds 3] [--images 3000] [--map-steps N] [--work DIR] [--json FILE]

Trains a `spatial` autoencoder for one epoch on noisy copies of a few pictures, whose codes no Gaussian fits: a map that
gains nothing would be dropped. Fits `transport` to its codes once without a map and once with one of the default size,
and measures whole builds by ``latentmill bench`` in turns. The speed does not depend on what was learned. A ratio is
that of the images a second of one round; the table gives the median.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from arguments import directory, output_file

_COMMAND = (sys.executable, "-c", "from workers.cli import main; main()")
_IMAGES, _CLASSES, _PICTURES = 1200, 3, 12  # of the source; pictures of all classes together


def main() -> int:
    """0 done, 1 failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=3000, help="images of a build")
    parser.add_argument("--map-steps", type=int, help="evaluations of the map for each image; by default as `fit`")
    parser.add_argument("--work", type=directory, default=None)
    parser.add_argument("--json", type=output_file, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latentmill-map-") as temporary:
        bundles = _bundles(args.work or Path(temporary), args.size, args.map_steps)
        rounds = [{name: _bench(bundle, args.images) for name, bundle in bundles.items()} for _ in range(args.rounds)]
    rows = [_row(name, rounds) for name in bundles]
    print("| map | images a second | decoding alone, images a second | beside no map |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['map']} | {row['rate']:.0f} | {row['decode_rate']:.0f} | {row['ratio']:.2f} |")
    if args.json is not None:
        args.json.write_text(json.dumps({"size": args.size, "images": args.images, "rows": rows}, indent=2) + "\n")
    return 0


def _bundles(work: Path, size: int, steps: int | None) -> dict[str, Path]:
    """Bundles that differ in their map alone; those that are there already are taken as they are."""
    source = work / f"source-{size}.npz"
    if not source.exists():
        rng = np.random.default_rng(0)
        coarse = rng.integers(16, 240, (_PICTURES, size // 8, size // 8, 3))
        pictures = coarse.repeat(8, axis=1).repeat(8, axis=2)[np.arange(_IMAGES) % _PICTURES]
        images = (pictures + rng.integers(-8, 9, pictures.shape)).astype(np.uint8)
        np.savez(source, images=images, labels=np.arange(_IMAGES) % _CLASSES)
    base = work / f"base-{size}"
    trained = ("--model", "spatial", "--epochs", "1", "--judges", "0", "--size", str(size))
    without = ("--sampler", "transport", "--map-epochs", "0")
    _run_once(base, "train", str(source), *trained, *without, "--out", str(base))
    bundle = work / f"map-{size}-{steps or 'default'}"
    chosen = () if steps is None else ("--map-steps", str(steps))
    mapped = ("--sampler", "transport", "--map-epochs", "40", *chosen)
    _run_once(bundle, "fit", str(base), *mapped, "--out", str(bundle))
    network = json.loads((bundle / "bundle.json").read_text())["latents"]["map"]
    if network is None:
        raise SystemExit(f"{bundle}: the map was dropped, so there is nothing to compare")
    words = f"{network['width']} wide, {network['blocks']} blocks, {network['steps']} steps"
    return {"none": base, f"{words}, {network.get('spacing', 'equal')}": bundle}


def _run_once(out: Path, *words: str) -> None:
    if not out.exists():
        subprocess.run([*_COMMAND, *words], check=True, stdout=subprocess.DEVNULL)


def _bench(bundle: Path, images: int) -> dict[str, Any]:
    words = [*_COMMAND, "bench", str(bundle), "--images", str(images), "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return found


def _row(name: str, rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    return {
        "map": name,
        "rate": median(each[name]["whole_rate"] for each in rounds),
        "decode_rate": median(each[name]["decode_rate"] for each in rounds),
        "ratio": median(each[name]["whole_rate"] / each["none"]["whole_rate"] for each in rounds),
        "ratios": [round(each[name]["whole_rate"] / each["none"]["whole_rate"], 3) for each in rounds],
    }


if __name__ == "__main__":
    sys.exit(main())
