"""Fitting a Gaussian mixture per class to latent codes, and choosing how many clusters each class has.

For every class and candidate number K, a full-covariance mixture is fitted by expectation maximisation (scikit-learn,
k-means start) to the class's n training codes in D dimensions, its covariances are shrunk (``shrunk``), and it is
scored on the class's held-out codes, which took no part in the fit (lower is better):

    "bic":         score(K) = -2 n l(K) + p(K) ln n,   p(K) = (K - 1) + K D + K D (D + 1) / 2
    "likelihood":  score(K) = -2 n l(K)

where l(K) is the mean log-density of a held-out code: Schwarz's criterion (Annals of Statistics, 1978) with its fit
term measured out of sample, or that term alone. Candidates are tried in ascending order until ``PATIENCE`` in a row
bring nothing. A class with too few held-out codes is scored by "bic" on its training codes, and a warning says so.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from generator.errors import SourceError
from generator.latents.codes import ClassCodes, Codes
from generator.latents.config import Criterion
from generator.latents.mixture import QUANTILE_GRID, GaussianMixture, MixtureConfig
from generator.seeding import noise

CANDIDATES = (1, 2, 3, 5, 8, 12, 20, 30)
PATIENCE = 2
_QUANTILE_SAMPLES = 10_000
MIN_HOLDOUT = 10
_MIN_CODES_PER_CLUSTER = 10
_FLOOR = 1e-6  # least variance in any direction, as a share of the class's mean variance


@dataclass(frozen=True)
class FitWarning:
    """Something about one class that made the fit smaller or weaker than asked for."""

    class_name: str
    message: str


@dataclass(frozen=True)
class Choice:
    """How many clusters a class got, and the score of every candidate tried (lower is better)."""

    class_name: str
    clusters: int
    scores: dict[int, float]


@dataclass(frozen=True)
class MixtureFit:
    """The fitted distribution, and what a person should know of the fit."""

    mixture: GaussianMixture
    choices: tuple[Choice, ...]
    warnings: tuple[FitWarning, ...]


@dataclass(frozen=True)
class _Parts:
    """The mixture of one class: weight_K, mean_KD, lower-triangular factor_KDD."""

    weight_K: np.ndarray
    mean_KD: np.ndarray
    factor_KDD: np.ndarray

    def log_prob(self, codes_ND: np.ndarray) -> np.ndarray:
        return self._alone().log_prob(codes_ND, np.zeros(len(codes_ND), dtype=np.int64))

    def samples(self, count: int) -> np.ndarray:
        """codes_ND, the same ones each time."""
        rows_N, labels_N = np.arange(count), np.zeros(count, dtype=np.int64)
        return self._alone().sample(noise(0, rows_N, labels_N, self.mean_KD.shape[1]), labels_N).z_BD

    def _alone(self) -> GaussianMixture:
        config = MixtureConfig(dims=self.mean_KD.shape[1], classes=0, clusters=(len(self.weight_K),))
        return _distribution(config, [self])


def fit_mixture(
    codes: Codes, *, seed: int = 0, clusters: int | None = None, criterion: Criterion = "likelihood"
) -> MixtureFit:
    """One mixture per class; a single one where there are no labels.

    ``clusters`` fixes the number instead of choosing it. Raises ``SourceError`` for a class with fewer than two codes,
    with equal codes, or with codes that are no numbers.
    """
    classes = codes.by_class()
    for of_class in classes:
        _check(of_class)
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        ThreadPoolExecutor(max_workers=min(len(classes), os.cpu_count() or 1)) as pool,
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = list(pool.map(lambda of_class: _fit_class(of_class, seed, clusters, criterion), classes))
    choices = tuple(choice for _, choice in fits)
    config = MixtureConfig(
        dims=codes.dims, classes=len(codes.class_names), clusters=tuple(choice.clusters for choice in choices)
    )
    parts = [part for part, _ in fits]
    mixture = _distribution(config, parts, np.stack([_quantiles(*pair) for pair in zip(parts, classes, strict=True)]))
    return MixtureFit(mixture, choices, tuple(w for of_class in classes for w in _warnings(of_class, clusters)))


def shrunk(covariance_KDD: np.ndarray, weight_K: np.ndarray, count: int) -> np.ndarray:
    """Covariances drawn to what the clusters of a class have in common, the more the fewer codes a cluster has.

    Each is the posterior mode under an inverse-Wishart prior worth D / 2 codes, half of them spread as the pooled
    covariance of the clusters and half as its diagonal. ``count``: codes of the class.
    """
    pooled_DD = (weight_K[:, None, None] * covariance_KDD).sum(axis=0)
    strength, codes_K11 = covariance_KDD.shape[-1] / 4.0, count * weight_K[:, None, None]
    prior_DD = strength * (pooled_DD + np.diag(np.diag(pooled_DD)))
    shrunk_KDD: np.ndarray = (codes_K11 * covariance_KDD + prior_DD) / (codes_K11 + 2.0 * strength)
    return shrunk_KDD


def _fit_class(of_class: ClassCodes, seed: int, clusters: int | None, criterion: Criterion) -> tuple[_Parts, Choice]:
    most = max(1, len(of_class.codes_ND) // _MIN_CODES_PER_CLUSTER)
    candidates = [k for k in CANDIDATES if k <= most] if clusters is None else [min(clusters, most)]
    fits: dict[int, _Parts] = {}
    scores: dict[int, float] = {}
    for k in candidates:
        fits[k] = _expectation_maximisation(of_class.codes_ND, k, seed)
        scores[k] = _score(fits[k], of_class, criterion)
        best = min(scores, key=lambda tried: scores[tried])
        if candidates.index(k) - candidates.index(best) >= PATIENCE:
            break
    return fits[best], Choice(of_class.name, best, scores)


def _expectation_maximisation(codes_ND: np.ndarray, clusters: int, seed: int) -> _Parts:
    floor = _FLOOR * float(codes_ND.var(axis=0).mean())
    fit = SklearnMixture(clusters, max_iter=60, reg_covar=floor, random_state=seed).fit(codes_ND)
    covariance_KDD = shrunk(fit.covariances_, fit.weights_, len(codes_ND))
    return _Parts(fit.weights_ / fit.weights_.sum(), fit.means_, np.linalg.cholesky(covariance_KDD))


def _score(parts: _Parts, of_class: ClassCodes, criterion: Criterion) -> float:
    count, dims = len(of_class.codes_ND), int(of_class.codes_ND.shape[1])
    clusters = len(parts.weight_K)
    judged_by = of_class.holdout_HD if _enough_holdout(of_class) else of_class.codes_ND
    fit_term = -2.0 * count * float(parts.log_prob(judged_by).mean())
    if criterion == "likelihood" and _enough_holdout(of_class):
        return fit_term
    parameters: int = clusters - 1 + clusters * dims + clusters * dims * (dims + 1) // 2
    return fit_term + parameters * math.log(count)


def _quantiles(parts: _Parts, of_class: ClassCodes) -> np.ndarray:
    """quantile_Q: of the held-out codes or of the mixture's own samples, whichever is lower.

    So a floor never refuses more than its share of samples. Held-out codes alone will not do: where codes have heavy
    tails, in many dimensions, nearly all of them lie above nearly all that the mixture samples.
    """
    quantile_Q: np.ndarray = np.quantile(parts.log_prob(parts.samples(_QUANTILE_SAMPLES)), QUANTILE_GRID)
    if _enough_holdout(of_class):
        quantile_Q = np.minimum(quantile_Q, np.quantile(parts.log_prob(of_class.holdout_HD), QUANTILE_GRID))
    return np.maximum.accumulate(quantile_Q)


def _distribution(
    config: MixtureConfig, parts: Sequence[_Parts], quantile_CQ: np.ndarray | None = None
) -> GaussianMixture:
    if quantile_CQ is None:
        quantile_CQ = np.zeros((len(parts), len(QUANTILE_GRID)))
    return GaussianMixture(
        config,
        weight_M=np.concatenate([part.weight_K for part in parts]),
        mean_MD=np.concatenate([part.mean_KD for part in parts]),
        factor_MDD=np.concatenate([part.factor_KDD for part in parts]),
        quantile_CQ=quantile_CQ,
    )


def _enough_holdout(of_class: ClassCodes) -> bool:
    return len(of_class.holdout_HD) >= MIN_HOLDOUT


def _check(of_class: ClassCodes) -> None:
    field, codes_ND = f"codes of {of_class.name!r}", of_class.codes_ND
    if len(codes_ND) < 2:
        raise SourceError(field, "at least 2 images to learn from", len(codes_ND))
    if not (np.isfinite(codes_ND).all() and np.isfinite(of_class.holdout_HD).all()):
        raise SourceError(field, "finite numbers", "NaN or infinity")
    if not np.ptp(codes_ND, axis=0).any():
        hint = "the encoder has collapsed, or the images are copies; try a smaller beta"
        raise SourceError(field, "codes that differ", f"{len(codes_ND)} equal ones", hint)


def _warnings(of_class: ClassCodes, clusters: int | None) -> list[FitWarning]:
    found, count = [], len(of_class.codes_ND)
    most = max(1, count // _MIN_CODES_PER_CLUSTER)
    if clusters is not None and clusters > most:
        found.append(FitWarning(of_class.name, f"{count} codes carry {most} clusters at most, not {clusters}"))
    if count < 2 * of_class.codes_ND.shape[1]:
        message = f"{count} codes are few for {of_class.codes_ND.shape[1]} dimensions; covariances are mostly prior"
        found.append(FitWarning(of_class.name, message))
    if not _enough_holdout(of_class):
        message = (
            f"{len(of_class.holdout_HD)} held-out codes are few; clusters rest on training codes, "
            "the density floor on the fit's own samples"
        )
        found.append(FitWarning(of_class.name, message))
    return found
