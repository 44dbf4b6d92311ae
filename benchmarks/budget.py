"""What does more training buy? Usefulness against the processor time that a model costs, and what limits it.

For each number of epochs a model is trained, and 60,000 images are made of it. One small network is then trained on
real images, on the synthetic ones, on synthetic ones without the judge's and the sketch's refusals, on synthetic ones
of which next to none is refused but the judge's probabilities are the targets, and on the *reconstructions* of the real
training images: what the decoder loses at most. The rest is lost by the latent distribution. Tested on real test
images, which nothing else sees.

    python benchmarks/budget.py                      CIFAR-10, 4 to 64 epochs: hours; goes on where it stopped
    python benchmarks/budget.py --latent-dim 128 --sampler flow --feature-loss 1000 --epochs 16  another model
    python benchmarks/budget.py --quick              the bundled digits, a few epochs: a minute; for a look

A row an (epochs, seed, model) goes to ``<out>/budget.jsonl``, the table of all into ``<out>/budget.md``, between
two marks. Times are processor seconds, of all threads. With ``--residual`` a network of another kind learns from real
and synthetic images as well (``residual.py``); rows that are there already get that too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from page_tables import write_tables
from residual_network import STEPS, residual_accuracy

from generator.curation.quality.usefulness import usefulness
from generator.datasets.torch_dataset import open_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import LatentmillError
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.autoencoders.config import AutoencoderConfig, default_config
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import reconstruct
from generator.models.autoencoders.settings import default_settings
from generator.models.bundle import Bundle, load_bundle, load_encoder_weights
from generator.models.features.classifier import LabelledImages
from generator.models.features.config import Budget
from generator.models.latents.config import FlowSettings, MixtureSettings
from generator.models.learning import train_bundle
from generator.models.screening.config import default_judge
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.sources import Source, load_source, split
from generator.sources.base import make_source
from generator.spec.canonical import digest_of
from generator.store import open_store

ARMS = ("real", "reconstructions", "unscreened", "synthetic", "soft labels")
_HARDLY = 0.001  # a label_floor that refuses next to nothing: the judge looks at every sample all the same
_SAMPLERS = {"mixture": MixtureSettings(), "flow": FlowSettings()}


def main() -> int:
    """0 done, 1 failed, 2 bad input."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    asked.out.mkdir(parents=True, exist_ok=True)
    log = asked.out / "budget.jsonl"
    try:
        source, test = _data(asked)
        for epochs in asked.epochs:
            for seed in range(asked.seeds):
                cell = {"epochs": epochs, "seed": seed, "model": _model(source, asked)}
                row = next((row for row in _rows(log) if cell.items() <= row.items()), None)
                print(f"{epochs} epochs, seed {seed}, {cell['model']}", file=sys.stderr, flush=True)
                if row is None:
                    row = cell | _measured(source, test, epochs, seed, asked)
                    _keep(log, cell, row)
                if asked.residual and "residual" not in row:
                    _keep(log, cell, row | {"residual": _by_residual(source, test, epochs, seed, asked, _rows(log))})
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    page = asked.out / "budget.md"
    write_tables(page, _table(_rows(log)), by="budget.py")
    print(page)
    return 0


def _arguments() -> argparse.Namespace:
    data = Path(os.environ.get("LATENTMILL_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, one seed, a few epochs")
    parser.add_argument("--real", default=str(data / "cifar10-train.parquet"), help="real training images")
    parser.add_argument("--test", default=str(data / "cifar10-test.parquet"), help="real test images")
    parser.add_argument("--epochs", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=60_000, help="synthetic images")
    parser.add_argument("--steps", type=int, default=1400, help="training steps of the small network")
    parser.add_argument("--model", default="vae")
    parser.add_argument("--width", type=int)
    parser.add_argument("--latent-dim", type=int)
    parser.add_argument("--beta", type=float, help="weight of a vae's divergence")
    parser.add_argument("--feature-loss", type=float, default=0.0, help="weight of the feature loss")
    parser.add_argument("--sampler", choices=list(_SAMPLERS), default="mixture")
    parser.add_argument("--judges", type=int, default=1, help="classifiers of the judge")
    parser.add_argument("--judge-steps", type=int, default=600, help="training steps of each of them")
    parser.add_argument("--residual", action="store_true", help="ask a residual network too")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("out/budget"), help="rows and table")
    parser.add_argument("--work", type=Path, default=Path("out/budget/work"), help="bundles and datasets")
    asked = parser.parse_args()
    if asked.quick:
        asked.epochs, asked.seeds, asked.count, asked.steps = [6, 24], 1, 400, 60
    return asked


