"""Measures the usefulness of synthetic images against the training time of the model, and what limits it.

For each number of epochs, trains a model and makes 60,000 images with it. Then trains one small network on each of:
real images; synthetic images; synthetic images without label check and copy check; synthetic images with almost no
refusals and the judge's probabilities as targets; and *reconstructions* of the real training images, whose loss of
accuracy is that of the decoder (the rest is lost by the latent distribution). Tests on real test images, which are
used for nothing else.

    python benchmarks/budget.py                      CIFAR-10, 4 to 64 epochs: hours; continues where it stopped
    python benchmarks/budget.py --latent-dim 128 --sampler flow --feature-loss 1000 --epochs 16  another model
    python benchmarks/budget.py --model spatial --budget 20m 2h --classifiers 3    by time: `train --budget`
    python benchmarks/budget.py --quick              the bundled digits, a few epochs: a minute; a smoke test

Writes one row per (epochs or budget, seed, model) to ``<out>/budget.jsonl``, and a table of all rows to
``<out>/budget.md``, between two marks. Times are processor seconds, of all threads. With ``--residual``, also trains a
network of another kind on real and synthetic images (``residual_network.py``); existing rows are extended.
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
from arguments import directory
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
from generator.models.latents.config import FlowSettings, MixtureSettings, TransportSettings
from generator.models.learning import (
    encode_source,
    plan_training,
    pretrained_network,
    pretrained_sampler,
    pretrained_settings,
    recommended_judge,
    recommended_settings,
    train_bundle,
)
from generator.models.screening.config import JudgeSettings
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.sources import Source, load_source, split
from generator.sources.base import make_source
from generator.spec.canonical import digest_of
from generator.spec.image_size import size_of
from generator.store import open_store
from workers.cli.duration import Duration

ARMS = ("real", "reconstructions", "unscreened", "synthetic", "soft labels")
_TINY_FLOOR = 0.001  # a label_floor that refuses almost nothing; the judge still evaluates every sample
_SAMPLERS = {"mixture": MixtureSettings(), "flow": FlowSettings(), "transport": TransportSettings()}


def main() -> int:
    """0 done, 1 failed, 2 bad input."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    log = args.out / "budget.jsonl"
    try:
        source, test = _data(args)
        for length in args.budget or args.epochs:
            for seed in range(args.seeds):
                cell = {"budget" if args.budget else "epochs": length, "seed": seed, "model": _model(source, args)}
                row = next((row for row in _rows(log) if cell.items() <= row.items()), None)
                print(_title(cell), file=sys.stderr, flush=True)
                if row is None:
                    row = cell | _measure(source, test, length, seed, args)
                    _write_row(log, cell, row)
                if args.residual and "residual" not in row:
                    _write_row(
                        log,
                        cell,
                        row | {"residual": _residual_accuracies(source, test, length, seed, args, _rows(log))},
                    )
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    page = args.out / "budget.md"
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
    parser.add_argument("--budget", nargs="+", metavar="DURATION", help="times, such as 20m, instead of epochs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classifiers", type=int, default=1, help="networks trained on each arm, with other seeds")
    parser.add_argument("--count", type=int, default=60_000, help="synthetic images")
    parser.add_argument("--steps", type=int, default=1400, help="training steps of the small network")
    parser.add_argument(
        "--model", default="vae", help="a family, or pretrained (epochs then train its decoder further)"
    )
    parser.add_argument("--width", type=int)
    parser.add_argument("--latent-dim", type=int)
    parser.add_argument("--beta", type=float, help="weight of a vae's divergence")
    parser.add_argument("--feature-loss", type=float, default=0.0, help="weight of the feature loss")
    parser.add_argument("--label-weight", type=float, help="weight with which codes of a vae tell their labels")
    parser.add_argument("--tuning-steps", type=int, default=0, help="steps of the decoder on sampled codes")
    parser.add_argument("--sampler", choices=list(_SAMPLERS), default="mixture")
    parser.add_argument("--judges", type=int, default=1, help="classifiers of the judge")
    parser.add_argument("--judge-steps", type=int, help="training steps of each judge; by default as `train` chooses")
    parser.add_argument("--residual", action="store_true", help="also train a residual network")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=directory, default="out/budget", help="rows and table")
    parser.add_argument("--work", type=directory, default="out/budget/work", help="bundles and datasets")
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.seeds, args.count, args.steps = [4, 16], 1, 200, 60
    return args


