"""Are synthetic images good for what they are for? Train on them, test on real ones.

One small fixed network is trained anew on each under one budget (steps, batch, schedule, augmentation): on a synthetic
dataset, and on the real training set. Both are tested on the real test split, which nothing else sees: no setting here
was chosen on it. With several seeds, for the spread. Where a judge looked at the synthetic images, a third network
learns from its probabilities (``soft_labels``) in place of the labels.

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

from generator import open_dataset
from generator.curation.quality.usefulness import ArmResult, usefulness
from generator.errors import LatentmillError
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.features.classifier import LabelledImages
from generator.models.features.config import Budget
from generator.sources import load_source


def main() -> int:
    """0 done, 1 failed, 2 bad input."""
    asked = _arguments()
    try:
        synthetic, real, test = _load(asked)
        budget = Budget(steps=asked.steps, batch=asked.batch, augmentation=Augmentation(shift=asked.shift))
        report = _measure(synthetic, real, test, budget, asked)
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(report, indent=2) if asked.json else _told(report))
    return 0


def _arguments() -> argparse.Namespace:
    data = Path(os.environ.get("LATENTMILL_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", help="committed dataset (path or URL); without it one is made in --work")
    parser.add_argument("--synthetic-npz", type=Path, help="images and labels as .npz instead of a dataset")
    parser.add_argument("--real", default=str(data / "mnist.npz"), help="real training images (default: %(default)s)")
    parser.add_argument("--test", help="real test images; by default the test split of --real, which must be .npz")
    parser.add_argument("--size", type=int, default=32, help="side in pixels of a dataset to be made")
    parser.add_argument("--count", type=int, default=60_000, help="images of a dataset to be made")
    parser.add_argument("--work", type=Path, default=Path("out/usefulness"), help="where to make it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--shift", type=int, default=0, help="augmentation of both arms: shifts by up to so many pixels"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _load(asked: argparse.Namespace) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """(synthetic, real, test), with one size, one number of channels, and one numbering of the classes."""
    if asked.synthetic_npz:
        made = load_source(str(asked.synthetic_npz))
        synthetic, names = LabelledImages(made.images_NHWC, _labelled(made.labels_N)), made.class_names
    else:
        synthetic, names = _committed(asked.dataset or _made(asked))
    size, channels = synthetic.images_NHWC.shape[1], synthetic.images_NHWC.shape[3]
    real = load_source(asked.real, size=size, channels=channels)
    test = load_source(asked.test or asked.real, size=size, channels=channels, split="train" if asked.test else "test")
    if not set(names) == set(real.class_names) == set(test.class_names):
        raise SystemExit(f"classes differ: {names} (synthetic), {real.class_names} (real), {test.class_names} (test)")
    return (
        synthetic,
        LabelledImages(real.images_NHWC, _renumbered(_labelled(real.labels_N), real.class_names, names)),
        LabelledImages(test.images_NHWC, _renumbered(_labelled(test.labels_N), test.class_names, names)),
    )


def _committed(url: str) -> tuple[LabelledImages, tuple[str, ...]]:
    dataset = open_dataset(url)
    judged = dataset.manifest.recipe.get("label_floor") is not None
    samples = [(image, label, facts["label"]) for image, label, facts in open_dataset(url, soft_labels=judged)]
    images_NHWC = np.stack([image for image, _, _ in samples])
    labels_N = np.array([label for _, _, label in samples], dtype=np.int64)
    probability_NC = np.stack([target for _, target, _ in samples]) if judged else None
    return LabelledImages(images_NHWC, labels_N, probability_NC), dataset.classes


def _made(asked: argparse.Namespace) -> str:
    """Train, fit and generate with the command line's defaults; the dataset's path. What is there is not made again."""
    bundle, name = asked.work / f"bundle-{asked.size}", f"synthetic-{asked.size}-{asked.count}"
    if not bundle.exists():
        _run("train", asked.real, "--size", str(asked.size), "--out", str(bundle))
    spec = asked.work / f"{name}.json"
    fields = {"bundle": str(bundle), "destination": str(asked.work), "name": name, "count": asked.count}
    spec.write_text(json.dumps(fields))
    return json.loads(_run("generate", str(spec), "--json"))["dataset"]


def _run(*arguments: str) -> str:
    clock = time.perf_counter()
    command = [sys.executable, "-c", "from workers.cli import main; main()", *arguments]
    print("$ latentmill", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    print(f"  {time.perf_counter() - clock:.0f} s", file=sys.stderr, flush=True)
    return done.stdout


def _labelled(labels_N: np.ndarray | None) -> np.ndarray:
    if labels_N is None:
        raise SystemExit("usefulness needs labels")
    return labels_N


def _renumbered(y_N: np.ndarray, names: tuple[str, ...], as_in: tuple[str, ...]) -> np.ndarray:
    return np.array([as_in.index(name) for name in names], dtype=np.int64)[y_N]


def _measure(
    synthetic: LabelledImages, real: LabelledImages, test: LabelledImages, budget: Budget, asked: argparse.Namespace
) -> dict[str, Any]:
    hard = replace(synthetic, probability_NC=None)
    soft = {} if synthetic.probability_NC is None else {"synthetic, soft labels": synthetic}
    found = usefulness(
        {"synthetic": hard, **soft, "real": real},
        test,
        classes=int(real.labels_N.max()) + 1,
        budget=budget,
        seeds=asked.seeds,
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


def _told(report: dict[str, Any]) -> str:
    budget = report["budget"]
    lines = [
        f"one small network, {budget['steps']} steps of {budget['batch']} images, shifts up to {budget['shift']} px; "
        f"accuracy on {report['test_images']} real test images"
    ]
    for arm, facts in report["arms"].items():
        each = ", ".join(f"{accuracy:.4f}" for accuracy in facts["accuracies"])
        spread = "" if facts["spread"] is None else f" +- {facts['spread']:.4f}"
        told = f"{facts['mean']:.4f}{spread}   ({each})   {facts['ratio']:.4f} of real   {facts['images']} images"
        lines.append(f"  {arm:22}  {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