def _data(asked: argparse.Namespace) -> tuple[Source, LabelledImages]:
    if not asked.quick:
        real, tested = load_source(asked.real), load_source(asked.test)
        return real, LabelledImages(tested.images_NHWC, tested.labels_N)
    whole = load_source("digits")
    names, count = whole.class_names, len(whole) - 400
    real = make_source(whole.images_NHWC[:count], whole.labels_N[:count], names, name="digits")
    return real, LabelledImages(whole.images_NHWC[count:], whole.labels_N[count:])


def _rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _keep(log: Path, cell: dict[str, Any], row: dict[str, Any]) -> None:
    """``row`` instead of what is known of its cell. Rows take hours: at no moment are there fewer than before."""
    others, fresh = [each for each in _rows(log) if not cell.items() <= each.items()], log.with_suffix(".new")
    fresh.write_text("".join(json.dumps(each) + "\n" for each in [*others, row]))
    fresh.replace(log)


def _config(source: Source, asked: argparse.Namespace) -> AutoencoderConfig:
    options = {"width": asked.width, "latent_dim": asked.latent_dim, "beta": asked.beta}
    given = {name: value for name, value in options.items() if value is not None}
    return default_config(source.size, source.channels, asked.model, **given)


def _model(source: Source, asked: argparse.Namespace) -> str:
    config = _config(source, asked)
    judges = f"{asked.judges} judge{'s' * (asked.judges > 1)} of {asked.judge_steps} steps"
    more = [f"{name} {value:g}" for name, value in (("width", asked.width), ("beta", asked.beta)) if value is not None]
    more += [f"feature loss {asked.feature_loss:g}"] if asked.feature_loss else []
    return ", ".join([config.family, f"{config.latent_dim} dimensions", *more, asked.sampler, judges])


