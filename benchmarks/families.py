"""Families of autoencoders x samplers of their codes, on real images, under one fixed protocol, with seeds and spread.

    python benchmarks/families.py                    MNIST and CIFAR-10, three seeds: hours; goes on where it stopped
    python benchmarks/families.py --quick            the bundled digits, one seed, a few steps: minutes; for a look

Every family gets the same images, size, latent dimensions, number of epochs and seeds; every sampler the same codes;
every measure the same number of images. What is measured is appended to ``<out>/families.jsonl``, a row a (dataset,
family, sampler, seed), and drawn up as ``<out>/families.md`` with pictures. A row that is there is not measured again.
The test split is only measured on. Times are processor seconds, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import families_report
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from generator.curation.quality.coverage import coverage
from generator.curation.quality.fidelity import frechet_distance, kernel_distance
from generator.curation.quality.novelty import novelty
from generator.errors import LatentmillError
from generator.models.autoencoders.config import FAMILIES, default_config
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import reconstruct
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import Bundle, load_bundle, load_codes, load_encoder_weights
from generator.models.features.classifier import Classifier, LabelledImages, accuracy, train_classifier
from generator.models.features.config import Budget
from generator.models.features.extractors import classifier_features
from generator.models.latents import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import GaussianSettings, parse_sampler
from generator.models.latents.fitting.fit import fit
from generator.models.learning import train_bundle
from generator.production.decoding import ResidentDecoder
from generator.sources import Source, load_source, split
from generator.sources.base import make_source
from generator.spec.canonical import canonical_json, sha256_hex
from generator.spec.seeding import noise, permutation
from generator.store import open_store

SAMPLERS = ("gaussian", "mixture", "flow")
_BATCH = 256


@dataclass(frozen=True)
class Protocol:
    """What is the same for all: real images trained on, epochs, images a step, synthetic images, images compared,
    the classifier's steps.

    The samplers and the families have the settings that their options give by default.
    """

    size: int = 32
    train_images: int = 10_000
    epochs: int = 8
    batch: int = 64
    synthetic: int = 5_000
    compared: int = 2_500
    steps: int = 500

    @property
    def digest(self) -> str:
        return sha256_hex(canonical_json(vars(self)))[:12]


QUICK = Protocol(size=8, train_images=1_000, epochs=3, synthetic=500, compared=250, steps=60)


@dataclass(frozen=True)
class RealData:
    """One dataset: what may be learned from, and the test images that are only measured on."""

    name: str
    source: Source
    test: LabelledImages


def main() -> int:
    """0 done, 1 failed, 2 bad input."""
    asked = _arguments()
    protocol = QUICK if asked.quick else Protocol()
    torch.set_num_threads(asked.threads)
    asked.out.mkdir(parents=True, exist_ok=True)
    log = asked.out / "families.jsonl"
    done = _rows(log, protocol)
    cells = [
        (dataset, seed, family)
        for seed, dataset, family in product(range(asked.seeds), asked.datasets, asked.families)
        if not _complete((dataset, seed, family), asked, done)
    ]
    try:
        for number, (dataset, seed, family) in enumerate(cells, 1):
            print(f"[{number}/{len(cells)}] {dataset}, seed {seed}, {family}", file=sys.stderr, flush=True)
            for row in _measured(_real(dataset, protocol), family, seed, protocol, asked, done):
                with log.open("a") as file:
                    file.write(json.dumps(row | {"protocol": protocol.digest}) + "\n")
                done = _rows(log, protocol)
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    families_report.write(asked.out / "families.md", done, vars(protocol), asked.out / "pictures" / "families")
    print(asked.out / "families.md")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, one seed, a few steps")
    parser.add_argument("--datasets", nargs="+", choices=["digits", "mnist", "cifar10"])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("out/families"), help="rows, table and pictures")
    parser.add_argument("--work", type=Path, default=Path("out/families/work"), help="bundles, until they are measured")
    asked = parser.parse_args()
    asked.datasets = asked.datasets or (["digits"] if asked.quick else ["mnist", "cifar10"])
    asked.seeds = asked.seeds or (1 if asked.quick else 3)
    return asked


def _rows(log: Path, protocol: Protocol) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [row for row in rows if row["protocol"] == protocol.digest]


def _complete(cell: tuple[str, int, str], asked: argparse.Namespace, done: list[dict[str, Any]]) -> bool:
    there = {row["sampler"] for row in done if (row["dataset"], row["seed"], row["family"]) == cell}
    return there >= set(asked.samplers)


_REAL: dict[str, RealData] = {}


def _real(name: str, protocol: Protocol) -> RealData:
    if name not in _REAL:
        data = Path(os.environ.get("LATENTMILL_DATA", "../shared/data"))
        if name == "digits":
            whole = load_source("digits", size=protocol.size)
            train, test = whole, whole.images_NHWC[-400:]
            test_labels = whole.labels_N[-400:]
        else:
            parts = {"mnist": ("mnist.npz",) * 2, "cifar10": ("cifar10-train.parquet", "cifar10-test.parquet")}[name]
            train = load_source(str(data / parts[0]), size=protocol.size)
            tested = load_source(
                str(data / parts[1]), size=protocol.size, split="test" if parts[0] == parts[1] else "train"
            )
            test, test_labels = tested.images_NHWC, tested.labels_N
        images = train.images_NHWC[: protocol.train_images]
        source = make_source(images, train.labels_N[: len(images)], train.class_names, name=name)
        _REAL[name] = RealData(name, source, LabelledImages(test, test_labels))
    return _REAL[name]


def _measured(
    real: RealData, family: str, seed: int, protocol: Protocol, asked: argparse.Namespace, done: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A row a sampler that has none yet."""
    judge, real_accuracy = _judge(real, seed, protocol, asked.work)
    path = asked.work / f"{real.name}-{family}-{seed}-{protocol.digest}"
    timing = path.with_suffix(".seconds")
    if not path.exists():
        clock = time.process_time()
        config = default_config(real.source.size, real.source.channels, family)
        settings = TrainSettings(epochs=protocol.epochs, batch=protocol.batch, seed=seed)
        train_bundle(real.source, config, settings, path, sampler=GaussianSettings())
        timing.write_text(f"{time.process_time() - clock:.1f}")
    store = open_store(str(path))
    bundle, codes = load_bundle(store), load_codes(store, load_bundle(store).info)
    facts = {
        "dataset": real.name,
        "family": family,
        "seed": seed,
        "train_seconds": float(timing.read_text()),
        "reconstruction_mse": _reconstruction_error(bundle, load_encoder_weights(store, bundle.info), real.test),
        "real_accuracy": real_accuracy,
    }
    for sampler in asked.samplers:
        if any(
            (row["dataset"], row["family"], row["seed"], row["sampler"]) == (real.name, family, seed, sampler)
            for row in done
        ):
            continue
        yield facts | _sampled(real, bundle, codes, sampler, seed, protocol, judge, asked)
    shutil.rmtree(path)


