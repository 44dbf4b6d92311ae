"""Quantiles of the log-densities of codes, stored with a distribution: the density floor rejects samples below one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import ClassCodes, Codes
from generator.spec.machine import usable_cores
from generator.spec.seeding import noise

QUANTILE_GRID = np.linspace(0.0, 1.0, 1001)
MIN_HOLDOUT = 10  # minimum number of held-out codes of a class to measure on
_SAMPLES = 10_000


def empty_quantiles(classes: int) -> np.ndarray:
    """Placeholder for quantile_CQ (zeros), replaced after the fit; one row without labels."""
    return np.zeros((max(1, classes), len(QUANTILE_GRID)))


def density_quantiles(distribution: LatentDistribution, codes: Codes) -> np.ndarray:
    """quantile_CQ, ascending: of the log-densities of held-out codes or of samples, whichever is lower.

    A floor therefore rejects at most its share of samples. Held-out codes alone do not suffice: with heavy tails in
    many dimensions, nearly all of them have a higher density than nearly all samples.
    """
    classes = codes.by_class()
    with ThreadPoolExecutor(min(len(classes), usable_cores())) as pool:
        return np.stack(list(pool.map(partial(_class_quantiles, distribution), range(len(classes)), classes)))


def sample_quantiles(distribution: LatentDistribution, *, samples: int = _SAMPLES) -> np.ndarray:
    """quantile_CQ, ascending: of the log-densities of samples alone, as the draw gives them."""
    return np.stack([_sample_quantiles(distribution, label, samples) for label in range(max(1, distribution.classes))])


def density_floors(quantile_CQ: np.ndarray, quantile: float) -> np.ndarray:
    """float64 (C,): log-density of each class at ``quantile`` in [0, 1], linear between the stored points."""
    return np.array([np.interp(quantile, QUANTILE_GRID, quantile_Q) for quantile_Q in quantile_CQ])


def has_enough_holdout(class_codes: ClassCodes) -> bool:
    """Whether there are enough held-out codes to measure on."""
    return class_codes.held_out >= MIN_HOLDOUT


def _class_quantiles(distribution: LatentDistribution, label: int, class_codes: ClassCodes) -> np.ndarray:
    quantile_Q = _sample_quantiles(distribution, label, _SAMPLES)
    if has_enough_holdout(class_codes):
        holdout_H = distribution.log_prob(class_codes.holdout_HD, np.full(class_codes.held_out, label))
        quantile_Q = np.minimum(quantile_Q, np.quantile(holdout_H, QUANTILE_GRID))
    return np.maximum.accumulate(quantile_Q)


def _sample_quantiles(distribution: LatentDistribution, label: int, samples: int) -> np.ndarray:
    rows_N, labels_N = np.arange(samples), np.full(samples, label)
    drawn = distribution.sample(noise(0, rows_N, np.zeros_like(rows_N), distribution.dims), labels_N)
    log_density_N = drawn.log_density_B
    if log_density_N is None:
        log_density_N = distribution.log_prob(drawn.z_BD, labels_N)
    quantile_Q: np.ndarray = np.quantile(log_density_N, QUANTILE_GRID)
    return quantile_Q
