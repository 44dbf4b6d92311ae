"""Measures the usefulness of synthetic images: trains on them, tests on real ones.

Trains one small fixed network under one budget (steps, batch, schedule, augmentation) on a synthetic dataset and on the
real training set, with several seeds. Tests both on the real test split, which is used for nothing else; no setting was
chosen on it. If the synthetic images have a judge's probabilities, a third network learns from them (``soft_labels``)
instead of the labels.

    python benchmarks/usefulness.py                  trains a model on MNIST, makes 60,000 images, measures them
    python benchmarks/usefulness.py DATASET          measures a committed dataset against --real and --test
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from arguments import directory

from generator import open_dataset
from generator.curation.quality.usefulness import ArmResult, usefulness
from generator.errors import LatentmillError
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.features.classifier import LabelledImages
from generator.models.features.config import Budget
from generator.sources import load_source
from generator.spec.image_size import size_of


def main() -> int:
    """0 done, 1 failed, 2 bad input."""
    args = _arguments()
    try:
        synthetic, real, test = _load(args)
        budget = Budget(steps=args.steps, batch=args.batch, augmentation=Augmentation(shift=args.shift))
        report = _measure(synthetic, real, test, budget, args)
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(report, indent=2) if args.json else _report_text(report))
    return 0


def _arguments() -> argparse.Namespace:
    data = Path(os.environ.get("LATENTMILL_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "dataset", nargs="?", help="committed dataset (path or URL); without it, one is built in --work"
    )
    parser.add_argument("--synthetic-npz", type=Path, help="images and labels as .npz instead of a dataset")
    parser.add_argument("--real", default=str(data / "mnist.npz"), help="real training images (default: %(default)s)")
    parser.add_argument("--test", help="real test images; by default the test split of --real, which must be .npz")
    parser.add_argument("--size", type=int, default=32, help="image size in pixels of the dataset to build")
    parser.add_argument("--count", type=int, default=60_000, help="number of images of the dataset to build")
    parser.add_argument("--work", type=directory, default="out/usefulness", help="directory to build it in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--shift", type=int, default=0, help="augmentation of both arms: maximum shift in pixels")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _load(args: argparse.Namespace) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """(synthetic, real, test), with the same size, channels and class numbers."""
    if args.synthetic_npz:
        npz_source = load_source(str(args.synthetic_npz))
        synthetic, names = (
            LabelledImages(npz_source.images_NHWC, _labelled(npz_source.labels_N)),
            npz_source.class_names,
        )
    else:
        synthetic, names = _read_dataset(args.dataset or _build_dataset(args))
    size, channels = size_of(synthetic.images_NHWC.shape), synthetic.images_NHWC.shape[3]
    real = load_source(args.real, size=size, channels=channels)
    test = load_source(args.test or args.real, size=size, channels=channels, split=None if args.test else "test")
    if not set(names) == set(real.class_names) == set(test.class_names):
        raise SystemExit(f"classes differ: {names} (synthetic), {real.class_names} (real), {test.class_names} (test)")
    return (
        synthetic,
        LabelledImages(real.images_NHWC, _renumbered(_labelled(real.labels_N), real.class_names, names)),
        LabelledImages(test.images_NHWC, _renumbered(_labelled(test.labels_N), test.class_names, names)),
    )


def _read_dataset(url: str) -> tuple[LabelledImages, tuple[str, ...]]:
    dataset = open_dataset(url)
    has_probabilities = any(dataset.manifest.recipe.get(name) is not None for name in ("label_floor", "label_floors"))
    samples = [
        (image, label, facts["label"]) for image, label, facts in open_dataset(url, soft_labels=has_probabilities)
    ]
    images_NHWC = np.stack([image for image, _, _ in samples])
    labels_N = np.array([label for _, _, label in samples], dtype=np.int64)
    probability_NC = np.stack([target for _, target, _ in samples]) if has_probabilities else None
    return LabelledImages(images_NHWC, labels_N, probability_NC), dataset.classes


def _build_dataset(args: argparse.Namespace) -> str:
    """Train, fit and generate with the command line's defaults, unless done before; returns the dataset's path."""
    bundle, name = args.work / f"bundle-{args.size}", f"synthetic-{args.size}-{args.count}"
    if not bundle.exists():
        _run("train", args.real, "--size", str(args.size), "--out", str(bundle))
    spec = args.work / f"{name}.json"
    fields = {"bundle": str(bundle), "destination": str(args.work), "name": name, "count": args.count}
    spec.write_text(json.dumps(fields))
    return json.loads(_run("generate", str(spec), "--json"))["dataset"]


def _run(*arguments: str) -> str:
    start = time.perf_counter()
    command = [sys.executable, "-c", "from workers.cli import main; main()", *arguments]
    print("$ latentmill", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    print(f"  {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return done.stdout


def _labelled(labels_N: np.ndarray | None) -> np.ndarray:
    if labels_N is None:
        raise SystemExit("usefulness needs labels")
    return labels_N


def _renumbered(y_N: np.ndarray, names: tuple[str, ...], reference_names: tuple[str, ...]) -> np.ndarray:
    return np.array([reference_names.index(name) for name in names], dtype=np.int64)[y_N]


def _measure(
    synthetic: LabelledImages, real: LabelledImages, test: LabelledImages, budget: Budget, args: argparse.Namespace
) -> dict[str, Any]:
    hard = replace(synthetic, probability_NC=None)
    soft = {} if synthetic.probability_NC is None else {"synthetic, soft labels": synthetic}
    found = usefulness(
        {"synthetic": hard, **soft, "real": real},
        test,
        classes=int(real.labels_N.max()) + 1,
        budget=budget,
        seeds=args.seeds,
        on_run=lambda arm, seed, right, _: print(f"{arm}, seed {seed}: {right:.4f}", file=sys.stderr, flush=True),
    )
    facts = {"steps": budget.steps, "batch": budget.batch, "shift": budget.augmentation.shift}
    arms = {name: _arm(result) for name, result in found.arms.items()}
    return {"test_images": found.test_images, "budget": facts, "arms": arms}


def _arm(result: ArmResult) -> dict[str, Any]:
    return {
        "images": result.images,
        "accuracies": [round(accuracy, 5) for accuracy in result.accuracies],
        "mean": round(result.mean, 5),
        "spread": None if result.spread is None else round(result.spread, 5),
        "ratio": round(result.ratio, 5),
        "seconds": round(result.seconds, 1),
    }


def _report_text(report: dict[str, Any]) -> str:
    budget = report["budget"]
    lines = [
        f"one small network, {budget['steps']} steps of {budget['batch']} images, shifts up to {budget['shift']} px; "
        f"accuracy on {report['test_images']} real test images"
    ]
    for arm, facts in report["arms"].items():
        each = ", ".join(f"{accuracy:.4f}" for accuracy in facts["accuracies"])
        spread = "" if facts["spread"] is None else f" +- {facts['spread']:.4f}"
        text = f"{facts['mean']:.4f}{spread}   ({each})   {facts['ratio']:.4f} of real   {facts['images']} images"
        lines.append(f"  {arm:22}  {text}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
