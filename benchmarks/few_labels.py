"""What are synthetic images worth where few real ones are labelled? MNIST with 500, 100 and 50 labels, five seeds.

    python benchmarks/few_labels.py              all settings, five seeds: about two hours; goes on where it stopped
    python benchmarks/few_labels.py --quick      the bundled digits, one seed, a few steps: a minute; for a look

Everything is trained on the labelled images alone: the generator (an autoencoder with a mixture of its codes), the
judge (a committee of classifiers that says how likely each class is), and the small classifier that is measured. Both
arms, real alone and real with synthetic images beside, have the same network, augmentation, schedule, steps and seed.
The setting ``unlabelled`` adds all other training images without their labels. What is measured is appended to
``<out>/few_labels.jsonl``, a row a (setting, seed), and drawn up as ``<out>/few_labels.md``. The test images are only
measured on. Times are processor seconds, which other work on the machine hardly changes.
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
from few_labels_arms import UNLABELLED, Protocol, RealData, Trial

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
    asked = _arguments()
    protocol = QUICK if asked.quick else Protocol()
    torch.set_num_threads(asked.threads)
    asked.out.mkdir(parents=True, exist_ok=True)
    log = asked.out / "few_labels.jsonl"
    settings = [*map(str, protocol.labels), UNLABELLED]
    wanted = product(range(asked.first_seed, asked.first_seed + asked.seeds), asked.settings or settings)
    there = {(row["seed"], row["setting"]) for row in _rows(log, protocol)}
    cells = [cell for cell in wanted if cell not in there]
    try:
        real = _real("digits" if asked.quick else "mnist", protocol)
        for number, (seed, setting) in enumerate(cells, 1):
            print(f"[{number}/{len(cells)}] seed {seed}, {setting}", file=sys.stderr, flush=True)
            row = Trial(real, protocol, setting, seed, asked.work).row()
            with log.open("a") as file:
                file.write(json.dumps(row | {"protocol": protocol.digest}) + "\n")
            print(f"    {row['accuracy']}", file=sys.stderr, flush=True)
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    few_labels_report.write(asked.out / "few_labels.md", _rows(log, protocol), protocol)
    print(asked.out / "few_labels.md")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, one seed, a few steps")
    parser.add_argument("--settings", nargs="+", help="numbers of labels, or 'unlabelled'; by default all")
    parser.add_argument("--seeds", type=int, help="how many; by default five")
    parser.add_argument("--first-seed", type=int, default=0, help="so that several processes can share the seeds")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("out/few_labels"), help="rows and table")
    parser.add_argument("--work", type=Path, default=Path("out/few_labels/work"), help="the generator of all images")
    asked = parser.parse_args()
    asked.seeds = asked.seeds or (1 if asked.quick else 5)
    return asked


def _rows(log: Path, protocol: Protocol) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [row for row in rows if row["protocol"] == protocol.digest]


def _real(name: str, protocol: Protocol) -> RealData:
    if name == "digits":
        whole = _labelled(load_source("digits", size=protocol.size))
        train, test = (
            LabelledImages(whole.images_NHWC[r], whole.labels_N[r]) for r in (slice(1400), slice(1400, None))
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