def _data(args: argparse.Namespace) -> tuple[Source, LabelledImages]:
    if not args.quick:
        real, test_source = load_source(args.real), load_source(args.test)
        return real, LabelledImages(test_source.images_NHWC, test_source.labels_N)
    digits = load_source("digits")
    names, count = digits.class_names, len(digits) - 400
    real = make_source(digits.images_NHWC[:count], digits.labels_N[:count], names, name="digits")
    return real, LabelledImages(digits.images_NHWC[count:], digits.labels_N[count:])


def _rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _write_row(log: Path, cell: dict[str, Any], row: dict[str, Any]) -> None:
    """Store ``row`` in place of the old row of its cell. The file is replaced atomically, since rows take hours."""
    others, new_log = [each for each in _rows(log) if not cell.items() <= each.items()], log.with_suffix(".new")
    new_log.write_text("".join(json.dumps(each) + "\n" for each in [*others, row]))
    new_log.replace(log)


def _title(cell: dict[str, Any]) -> str:
    length = cell.get("budget") or f"{cell['epochs']} epochs"
    return f"{length}, seed {cell['seed']}, {cell['model']}"


def _config(source: Source, args: argparse.Namespace) -> AutoencoderConfig:
    if args.model == "pretrained":
        return pretrained_network(size_of(source.images_NHWC.shape), source.channels).config
    options = {"width": args.width, "latent_dim": args.latent_dim, "beta": args.beta}
    options["label_weight"] = args.label_weight
    given = {name: value for name, value in options.items() if value is not None}
    return default_config(size_of(source.images_NHWC.shape), source.channels, args.model, **given)


def _model(source: Source, args: argparse.Namespace) -> str:
    if args.budget:
        threads = "" if args.threads == os.cpu_count() else f", threads {args.threads}"
        return f"{args.model}, by budget{threads}"
    config = _config(source, args)
    judges = (
        f"{args.judges} judge{'s' * (args.judges > 1)} of {_judge(source, args, 0, mirrored=False).budget.steps} steps"
    )
    given = (("width", args.width), ("beta", args.beta), ("label weight", args.label_weight))
    extra = [f"{name} {value:g}" for name, value in given if value is not None]
    extra += [f"feature loss {args.feature_loss:g}"] if args.feature_loss else []
    extra += [f"{args.tuning_steps} tuning steps"] if args.tuning_steps else []
    if args.model == "pretrained":
        sampler = pretrained_sampler(source)
        assert isinstance(sampler, TransportSettings)
        base = "Gaussian a class" if sampler.clusters is None else f"{sampler.clusters} clusters a class"
        return ", ".join(["pretrained autoencoder", f"{config.latent_dim} numbers", base, *extra, judges])
    return ", ".join([config.family, f"{config.latent_dim} dimensions", *extra, args.sampler, judges])


