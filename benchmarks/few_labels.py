"""Measures the value of synthetic images when few real ones are labelled: MNIST, 500, 100 and 50 labels, five seeds.

    python benchmarks/few_labels.py              all settings, five seeds: about two hours; continues where it stopped
    python benchmarks/few_labels.py --quick      the bundled digits, one seed, a few steps: a minute; a smoke test

Everything is trained on the labelled images only: the generator (an autoencoder with a mixture of its codes), the judge
(an ensemble of classifiers that gives the probability of each class), and the small classifier that is measured. Both
arms, real images only and real with synthetic images, have the same network, augmentation, schedule, steps and seed.
The settings ``unlabelled`` and ``unlabelled, strong`` (by augmentation) add all other training images without labels.
Appends one row per (setting, seed) to ``<out>/few_labels.jsonl``, and writes the page ``<out>/few_labels.md``. The test
images are used for measuring only.
Times are processor seconds, which other load hardly affects.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import few_labels_report
import torch
from arguments import directory
from few_labels_arms import UNLABELLED, UNLABELLED_STRONG, Protocol, RealData, Trial

from generator.errors import LatentmillError
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.features.classifier import LabelledImages
from generator.sources import Source, load_source

QUICK = Protocol(
    size=8,
    labels=(100,),
    unlabelled_labels=100,
    also_strong=(100,),
    light=Augmentation(),
    strong=Augmentation(shift=1),
    steps=60,
    batch=32,
    judge_members=1,
    judge_steps=60,
    latent_dim=8,
    width=8,
    generator_steps=100,
    shared_generator_steps=100,
    copies=500,
    synthetic=300,
    pseudo_labelled=800,
    pseudo_floor=0.5,
    further_members=1,
)


def main() -> int:
    """0 done, 1 failed, 2 bad input."""
    args = _arguments()
    protocol = QUICK if args.quick else Protocol()
    torch.set_num_threads(args.threads)
    log = args.out / "few_labels.jsonl"
    settings = [*map(str, protocol.labels), UNLABELLED, UNLABELLED_STRONG]
    all_cells = product(range(args.first_seed, args.first_seed + args.seeds), args.settings or settings)
    measured = {(row["seed"], row["setting"]) for row in _rows(log, protocol)}
    cells = [cell for cell in all_cells if cell not in measured]
    try:
        real = _load_real("digits" if args.quick else "mnist", protocol)
        for number, (seed, setting) in enumerate(cells, 1):
            print(f"[{number}/{len(cells)}] seed {seed}, {setting}", file=sys.stderr, flush=True)
            row = Trial(real, protocol, setting, seed, args.work).row()
            with log.open("a") as file:
                file.write(json.dumps(row | {"protocol": protocol.digest}) + "\n")
            print(f"    {row['accuracy']}", file=sys.stderr, flush=True)
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    few_labels_report.write(args.out / "few_labels.md", _rows(log, protocol), protocol)
    print(args.out / "few_labels.md")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, one seed, a few steps")
    parser.add_argument(
        "--settings", nargs="+", help="numbers of labels, 'unlabelled' or 'unlabelled, strong'; by default all"
    )
    parser.add_argument("--seeds", type=int, help="number of seeds; by default five")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed, to share the seeds among processes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=directory, default="out/few_labels", help="rows and table")
    parser.add_argument(
        "--work", type=directory, default="out/few_labels/work", help="the cached generator of all images"
    )
    args = parser.parse_args()
    args.seeds = args.seeds or (1 if args.quick else 5)
    return args


def _rows(log: Path, protocol: Protocol) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [row for row in rows if row["protocol"] == protocol.digest]


def _load_real(name: str, protocol: Protocol) -> RealData:
    if name == "digits":
        digits = _labelled(load_source("digits", size=protocol.size))
        train, test = (
            LabelledImages(digits.images_NHWC[r], digits.labels_N[r]) for r in (slice(1400), slice(1400, None))
        )
        return RealData(train, test, tuple("0123456789"))
    path = str(Path(os.environ.get("LATENTMILL_DATA", "../shared/data")) / "mnist.npz")
    sources = [load_source(path, size=protocol.size, split=part) for part in ("train", "test")]
    return RealData(_labelled(sources[0]), _labelled(sources[1]), sources[0].class_names)


def _labelled(source: Source) -> LabelledImages:
    assert source.labels_N is not None
    return LabelledImages(source.images_NHWC, source.labels_N)


if __name__ == "__main__":
    sys.exit(main())
