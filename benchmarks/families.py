"""Compares autoencoder families and samplers on real images under one fixed protocol, with several seeds.

    python benchmarks/families.py                    MNIST and CIFAR-10, three seeds: hours; continues where it stopped
    python benchmarks/families.py --quick            the bundled digits, one seed, a few steps: minutes; a smoke test

Every family gets the same images, size, latent dimensions, number of epochs and seeds; every sampler the same codes;
every measure the same number of images. Appends one row per (dataset, family, sampler, seed) to
``<out>/families.jsonl``, and writes the page ``<out>/families.md`` with pictures. Existing rows are not measured again.
The test split is used for measuring only. Times are processor seconds, which other load hardly affects.
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
from arguments import directory
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
from generator.spec.image_size import size_of
from generator.spec.seeding import noise, permutation
from generator.store import open_store

SAMPLERS = ("gaussian", "mixture", "flow")
_BATCH = 256


@dataclass(frozen=True)
class Protocol:
    """Settings common to all: training images, epochs, batch, synthetic images, compared images, classifier steps.

    Samplers and families have their default settings.
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


QUICK = Protocol(size=8, train_images=600, epochs=3, synthetic=300, compared=250, steps=40)


@dataclass(frozen=True)
class RealData:
    """One dataset: the training images, and the test images, which are used for measuring only."""

    name: str
    source: Source
    test: LabelledImages


def main() -> int:
    """0 done, 1 failed, 2 bad input."""
    args = _arguments()
    protocol = QUICK if args.quick else Protocol()
    torch.set_num_threads(args.threads)
    log = args.out / "families.jsonl"
    done = _rows(log, protocol)
    cells = [
        (dataset, seed, family)
        for seed, dataset, family in product(range(args.seeds), args.datasets, args.families)
        if not _is_complete((dataset, seed, family), args, done)
    ]
    try:
        for number, (dataset, seed, family) in enumerate(cells, 1):
            print(f"[{number}/{len(cells)}] {dataset}, seed {seed}, {family}", file=sys.stderr, flush=True)
            for row in _measure(_real(dataset, protocol), family, seed, protocol, args, done):
                with log.open("a") as file:
                    file.write(json.dumps(row | {"protocol": protocol.digest}) + "\n")
                done = _rows(log, protocol)
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    families_report.write(args.out / "families.md", done, vars(protocol), args.out / "pictures" / "families")
    print(args.out / "families.md")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, one seed, a few steps")
    parser.add_argument("--datasets", nargs="+", choices=["digits", "mnist", "cifar10"])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=directory, default="out/families", help="rows, table and pictures")
    parser.add_argument(
        "--work", type=directory, default="out/families/work", help="bundles, deleted once they are measured"
    )
    args = parser.parse_args()
    args.datasets = args.datasets or (["digits"] if args.quick else ["mnist", "cifar10"])
    args.seeds = args.seeds or (1 if args.quick else 3)
    return args


def _rows(log: Path, protocol: Protocol) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [row for row in rows if row["protocol"] == protocol.digest]


def _is_complete(cell: tuple[str, int, str], args: argparse.Namespace, done: list[dict[str, Any]]) -> bool:
    measured = {row["sampler"] for row in done if (row["dataset"], row["seed"], row["family"]) == cell}
    return measured >= set(args.samplers)


_REAL: dict[str, RealData] = {}


def _real(name: str, protocol: Protocol) -> RealData:
    if name not in _REAL:
        data = Path(os.environ.get("LATENTMILL_DATA", "../shared/data"))
        if name == "digits":
            digits = load_source("digits", size=protocol.size)
            train, test = digits, digits.images_NHWC[-400:]
            test_labels = digits.labels_N[-400:]
        else:
            parts = {"mnist": ("mnist.npz",) * 2, "cifar10": ("cifar10-train.parquet", "cifar10-test.parquet")}[name]
            train = load_source(str(data / parts[0]), size=protocol.size)
            test_source = load_source(str(data / parts[1]), size=protocol.size, split="test")
            test, test_labels = test_source.images_NHWC, test_source.labels_N
        images = train.images_NHWC[: protocol.train_images]
        source = make_source(images, train.labels_N[: len(images)], train.class_names, name=name)
        _REAL[name] = RealData(name, source, LabelledImages(test, test_labels))
    return _REAL[name]


