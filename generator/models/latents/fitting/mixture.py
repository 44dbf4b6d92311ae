"""Fitting a Gaussian mixture per class to latent codes, and choosing how many clusters each class has.

For every class and candidate number K, a mixture is fitted by expectation maximisation (scikit-learn, k-means start) to
the class's n training codes in D dimensions, its covariances are shrunk (``shrinkage``), and it is scored on the
class's held-out codes, which took no part in the fit (lower is better):

    "bic":         score(K) = -2 n l(K) + p(K) ln n,   p(K) = (K - 1) + K D + (free numbers of the covariances)
    "likelihood":  score(K) = -2 n l(K)

where l(K) is the mean log-density of a held-out code: Schwarz's criterion (Annals of Statistics, 1978) with its fit
term measured out of sample, or that term alone. Candidates are tried in ascending order until ``PATIENCE`` in a row
bring nothing. A class with too few held-out codes is scored by "bic" on its training codes, and a warning says so.
"""

from __future__ import annotations

import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.config import Covariance, Criterion
from generator.models.latents.fitting.checks import (
    FitWarning,
    check_codes,
    cluster_warnings,
    covariance_warnings,
    holdout_warnings,
    max_clusters,
)
from generator.models.latents.fitting.shrinkage import shrink, shrink_diagonals, variance_floor
from generator.models.latents.mixture import GaussianMixture, MixtureConfig
from generator.models.latents.quantiles import density_quantiles, empty_quantiles, has_enough_holdout

CLUSTER_CANDIDATES = (1, 2, 3, 5, 8, 12, 20, 30)
PATIENCE = 2
_SEARCH_TOLERANCE, _FINAL_TOLERANCE = 5e-3, 1e-3  # least gain of a step of expectation maximisation, in nats a code
_MAX_ITERATIONS = 60


@dataclass(frozen=True)
class ClusterChoice:
    """How many clusters a class got, and the score of every candidate tried (lower is better)."""

    class_name: str
    clusters: int
    scores: dict[int, float]


@dataclass(frozen=True)
class MixtureFit:
    """The fitted distribution, and what a person should know of the fit."""

    mixture: GaussianMixture
    choices: tuple[ClusterChoice, ...]
    warnings: tuple[FitWarning, ...]


@dataclass(frozen=True)
class MixtureOptions:
    """How a mixture is fitted: ``clusters`` fixes their number instead of choosing it by ``criterion``."""

    seed: int = 0
    clusters: int | None = None
    criterion: Criterion = "likelihood"
    covariance: Covariance = "full"


@dataclass(frozen=True)
class _ClassMixture:
    """The mixture of one class: weight_K, mean_KD, and factor (K, D, D), (K, D) or (1, D, D) by its covariance."""

    weight_K: np.ndarray
    mean_KD: np.ndarray
    factor: np.ndarray
    covariance: Covariance

    def log_prob(self, codes_ND: np.ndarray) -> np.ndarray:
        alone = _joined([self], len(self.mean_KD[0]), 0, self.covariance)
        return alone.log_prob(codes_ND, np.zeros(len(codes_ND), dtype=np.int64))


def fit_mixture(
    codes: Codes,
    *,
    seed: int = 0,
    clusters: int | None = None,
    criterion: Criterion = "likelihood",
    covariance: Covariance = "full",
) -> MixtureFit:
    """One mixture per class; a single one where there are no labels. Raises ``SourceError`` as ``checks.checked``."""
    classes, search = check_codes(codes), MixtureOptions(seed, clusters, criterion, covariance)
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        ThreadPoolExecutor(max_workers=min(len(classes), os.cpu_count() or 1)) as pool,
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = list(pool.map(lambda of_class: _fit_class(of_class, search), classes))
    mixture = _joined([parts for parts, _ in fits], codes.dims, len(codes.class_names), covariance)
    said = tuple(warning for of_class in classes for warning in _warnings(of_class, clusters))
    return MixtureFit(
        mixture.with_quantiles(density_quantiles(mixture, codes)), tuple(choice for _, choice in fits), said
    )