def _measure(
    source: Source, test: LabelledImages, length: int | str, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    path = _bundle_path(source, length, seed, args)
    seconds = _train(source, length, seed, args, path)
    bundle = load_bundle(open_store(str(path)))
    arms = {
        "real": LabelledImages(source.images_NHWC, source.labels_N),
        "reconstructions": _reconstruct(source, bundle, path, seed),
        "unscreened": _generate(path, seed, args, label_floor=None, novelty_floor=None),
        "synthetic": _generate(path, seed, args),
    }
    arms["soft labels"] = _generate(path, seed, args, label_floor=_TINY_FLOOR, novelty_floor=None)
    found = usefulness(
        arms,
        test,
        classes=len(source.class_names),
        budget=Budget(steps=args.steps, augmentation=Augmentation(shift=min(size_of(source.images_NHWC.shape)) // 16)),
        seeds=args.classifiers,
        on_run=lambda arm, _, right, __: print(f"    {arm}: {right:.4f}", file=sys.stderr, flush=True),
    )
    error = arms["reconstructions"].images_NHWC.astype(np.float32) - _trained_on(source, bundle, seed).images_NHWC
    return {
        **seconds,
        "holdout_loss": min((record.holdout_loss for record in bundle.info.training.history), default=None),
        "reconstruction_mse": float(np.mean(error**2)) / 255.0**2,
        "accuracy": {name: arm.mean for name, arm in found.arms.items()},
    }


def _bundle_path(source: Source, length: int | str, seed: int, args: argparse.Namespace) -> Path:
    location: Path = args.work / f"{digest_of(_model(source, args).encode())[7:15]}-{length}-{seed}.bundle"
    return location


def _residual_accuracies(
    source: Source,
    test: LabelledImages,
    length: int | str,
    seed: int,
    args: argparse.Namespace,
    rows: list[dict[str, Any]],
) -> dict[str, float]:
    """Accuracy of a residual network trained on real images (from another row, if known) and on synthetic ones."""
    arms = {"synthetic": _generate(_bundle_path(source, length, seed, args), seed, args)}
    known = [row["residual"]["real"] for row in rows if row["seed"] == seed and "residual" in row]
    if not known:
        arms["real"] = LabelledImages(source.images_NHWC, source.labels_N)
    classes, steps = len(source.class_names), args.steps if args.quick else STEPS
    found = {name: residual_accuracy(arm, test, classes=classes, seed=seed, steps=steps) for name, arm in arms.items()}
    return {"real": known[0]} | found if known else found


def _train(source: Source, length: int | str, seed: int, args: argparse.Namespace, path: Path) -> dict[str, float]:
    """Train, fit and save the bundle at ``path`` if missing; returns the seconds that it took."""
    timing = path.with_suffix(".json")
    if not path.exists():
        clock, processor = time.perf_counter(), time.process_time()
        if isinstance(length, str):
            _train_by_budget(source, Duration().convert(length, None, None), seed, args, path)
        else:
            _train_by_epochs(source, length, seed, args, path)
        found = {"train_seconds": time.process_time() - processor, "wall_seconds": time.perf_counter() - clock}
        timing.write_text(json.dumps({name: round(seconds, 1) for name, seconds in found.items()}))
    seconds: dict[str, float] = json.loads(timing.read_text())
    return seconds


def _train_by_epochs(source: Source, epochs: int, seed: int, args: argparse.Namespace, path: Path) -> None:
    if args.model == "pretrained":
        _encode_pretrained(source, epochs, seed, args, path)
        return
    changes = {"seed": seed, "feature_loss": args.feature_loss, "tuning_steps": args.tuning_steps}
    changes |= {"reconstruction": "mse"} if args.model == "spatial" else {}
    settings = default_settings(len(source), epochs).model_copy(update=changes)
    sampler = _SAMPLERS[args.sampler]
    train_bundle(source, _config(source, args), settings, path, sampler=sampler, judge=_judge(source, args, seed))


def _encode_pretrained(source: Source, epochs: int, seed: int, args: argparse.Namespace, path: Path) -> None:
    """What ``latentmill train`` does with many photographs; ``epochs``: 0 leaves the decoder as it is."""
    settings = pretrained_settings(source, max(1, epochs), tuned=args.tuning_steps > 0)
    settings = settings.model_copy(update={"seed": seed, "tuning_steps": args.tuning_steps})
    encode_source(
        pretrained_network(size_of(source.images_NHWC.shape), source.channels),
        source,
        path,
        sampler=pretrained_sampler(source),
        settings=settings,
        finetune=epochs > 0,
        judge=_judge(source, args, seed),
    )


def _train_by_budget(source: Source, seconds: float, seed: int, args: argparse.Namespace, path: Path) -> None:
    """What ``latentmill train --budget`` does."""
    settings = recommended_settings(source, args.model).model_copy(update={"seed": seed})
    plan = plan_training(source, seconds, family=args.model, settings=settings, judge=_judge(source, args, seed))
    print(f"    {plan.describe()}", file=sys.stderr, flush=True)
    train_bundle(source, plan.config, plan.settings, path, sampler=plan.sampler, judge=plan.judge)


def _judge(source: Source, args: argparse.Namespace, seed: int, *, mirrored: bool | None = None) -> JudgeSettings:
    """What ``latentmill train`` chooses, but for what is given."""
    settings = recommended_settings(source, args.model).model_copy(update={"seed": seed})
    judge = recommended_judge(source, settings, mirrored=mirrored)
    budget = judge.budget if args.judge_steps is None else judge.budget.model_copy(update={"steps": args.judge_steps})
    return judge.model_copy(update={"members": args.judges, "budget": budget})


def _trained_on(source: Source, bundle: Bundle, seed: int) -> LabelledImages:
    parts = split(len(source), source.labels_N, holdout=bundle.info.training.settings.holdout, seed=seed)
    return LabelledImages(source.images_NHWC[parts.train_N], source.labels_N[parts.train_N])


def _reconstruct(source: Source, bundle: Bundle, path: Path, seed: int) -> LabelledImages:
    """The real training images after encoder and decoder."""
    store, real = open_store(str(path)), _trained_on(source, bundle, seed)
    encoder, decoder = (
        {name: torch.from_numpy(np.array(weight)) for name, weight in part.items()}
        for part in (load_encoder_weights(store, bundle.info), bundle.decoder)
    )
    network = bundle.info.autoencoder
    images_NHWC = reconstruct(load_encoder(network, encoder), load_decoder(network, decoder), real.images_NHWC)
    return LabelledImages(images_NHWC, real.labels_N)


def _generate(path: Path, seed: int, args: argparse.Namespace, **floors: float | None) -> LabelledImages:
    """``count`` images of a dataset built below ``work``; with the judge's probabilities if ``label_floor`` is tiny."""
    soft = floors.get("label_floor") == _TINY_FLOOR
    name = f"{path.stem}-{'soft' if soft else 'unscreened' if floors else 'screened'}"
    fields = {"bundle": str(path), "destination": str(args.work), "name": name, "count": args.count, "seed": seed}
    spec, store = resolve_draft(parse_draft(fields | floors))
    location = locate_build(spec)
    build(location, load_bundle(store), device="cpu")
    samples = [(image, target, facts["label"]) for image, target, facts in open_dataset(location.url, soft_labels=soft)]
    images_NHWC = np.stack([image for image, _, _ in samples])
    labels_N = np.array([label for _, _, label in samples], dtype=np.int64)
    return LabelledImages(images_NHWC, labels_N, np.stack([target for _, target, _ in samples]) if soft else None)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"| model | epochs or budget | seeds | training, CPU s | reconstruction MSE | {' | '.join(ARMS)} |"
        " synthetic / real | residual network: real | synthetic |",
        f"|{'---|' * (8 + len(ARMS))}",
    ]
    for model, length in sorted(
        {(row["model"], _length(row)) for row in rows}, key=lambda each: (each[0], str(each[1]).zfill(8))
    ):
        group = [row for row in rows if (row["model"], _length(row)) == (model, length)]
        arms = [_spread_text([row["accuracy"][arm] for row in group]) for arm in ARMS]
        ratio = _spread_text([row["accuracy"]["synthetic"] / row["accuracy"]["real"] for row in group])
        cost, error = (mean(row[name] for row in group) for name in ("train_seconds", "reconstruction_mse"))
        residuals = [row["residual"] for row in group if "residual" in row]
        second = [_spread_text([each[arm] for each in residuals]) for arm in ("real", "synthetic")]
        cells = [model, length, len(group), f"{cost:.0f}", f"{error:.4f}", *arms, ratio, *second]
        lines.append("".join(f"| {cell} " for cell in cells) + "|")
    return "\n".join(lines) + "\n"


def _length(row: dict[str, Any]) -> int | str:
    length: int | str = row.get("budget") or row["epochs"]
    return length


def _spread_text(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
