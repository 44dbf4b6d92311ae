"""Are synthetic images good for what they are for? Train on them, test on real ones.

One small fixed network is trained twice under one budget (steps, batch, schedule, augmentation): on a synthetic
dataset, and on the real training set. Both are tested on the real test split, which nothing else sees: no setting here
was chosen on it. With several seeds, for the spread.

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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from generator import open_dataset
from generator.errors import LatentmillError
from generator.seeding import permutation
from generator.sources import load_source

PEAK_RATE, RISE = 0.1, 0.15


@dataclass(frozen=True)
class Images:
    """x_NHWC uint8, y_N int64."""

    x_NHWC: np.ndarray
    y_N: np.ndarray


@dataclass(frozen=True)
class Budget:
    """What both arms get. ``shift``: augmentation, random shifts by up to so many pixels."""

    steps: int
    batch: int
    shift: int


def main() -> int:
    """0 done, 1 failed, 2 bad input."""
    asked = _arguments()
    try:
        synthetic, real, test = _load(asked)
        report = _measure(synthetic, real, test, Budget(asked.steps, asked.batch, asked.shift), asked)
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


def _load(asked: argparse.Namespace) -> tuple[Images, Images, Images]:
    """(synthetic, real, test), with one size, one number of channels, and one numbering of the classes."""
    if asked.synthetic_npz:
        made = load_source(str(asked.synthetic_npz))
        synthetic, names = Images(made.images_NHWC, _labelled(made.labels_N)), made.class_names
    else:
        synthetic, names = _committed(asked.dataset or _made(asked))
    size, channels = synthetic.x_NHWC.shape[1], synthetic.x_NHWC.shape[3]
    real = load_source(asked.real, size=size, channels=channels)
    test = load_source(asked.test or asked.real, size=size, channels=channels, split="train" if asked.test else "test")
    if not set(names) == set(real.class_names) == set(test.class_names):
        raise SystemExit(f"classes differ: {names} (synthetic), {real.class_names} (real), {test.class_names} (test)")
    return (
        synthetic,
        Images(real.images_NHWC, _renumbered(_labelled(real.labels_N), real.class_names, names)),
        Images(test.images_NHWC, _renumbered(_labelled(test.labels_N), test.class_names, names)),
    )


def _committed(url: str) -> tuple[Images, tuple[str, ...]]:
    dataset = open_dataset(url)
    samples = [(image, label) for image, label, _ in dataset]
    x_NHWC = np.stack([image for image, _ in samples])
    return Images(x_NHWC, np.array([label for _, label in samples], dtype=np.int64)), dataset.classes


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
    synthetic: Images, real: Images, test: Images, budget: Budget, asked: argparse.Namespace
) -> dict[str, object]:
    arms = {}
    for arm, images in (("synthetic", synthetic), ("real", real)):
        clock, accuracies = time.perf_counter(), []
        for seed in range(asked.seeds):
            accuracies.append(_accuracy(_trained(images, budget, seed), test))
            print(f"{arm}, seed {seed}: {accuracies[-1]:.4f}", file=sys.stderr, flush=True)
        arms[arm] = {
            "images": len(images.y_N),
            "accuracies": [round(accuracy, 5) for accuracy in accuracies],
            "mean": round(mean(accuracies), 5),
            "spread": round(stdev(accuracies), 5) if len(accuracies) > 1 else None,
            "seconds": round(time.perf_counter() - clock, 1),
        }
    ratio = round(arms["synthetic"]["mean"] / arms["real"]["mean"], 5)
    return {"test_images": len(test.y_N), "budget": asdict(budget), **arms, "ratio": ratio}


def _told(report: dict) -> str:
    budget = report["budget"]
    lines = [
        f"one small network, {budget['steps']} steps of {budget['batch']} images, shifts up to {budget['shift']} px; "
        f"accuracy on {report['test_images']} real test images"
    ]
    for arm in ("synthetic", "real"):
        facts = report[arm]
        each = ", ".join(f"{accuracy:.4f}" for accuracy in facts["accuracies"])
        spread = "" if facts["spread"] is None else f" +- {facts['spread']:.4f}"
        lines.append(f"  {arm:9}  {facts['mean']:.4f}{spread}   ({each})   {facts['images']} images")
    return "\n".join([*lines, f"  ratio      {report['ratio']:.4f}"])


def _network(size: int, channels: int, classes: int) -> nn.Module:
    """Three blocks of convolution and pooling, one linear layer: about 40,000 parameters."""

    def block(before: int, after: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]

    layers = [*block(channels, 16), *block(16, 32), *block(32, 64)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (size // 8) ** 2, classes))
    return network.to(memory_format=torch.channels_last)


def _trained(images: Images, budget: Budget, seed: int) -> nn.Module:
    """SGD with momentum; the rate climbs and falls in straight lines (Smith & Topin, 2018)."""
    torch.manual_seed(seed)
    network = _network(images.x_NHWC.shape[1], images.x_NHWC.shape[3], int(images.y_N.max()) + 1)
    optimizer = torch.optim.SGD(network.parameters(), PEAK_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    draws = np.random.default_rng(seed)
    for step, rows_B in zip(range(budget.steps), _batches(len(images.y_N), budget.batch, seed), strict=False):
        optimizer.param_groups[0]["lr"] = PEAK_RATE * min(
            1.0, (step + 1) / (RISE * budget.steps), (budget.steps - step) / ((1.0 - RISE) * budget.steps)
        )
        x_BCHW = _input(_shifted(images.x_NHWC[rows_B], budget.shift, draws))
        loss = functional.cross_entropy(network(x_BCHW), torch.from_numpy(images.y_N[rows_B]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def _batches(count: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of one batch after the other, in a new order each epoch, without end."""
    epoch = 0
    while True:
        order_N = permutation(seed, stream=epoch, size=count)
        yield from (order_N[begin : begin + batch] for begin in range(0, max(1, count - batch + 1), batch))
        epoch += 1


def _shifted(x_BHWC: np.ndarray, shift: int, draws: np.random.Generator) -> np.ndarray:
    if shift == 0:
        return x_BHWC
    padded = np.pad(x_BHWC, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    size = x_BHWC.shape[1]
    corners = draws.integers(0, 2 * shift + 1, (len(x_BHWC), 2))
    return np.stack([image[y : y + size, x : x + size] for image, (y, x) in zip(padded, corners, strict=True)])


def _input(x_BHWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x_BHWC)).permute(0, 3, 1, 2).float().div_(255.0)


@torch.inference_mode()
def _accuracy(network: nn.Module, test: Images) -> float:
    right = 0
    for begin in range(0, len(test.y_N), 1000):
        rows = slice(begin, begin + 1000)
        right += int((network(_input(test.x_NHWC[rows])).argmax(1).numpy() == test.y_N[rows]).sum())
    return right / len(test.y_N)


if __name__ == "__main__":
    sys.exit(main())
