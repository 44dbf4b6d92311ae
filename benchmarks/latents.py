"""Compares the families of latent distributions: time to fit, samples per second, likelihood of held-out codes.

    python benchmarks/latents.py                 on synthetic codes: 60,000 of 24 dimensions in 10 classes
    python benchmarks/latents.py BUNDLE          on the codes in a bundle

Synthetic codes are mixtures bent by a smooth map, so that no family fits them exactly. All families see the same codes;
ratios are to the first family. ``polar`` is measured only on codes of two dimensions. Both wall-clock and processor
times are reported, for machines with other load.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from generator.errors import LatentmillError
from generator.models.bundle import load_codes, read_info
from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import Codes
from generator.models.latents.config import parse_sampler
from generator.models.latents.fitting.fit import fit
from generator.spec.seeding import noise
from generator.store import open_store

_FAMILIES: dict[str, dict[str, Any]] = {
    "gaussian": {"family": "gaussian"},
    "gaussian diagonal": {"family": "gaussian", "covariance": "diagonal"},
    "gaussian tied": {"family": "gaussian", "covariance": "tied"},
    "mixture": {"family": "mixture"},
    "mixture diagonal": {"family": "mixture", "covariance": "diagonal"},
    "mixture tied": {"family": "mixture", "covariance": "tied"},
    "flow": {"family": "flow"},
    "polar": {"family": "polar"},
}


@dataclass(frozen=True)
class Row:
    """The measurements of one family. Rates are latents per second of wall-clock time."""

    family: str
    fit_seconds: float
    fit_processor_seconds: float
    fit_ratio: float
    sample_rate: float
    log_prob_rate: float
    both_rate: float
    both_ratio: float
    holdout_log_likelihood: float


def main() -> int:
    """0 done, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", help="directory or URL; without it, synthetic codes")
    parser.add_argument("--codes", type=int, default=60_000, help="number of synthetic codes (default: %(default)s)")
    parser.add_argument("--dims", type=int, default=24, help="their dimensions (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=10, help="their classes (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=20_000, help="latents per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the fastest counts (default: %(default)s)")
    parser.add_argument("--families", nargs="+", choices=list(_FAMILIES), default=list(_FAMILIES))
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    try:
        codes = _codes_of(args.bundle) if args.bundle else synthetic_codes(args.codes, args.dims, args.classes)
        rows = measure_families(codes, [name for name in args.families if name != "polar" or codes.dims == 2], args)
    except LatentmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps([asdict(row) for row in rows], indent=2) if args.json else _table(rows))
    return 0


def synthetic_codes(count: int, dims: int, classes: int, seed: int = 0) -> Codes:
    """Codes of classes that are mixtures of five clusters, bent: each dimension is shifted by a sine of its neighbour.

    ``count`` codes for fitting, and a tenth as many held out.
    """
    rng, total = np.random.default_rng(seed), count + count // 10
    labels = rng.integers(0, classes, total)
    centres = rng.normal(scale=2.0, size=(classes, 5, dims))
    straight = centres[labels, rng.integers(0, 5, total)] + rng.normal(scale=0.5, size=(total, dims))
    bent = straight + 0.7 * np.sin(1.5 * np.roll(straight, 1, axis=1))
    names = tuple(str(label) for label in range(classes))
    return Codes(bent[:count], labels[:count], bent[count:], labels[count:], names)


def measure_families(codes: Codes, families: list[str], args: argparse.Namespace) -> list[Row]:
    """One row per family, in order."""
    rows: list[Row] = []
    for name in families:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows.append(_row(name, codes, args.samples, args.rounds, rows[0] if rows else None))
    return rows


def _row(name: str, codes: Codes, samples: int, rounds: int, first: Row | None) -> Row:
    start, processor = time.perf_counter(), time.process_time()
    distribution = fit(codes, parse_sampler(_FAMILIES[name])).distribution
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor
    labels_B = np.arange(samples) % max(1, distribution.classes)
    drawn = noise(1, np.arange(samples), np.zeros(samples, dtype=np.int64), codes.dims)
    z_BD = distribution.sample(drawn, labels_B).z_BD
    sampling = _fastest(lambda: distribution.sample(drawn, labels_B), rounds)
    judging = _fastest(lambda: distribution.log_prob(z_BD, labels_B), rounds)
    both = samples / (sampling + judging)
    return Row(
        family=name,
        fit_seconds=round(seconds, 2),
        fit_processor_seconds=round(processor_seconds, 2),
        fit_ratio=round(seconds / first.fit_seconds, 2) if first else 1.0,
        sample_rate=round(samples / sampling),
        log_prob_rate=round(samples / judging),
        both_rate=round(both),
        both_ratio=round(both / first.both_rate, 3) if first else 1.0,
        holdout_log_likelihood=round(_likelihood(distribution, codes), 4),
    )


def _fastest(run: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _likelihood(distribution: LatentDistribution, codes: Codes) -> float:
    labels_H = codes.holdout_labels_H
    if labels_H is None:
        labels_H = np.zeros(len(codes.holdout_HD), dtype=np.int64)
    return float(distribution.log_prob(codes.holdout_HD, labels_H).mean())


def _codes_of(bundle: str) -> Codes:
    store = open_store(bundle)
    return load_codes(store, read_info(store)[1])


def _table(rows: list[Row]) -> str:
    head = ("family", "fit s", "cpu s", "ratio", "sample/s", "log_prob/s", "both/s", "ratio", "held-out nats")
    body = [
        (
            row.family,
            f"{row.fit_seconds:.1f}",
            f"{row.fit_processor_seconds:.1f}",
            f"{row.fit_ratio:.1f}",
            f"{row.sample_rate:,.0f}",
            f"{row.log_prob_rate:,.0f}",
            f"{row.both_rate:,.0f}",
            f"{row.both_ratio:.2f}",
            f"{row.holdout_log_likelihood:.3f}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in (head, *body)
    )


if __name__ == "__main__":
    sys.exit(main())
