"""The intrinsic dimension of the codes, and the active dimensions of the latent space."""

from __future__ import annotations

import math

import numpy as np

from generator.curation.diagnosis.knn import k_nearest_others
from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.spec.canonical import FrozenModel

MIN_CODES = 30
_DISCARDED_SHARE = 0.1  # share of the largest ratios that is discarded, as in the paper
ACTIVE_VARIANCE = 0.01  # of a posterior mean under a standard normal prior
_RELATIVE_VARIANCE = 1e-6  # without a prior: of the largest variance


class Dimension(FrozenModel):
    """Intrinsic dimension and its 95% interval."""

    dimension: float
    low: float
    high: float


def two_nn(codes_SD: np.ndarray) -> Dimension | Unmeasured:
    """TwoNN: Facco, d'Errico, Rodriguez & Laio, "Estimating the intrinsic dimension of datasets by a minimal
    neighborhood information", Scientific Reports, 2017.

    With mu the ratio of the distances to a code's second and first neighbour, -log(1 - F(mu)) = d log(mu): the slope
    through the origin over the 90% smallest. It underestimates in many dimensions unless there are very many codes.
    """
    distance_S2 = k_nearest_others(codes_SD, 2) if len(codes_SD) >= MIN_CODES else np.zeros((0, 2))
    distance_S2 = distance_S2[distance_S2[:, 0] > 0.0]
    if len(distance_S2) < MIN_CODES:
        return Unmeasured(why=f"fewer than {MIN_CODES} distinct codes")
    log_mu_S = np.sort(np.log(distance_S2[:, 1] / distance_S2[:, 0]))
    count, kept = len(log_mu_S), int(len(log_mu_S) * (1.0 - _DISCARDED_SHARE))
    rise_S = -np.log1p(-np.arange(count) / count)
    square = float(log_mu_S[:kept] @ log_mu_S[:kept])
    if square == 0.0:
        return Unmeasured(why="codes on a grid: first and second neighbours have equal distances")
    slope = float(log_mu_S[:kept] @ rise_S[:kept]) / square
    spread = 1.96 * slope / math.sqrt(kept)
    return Dimension(dimension=slope, low=slope - spread, high=slope + spread)


def active_dimensions(codes_SD: np.ndarray, *, prior: bool) -> np.ndarray:
    """bool (D,): dimensions that carry information about the image.

    With a standard normal ``prior`` (variational autoencoder): dimensions whose posterior means have a variance above
    0.01 (Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", ICLR 2016). Without: all that vary.
    """
    variance_D = codes_SD.var(axis=0)
    least = ACTIVE_VARIANCE if prior else max(_RELATIVE_VARIANCE * float(variance_D.max()), 1e-24)
    active_D: np.ndarray = variance_D > least
    return active_D
