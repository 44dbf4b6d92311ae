"""The densities of a distribution's codes, stored with it as quantiles, for a floor below which samples are refused."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from generator.models.latents.base import LatentDistribution
from generator.models.latents.codes import ClassCodes, Codes
from generator.spec.seeding import noise

QUANTILE_GRID = np.linspace(0.0, 1.0, 1001)
MIN_HOLDOUT = 10  # held-out codes of a class, to measure anything on them
_SAMPLES = 10_000


def empty_quantiles(classes: int) -> np.ndarray:
    """quantile_CQ of a distribution that is not finished yet; one row where there are no labels."""
    return np.zeros((max(1, classes), len(QUANTILE_GRID)))


def density_quantiles(distribution: LatentDistribution, codes: Codes) -> np.ndarray:
    """quantile_CQ: of the log-densities of held-out codes or of own samples, whichever is lower, ascending.

    So a floor never refuses more than its share of samples. Held-out codes alone will not do: where codes have heavy
    tails, in many dimensions, nearly all of them lie above nearly all that the distribution samples.
    """
    classes = codes.by_class()
    with ThreadPoolExecutor(min(len(classes), os.cpu_count() or 1)) as pool:
        return np.stack(list(pool.map(partial(_class_quantiles, distribution), range(len(classes)), classes)))


def density_floors(quantile_CQ: np.ndarray, quantile: float) -> np.ndarray:
    """float64 (C,): each class's log-density at ``quantile`` in [0, 1], linear between the stored points."""
    return np.array([np.interp(quantile, QUANTILE_GRID, quantile_Q) for quantile_Q in quantile_CQ])


def has_enough_holdout(of_class: ClassCodes) -> bool:
    """Are there held-out codes enough to measure on?"""
    return len(of_class.holdout_HD) >= MIN_HOLDOUT


def _class_quantiles(distribution: LatentDistribution, label: int, of_class: ClassCodes) -> np.ndarray:
    rows_N = np.arange(_SAMPLES)
    drawn = noise(0, rows_N, np.zeros_like(rows_N), distribution.dims)
    own_ND = distribution.sample(drawn, np.full(_SAMPLES, label)).z_BD
    quantile_Q: np.ndarray = np.quantile(distribution.log_prob(own_ND, np.full(_SAMPLES, label)), QUANTILE_GRID)
    if has_enough_holdout(of_class):
        holdout_H = distribution.log_prob(of_class.holdout_HD, np.full(len(of_class.holdout_HD), label))
        quantile_Q = np.minimum(quantile_Q, np.quantile(holdout_H, QUANTILE_GRID))
    return np.maximum.accumulate(quantile_Q)
