"""What a virtual dataset costs a training step: alone, with a stored build, and with images made in the process.

    python benchmarks/virtual.py [--samples 4000] [--size 32] [--batch 64] [--rounds 3] [--workers 0 1] [--json FILE]

A small convolutional classifier is trained on batches of a build of random images (PNG, from a bundle with an untrained
decoder): on one batch that is already in memory, on the stored build, and on a virtual dataset of the same recipe, in
turns. A figure is the median over rounds of the seconds of a step; ratios are to the step alone. The decoder has the
size of those that ``latentmill train`` makes by default; one that costs more makes a virtual dataset cost more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch
from arguments import output_file
from torch import nn
from torch.utils.data import DataLoader

from generator import open_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.models.bundle import load_bundle, push
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.production.profiling.random_bundle import random_bundle
from generator.store import open_store

Batches = Callable[[], Iterable[Any]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=64, help="feature maps of the classifier's first layer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=output_file, default=None)
    args = parser.parse_args()
    results: dict[str, Any] = {name: getattr(args, name) for name in ("samples", "size", "batch", "width")}
    with tempfile.TemporaryDirectory(prefix="latentmill-virtual-") as directory:
        recipe, root, url = _make_build(Path(directory), args.samples, args.size)
        for workers in args.workers:
            ways = _ways(recipe, root, url, workers, args)
            seconds = _in_turns(ways, _training(args), args.rounds)
            results[f"workers {workers}"] = seconds
            for name, each in seconds.items():
                print(f"{workers} workers  {name:<16} {1000 * each:>8.2f} ms a step  {each / seconds['alone']:>6.2f}")
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


def _make_build(home: Path, samples: int, size: int) -> tuple[dict[str, Any], str, str]:
    """A draft, the store root of its bundle, and the URL of its stored build."""
    random_bundle(home / "bundle", size)
    root = open_store(str(home / "root"))
    draft = {"bundle": push(open_store(str(home / "bundle")), root), "count": samples, "label_floor": None}
    draft |= {"novelty_floor": None, "published": None}
    spec, bundle = resolve_draft(parse_draft(draft | {"destination": str(home / "out"), "name": "stored"}), root)
    build(locate_build(spec), load_bundle(bundle))
    return draft, root.url, locate_build(spec).url


def _ways(recipe: dict[str, Any], root: str, url: str, workers: int, args: argparse.Namespace) -> dict[str, Batches]:
    options: dict[str, Any] = {"batch_size": args.batch, "provenance": False}
    started = {"multiprocessing_context": "spawn"} if workers and args.device != "cpu" else {}

    def loader(dataset: Any) -> Iterable[Any]:
        return DataLoader(dataset, batch_size=None, num_workers=workers, **started)

    def alone() -> Iterator[Any]:
        batch = next(iter(open_dataset(url, **options)))
        return repeat(batch, args.samples // args.batch)

    return {
        "alone": alone,
        "stored": lambda: loader(open_dataset(url, shuffle=True, **options)),
        "virtual": lambda: loader(open_dataset(recipe=recipe, root=root, device=args.device, **options)),
    }


def _training(args: argparse.Namespace) -> Callable[[Any], None]:
    device = "cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    width = args.width
    layers = [nn.LazyConv2d(width, 3, 2, 1), nn.ReLU(), nn.LazyConv2d(2 * width, 3, 2, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10)).to(device)
    optimizer: list[torch.optim.Optimizer] = []

    def step(batch: Any) -> None:
        images = batch.image.to(device).permute(0, 3, 1, 2).float() / 255
        loss = nn.functional.cross_entropy(model(images), batch.label.to(device).clamp(0))
        if not optimizer:  # the layers know their shapes after the first batch
            optimizer.append(torch.optim.SGD(model.parameters(), lr=1e-3))
        optimizer[0].zero_grad()
        loss.backward()
        optimizer[0].step()
        loss.item()

    return step


def _in_turns(ways: dict[str, Batches], step: Callable[[Any], None], rounds: int) -> dict[str, float]:
    """Seconds of a step: the first batch, which starts workers and opens the decoder, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, batches in ways.items():
            steps = iter(batches())
            step(next(steps))
            began, count = time.perf_counter(), 0
            for batch in steps:
                step(batch)
                count += 1
            seconds[name].append((time.perf_counter() - began) / count)
    return {name: median(each) for name, each in seconds.items()}


if __name__ == "__main__":
    main()