def _fit_class(of_class: ClassCodes, search: MixtureOptions) -> tuple[_ClassMixture, ClusterChoice]:
    most = max_clusters(of_class)
    candidates = (
        [k for k in CLUSTER_CANDIDATES if k <= most] if search.clusters is None else [min(search.clusters, most)]
    )
    fits: dict[int, SklearnMixture] = {}
    scores: dict[int, float] = {}
    for k in candidates:
        fits[k] = _expectation_maximisation(of_class.codes_ND, k, search)
        scores[k] = _score(_class_mixture(fits[k], of_class), of_class, search.criterion)
        best = min(scores, key=lambda tried: scores[tried])
        if candidates.index(k) - candidates.index(best) >= PATIENCE:
            break
    # The comparison needs no more than a rough fit; the one that is kept goes on from where it stopped.
    final = fits[best].set_params(tol=_FINAL_TOLERANCE, warm_start=True).fit(of_class.codes_ND)
    return _class_mixture(final, of_class), ClusterChoice(of_class.name, best, scores)


def _expectation_maximisation(codes_ND: np.ndarray, clusters: int, search: MixtureOptions) -> SklearnMixture:
    kind = {"full": "full", "diagonal": "diag", "tied": "tied"}[search.covariance]
    fit: SklearnMixture = SklearnMixture(
        clusters,
        covariance_type=kind,
        tol=_SEARCH_TOLERANCE,
        max_iter=_MAX_ITERATIONS,
        reg_covar=variance_floor(codes_ND),
        random_state=search.seed,
    ).fit(codes_ND)
    return fit


def _class_mixture(fit: SklearnMixture, of_class: ClassCodes) -> _ClassMixture:
    weight_K, count = fit.weights_ / fit.weights_.sum(), len(of_class.codes_ND)
    match fit.covariance_type:
        case "full":
            factor = np.linalg.cholesky(shrink(fit.covariances_, weight_K, count))
            return _ClassMixture(weight_K, fit.means_, factor, "full")
        case "tied":
            factor = np.linalg.cholesky(shrink(fit.covariances_[None], np.ones(1), count))
            return _ClassMixture(weight_K, fit.means_, factor, "tied")
        case _:
            scale_KD = np.sqrt(shrink_diagonals(fit.covariances_, weight_K, count))
            return _ClassMixture(weight_K, fit.means_, scale_KD, "diagonal")


def _score(parts: _ClassMixture, of_class: ClassCodes, criterion: Criterion) -> float:
    count = len(of_class.codes_ND)
    judged_by = of_class.holdout_HD if has_enough_holdout(of_class) else of_class.codes_ND
    fit_term = -2.0 * count * float(parts.log_prob(judged_by).mean())
    if criterion == "likelihood" and has_enough_holdout(of_class):
        return fit_term
    return fit_term + _count_parameters(parts) * math.log(count)


def _count_parameters(parts: _ClassMixture) -> int:
    clusters, dims = parts.mean_KD.shape
    free = dims if parts.covariance == "diagonal" else dims * (dims + 1) // 2
    return int(clusters - 1 + clusters * dims + len(parts.factor) * free)


def _joined(parts: list[_ClassMixture], dims: int, classes: int, covariance: Covariance) -> GaussianMixture:
    sizes = tuple(len(part.weight_K) for part in parts)
    return GaussianMixture(
        MixtureConfig(dims=dims, classes=classes, clusters=sizes, covariance=covariance),
        weight_M=np.concatenate([part.weight_K for part in parts]),
        mean_MD=np.concatenate([part.mean_KD for part in parts]),
        factor=np.concatenate([part.factor for part in parts]),
        quantile_CQ=empty_quantiles(classes),
    )


def _warnings(of_class: ClassCodes, clusters: int | None) -> list[FitWarning]:
    return [
        *cluster_warnings(of_class, clusters),
        *covariance_warnings(of_class),
        *holdout_warnings(of_class, "clusters rest on training codes, "),
    ]