def _judge(real: RealData, seed: int, protocol: Protocol, work: Path) -> tuple[Classifier, float]:
    """The classifier trained on the real images, whose features compare, and its accuracy on the test images."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{real.name}-judge-{seed}-{protocol.digest}.safetensors"
    labels_N, classes = real.source.labels_N, len(real.source.class_names)
    if path.exists():
        judge = Classifier(real.source.size, real.source.channels, classes)
        judge.load_state_dict(load_file(path))
        judge = judge.eval().requires_grad_(False)
    else:
        judge = train_classifier(
            real.source.images_NHWC, labels_N, classes=classes, seed=seed, budget=Budget(steps=protocol.steps)
        )
        save_file({name: value.contiguous() for name, value in judge.state_dict().items()}, path)
    return judge, accuracy(judge, real.test)


def _reconstruction_error(bundle: Bundle, encoder_weights: Any, test: LabelledImages) -> float:
    """Mean squared error of a pixel in [0, 1], over the test images."""
    weights = [
        {name: torch.from_numpy(np.array(weight)) for name, weight in part.items()}
        for part in (encoder_weights, bundle.decoder)
    ]
    encoder = load_encoder(bundle.info.autoencoder, weights[0])
    decoder = load_decoder(bundle.info.autoencoder, weights[1])
    again_NHWC = reconstruct(encoder, decoder, test.images_NHWC)
    return float(np.mean((again_NHWC.astype(np.float32) - test.images_NHWC) ** 2) / 255.0**2)


def _sampled(
    real: RealData,
    bundle: Bundle,
    codes: Codes,
    sampler: str,
    seed: int,
    protocol: Protocol,
    judge: Classifier,
    asked: argparse.Namespace,
) -> dict[str, Any]:
    clock = time.process_time()
    latents = fit(codes, parse_sampler({"family": sampler}), seed=seed).distribution
    fit_seconds, clock = time.process_time() - clock, time.process_time()
    labels_N = np.arange(protocol.synthetic) % len(real.source.class_names)
    z_ND = _latents(latents, labels_N, seed)
    rate = len(z_ND) / (time.process_time() - clock)
    images_NHWC = _decoded(bundle, z_ND)
    held = np.zeros(len(codes.holdout_HD), np.int64) if codes.holdout_labels_H is None else codes.holdout_labels_H
    row = {
        "sampler": sampler,
        "fit_seconds": fit_seconds,
        "latents_per_second": rate,
        "holdout_log_likelihood": float(latents.log_prob(codes.holdout_HD, held).mean()),
        **_compared(real, images_NHWC, seed, protocol, judge),
        "accuracy": _accuracy(real, LabelledImages(images_NHWC, labels_N), seed, protocol),
    }
    if seed == 0:
        families_report.draw_sheet(
            images_NHWC,
            labels_N,
            asked.out / "pictures" / "families" / f"{real.name}-{bundle.info.autoencoder.family}-{sampler}.jpg",
        )
    print(
        f"    {sampler}: " + ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "sampler"),
        file=sys.stderr,
        flush=True,
    )
    return row


def _latents(latents: LatentDistribution, labels_N: np.ndarray, seed: int) -> np.ndarray:
    drawn = noise(seed, np.arange(len(labels_N)), np.zeros(len(labels_N), dtype=np.int64), latents.dims)
    return latents.sample(drawn, labels_N).z_BD


def _decoded(bundle: Bundle, z_ND: np.ndarray) -> np.ndarray:
    decoder = ResidentDecoder(bundle, batch=_BATCH, dtype="float32", device="cpu")
    parts = [decoder.decode(z_ND[begin : begin + _BATCH].astype(np.float32)) for begin in range(0, len(z_ND), _BATCH)]
    return np.concatenate(parts)


def _compared(
    real: RealData, images_NHWC: np.ndarray, seed: int, protocol: Protocol, judge: Classifier
) -> dict[str, float]:
    """Fidelity and coverage by the judge's features of equal numbers of test images; novelty by pixels."""
    look = classifier_features(judge)
    count = min(protocol.compared, len(real.test), len(images_NHWC))
    unseen_ND = look(real.test.images_NHWC[permutation(seed, stream=0, size=len(real.test))[:count]])
    ours_ND = look(images_NHWC[:count])
    found = coverage(unseen_ND, ours_ND)
    parts = split(len(real.source), real.source.labels_N, holdout=TrainSettings().holdout, seed=seed)
    flat_ND = real.source.images_NHWC.reshape(len(real.source), -1)
    new = novelty(
        images_NHWC.reshape(len(images_NHWC), -1), flat_ND[parts.train_N], flat_ND[parts.holdout_N], seed=seed
    )
    return {
        "frechet_distance": frechet_distance(unseen_ND, ours_ND),
        "kernel_distance": kernel_distance(unseen_ND, ours_ND, seed=seed).mean,
        "precision": found.precision,
        "recall": found.recall,
        "density": found.density,
        "coverage": found.coverage,
        "copies": new.share,
        "authenticity": new.authenticity,
        "protection": new.protection.score,
    }


def _accuracy(real: RealData, synthetic: LabelledImages, seed: int, protocol: Protocol) -> float:
    trained = train_classifier(
        synthetic.images_NHWC,
        synthetic.labels_N,
        classes=len(real.source.class_names),
        seed=seed,
        budget=Budget(steps=protocol.steps),
    )
    return accuracy(trained, real.test)


if __name__ == "__main__":
    sys.exit(main())