def _measure(
    real: RealData, family: str, seed: int, protocol: Protocol, args: argparse.Namespace, done: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """One row for each sampler that has none yet."""
    classifier, real_accuracy = _classifier(real, seed, protocol, args.work)
    path = args.work / f"{real.name}-{family}-{seed}-{protocol.digest}"
    timing = path.with_suffix(".seconds")
    if not path.exists():
        start = time.process_time()
        config = default_config(size_of(real.source.images_NHWC.shape), real.source.channels, family)
        settings = TrainSettings(epochs=protocol.epochs, batch=protocol.batch, seed=seed)
        train_bundle(real.source, config, settings, path, sampler=GaussianSettings())
        timing.write_text(f"{time.process_time() - start:.1f}")
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
    for sampler in args.samplers:
        if any(
            (row["dataset"], row["family"], row["seed"], row["sampler"]) == (real.name, family, seed, sampler)
            for row in done
        ):
            continue
        yield facts | _measure_sampler(real, bundle, codes, sampler, seed, protocol, classifier, args)
    shutil.rmtree(path)


def _classifier(real: RealData, seed: int, protocol: Protocol, work: Path) -> tuple[Classifier, float]:
    """A classifier trained on the real images (its features are used for comparison), and its test accuracy."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{real.name}-judge-{seed}-{protocol.digest}.safetensors"
    labels_N, classes = real.source.labels_N, len(real.source.class_names)
    if path.exists():
        classifier = Classifier(size_of(real.source.images_NHWC.shape), real.source.channels, classes)
        classifier.load_state_dict(load_file(path))
        classifier = classifier.eval().requires_grad_(False)
    else:
        classifier = train_classifier(
            real.source.images_NHWC, labels_N, classes=classes, seed=seed, budget=Budget(steps=protocol.steps)
        )
        save_file({name: value.contiguous() for name, value in classifier.state_dict().items()}, path)
    return classifier, accuracy(classifier, real.test)


def _reconstruction_error(bundle: Bundle, encoder_weights: Any, test: LabelledImages) -> float:
    """Mean squared error per pixel in [0, 1], over the test images."""
    weights = [
        {name: torch.from_numpy(np.array(weight)) for name, weight in part.items()}
        for part in (encoder_weights, bundle.decoder)
    ]
    encoder = load_encoder(bundle.info.autoencoder, weights[0])
    decoder = load_decoder(bundle.info.autoencoder, weights[1])
    reconstructed_NHWC = reconstruct(encoder, decoder, test.images_NHWC)
    return float(np.mean((reconstructed_NHWC.astype(np.float32) - test.images_NHWC) ** 2) / 255.0**2)


def _measure_sampler(
    real: RealData,
    bundle: Bundle,
    codes: Codes,
    sampler: str,
    seed: int,
    protocol: Protocol,
    classifier: Classifier,
    args: argparse.Namespace,
) -> dict[str, Any]:
    start = time.process_time()
    latents = fit(codes, parse_sampler({"family": sampler}), seed=seed).distribution
    fit_seconds, start = time.process_time() - start, time.process_time()
    labels_N = np.arange(protocol.synthetic) % len(real.source.class_names)
    z_ND = _latents(latents, labels_N, seed)
    rate = len(z_ND) / (time.process_time() - start)
    images_NHWC = _decode(bundle, z_ND)
    held = np.zeros(len(codes.holdout_HD), np.int64) if codes.holdout_labels_H is None else codes.holdout_labels_H
    row = {
        "sampler": sampler,
        "fit_seconds": fit_seconds,
        "latents_per_second": rate,
        "holdout_log_likelihood": float(latents.log_prob(codes.holdout_HD, held).mean()),
        **_compare(real, images_NHWC, seed, protocol, classifier),
        "accuracy": _accuracy(real, LabelledImages(images_NHWC, labels_N), seed, protocol),
    }
    if seed == 0:
        families_report.draw_sheet(
            images_NHWC,
            labels_N,
            args.out / "pictures" / "families" / f"{real.name}-{bundle.info.autoencoder.family}-{sampler}.jpg",
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


def _decode(bundle: Bundle, z_ND: np.ndarray) -> np.ndarray:
    decoder = ResidentDecoder(bundle, batch=_BATCH, dtype="float32", device="cpu")
    parts = [decoder.decode(z_ND[first : first + _BATCH].astype(np.float32)) for first in range(0, len(z_ND), _BATCH)]
    return np.concatenate(parts)


def _compare(
    real: RealData, images_NHWC: np.ndarray, seed: int, protocol: Protocol, classifier: Classifier
) -> dict[str, float]:
    """Fidelity and coverage on the classifier's features, against as many test images; novelty on pixels."""
    extract_features = classifier_features(classifier)
    count = min(protocol.compared, len(real.test), len(images_NHWC))
    unseen_ND = extract_features(real.test.images_NHWC[permutation(seed, stream=0, size=len(real.test))[:count]])
    synthetic_ND = extract_features(images_NHWC[:count])
    coverage_result = coverage(unseen_ND, synthetic_ND)
    parts = split(len(real.source), real.source.labels_N, holdout=TrainSettings().holdout, seed=seed)
    flat_ND = real.source.images_NHWC.reshape(len(real.source), -1)
    novelty_result = novelty(
        images_NHWC.reshape(len(images_NHWC), -1), flat_ND[parts.train_N], flat_ND[parts.holdout_N], seed=seed
    )
    return {
        "frechet_distance": frechet_distance(unseen_ND, synthetic_ND),
        "kernel_distance": kernel_distance(unseen_ND, synthetic_ND, seed=seed).mean,
        "precision": coverage_result.precision,
        "recall": coverage_result.recall,
        "density": coverage_result.density,
        "coverage": coverage_result.coverage,
        "copies": novelty_result.share,
        "authenticity": novelty_result.authenticity,
        "protection": novelty_result.protection.score,
    }


def _accuracy(real: RealData, synthetic: LabelledImages, seed: int, protocol: Protocol) -> float:
    classifier = train_classifier(
        synthetic.images_NHWC,
        synthetic.labels_N,
        classes=len(real.source.class_names),
        seed=seed,
        budget=Budget(steps=protocol.steps),
    )
    return accuracy(classifier, real.test)


if __name__ == "__main__":
    sys.exit(main())