def _measured(
    source: Source, test: LabelledImages, epochs: int, seed: int, asked: argparse.Namespace
) -> dict[str, Any]:
    path = _place(source, epochs, seed, asked)
    seconds = _trained(source, epochs, seed, asked, path)
    bundle = load_bundle(open_store(str(path)))
    arms = {
        "real": LabelledImages(source.images_NHWC, source.labels_N),
        "reconstructions": _reconstructed(source, bundle, path, seed),
        "unscreened": _generated(path, seed, asked, label_floor=None, novelty_floor=None),
        "synthetic": _generated(path, seed, asked),
    }
    arms["soft labels"] = _generated(path, seed, asked, label_floor=_HARDLY, novelty_floor=None)
    found = usefulness(
        arms,
        test,
        classes=len(source.class_names),
        budget=Budget(steps=asked.steps, augmentation=Augmentation(shift=source.size // 16)),
        seeds=1,
        on_run=lambda arm, _, right, __: print(f"    {arm}: {right:.4f}", file=sys.stderr, flush=True),
    )
    error = arms["reconstructions"].images_NHWC.astype(np.float32) - _trained_on(source, bundle, seed).images_NHWC
    return {
        "train_seconds": seconds,
        "holdout_loss": min(record.holdout_loss for record in bundle.info.training.history),
        "reconstruction_mse": float(np.mean(error**2)) / 255.0**2,
        "accuracy": {name: arm.mean for name, arm in found.arms.items()},
    }


def _place(source: Source, epochs: int, seed: int, asked: argparse.Namespace) -> Path:
    location: Path = asked.work / f"{digest_of(_model(source, asked).encode())[7:15]}-{epochs}-{seed}.bundle"
    return location


def _by_residual(
    source: Source, test: LabelledImages, epochs: int, seed: int, asked: argparse.Namespace, rows: list[dict[str, Any]]
) -> dict[str, float]:
    """What a residual network makes of the real images (known from another row, perhaps) and of the synthetic ones."""
    arms = {"synthetic": _generated(_place(source, epochs, seed, asked), seed, asked)}
    known = [row["residual"]["real"] for row in rows if row["seed"] == seed and "residual" in row]
    if not known:
        arms["real"] = LabelledImages(source.images_NHWC, source.labels_N)
    classes, steps = len(source.class_names), asked.steps if asked.quick else STEPS
    found = {name: residual_accuracy(arm, test, classes=classes, seed=seed, steps=steps) for name, arm in arms.items()}
    return {"real": known[0]} | found if known else found


def _trained(source: Source, epochs: int, seed: int, asked: argparse.Namespace, path: Path) -> float:
    """Train, fit and save the bundle at ``path`` unless it is there; the processor seconds that took."""
    timing = path.with_suffix(".seconds")
    if not path.exists():
        clock = time.process_time()
        asked_for = {"seed": seed, "feature_loss": asked.feature_loss}
        settings = default_settings(len(source), epochs).model_copy(update=asked_for)
        judge = default_judge(source.size)
        budget = judge.budget.model_copy(update={"steps": asked.judge_steps})
        judge = judge.model_copy(update={"members": asked.judges, "budget": budget})
        train_bundle(source, _config(source, asked), settings, path, sampler=_SAMPLERS[asked.sampler], judge=judge)
        timing.write_text(f"{time.process_time() - clock:.1f}")
    return float(timing.read_text())


def _trained_on(source: Source, bundle: Bundle, seed: int) -> LabelledImages:
    parts = split(len(source), source.labels_N, holdout=bundle.info.training.settings.holdout, seed=seed)
    return LabelledImages(source.images_NHWC[parts.train_N], source.labels_N[parts.train_N])


def _reconstructed(source: Source, bundle: Bundle, path: Path, seed: int) -> LabelledImages:
    """The real training images after encoder and decoder."""
    store, real = open_store(str(path)), _trained_on(source, bundle, seed)
    encoder, decoder = (
        {name: torch.from_numpy(np.array(weight)) for name, weight in part.items()}
        for part in (load_encoder_weights(store, bundle.info), bundle.decoder)
    )
    network = bundle.info.autoencoder
    images_NHWC = reconstruct(load_encoder(network, encoder), load_decoder(network, decoder), real.images_NHWC)
    return LabelledImages(images_NHWC, real.labels_N)


def _generated(path: Path, seed: int, asked: argparse.Namespace, **floors: float | None) -> LabelledImages:
    """``count`` images, committed below ``work`` and read again; hardly refused ones with the judge's opinion."""
    soft = floors.get("label_floor") == _HARDLY
    name = f"{path.stem}-{'soft' if soft else 'unscreened' if floors else 'screened'}"
    fields = {"bundle": str(path), "destination": str(asked.work), "name": name, "count": asked.count, "seed": seed}
    spec, store = resolve_draft(parse_draft(fields | floors))
    location = locate_build(spec)
    build(location, load_bundle(store), device="cpu")
    samples = [(image, target, facts["label"]) for image, target, facts in open_dataset(location.url, soft_labels=soft)]
    images_NHWC = np.stack([image for image, _, _ in samples])
    labels_N = np.array([label for _, _, label in samples], dtype=np.int64)
    return LabelledImages(images_NHWC, labels_N, np.stack([target for _, target, _ in samples]) if soft else None)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"| model | epochs | seeds | training, CPU s | reconstruction MSE | {' | '.join(ARMS)} | synthetic / real |"
        " residual network: real | synthetic |",
        f"|{'---|' * (8 + len(ARMS))}",
    ]
    for model, epochs in sorted({(row["model"], row["epochs"]) for row in rows}):
        of = [row for row in rows if (row["model"], row["epochs"]) == (model, epochs)]
        arms = [_told([row["accuracy"][arm] for row in of]) for arm in ARMS]
        ratio = _told([row["accuracy"]["synthetic"] / row["accuracy"]["real"] for row in of])
        cost, error = (mean(row[name] for row in of) for name in ("train_seconds", "reconstruction_mse"))
        asked = [row["residual"] for row in of if "residual" in row]
        second = [_told([each[arm] for each in asked]) for arm in ("real", "synthetic")]
        cells = [model, epochs, len(of), f"{cost:.0f}", f"{error:.4f}", *arms, ratio, *second]
        lines.append("".join(f"| {cell} " for cell in cells) + "|")
    return "\n".join(lines) + "\n"


def _told(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
