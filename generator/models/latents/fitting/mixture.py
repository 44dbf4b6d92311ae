"""Fitting a Gaussian mixture per class to latent codes, and choosing the number of clusters of each class.

For every class and candidate number K, a mixture is fitted by expectation maximisation (scikit-learn, k-means start) to
the class's n training codes in D dimensions, its covariances are shrunk (``shrinkage``), and it is scored on the
class's held-out codes, which are not used in the fit (lower is better):

    "bic":         score(K) = -2 n l(K) + p(K) ln n,   p(K) = (K - 1) + K D + (parameters of the covariances)
    "likelihood":  score(K) = -2 n l(K)

where l(K) is the mean log-density of a held-out code: Schwarz's criterion (Annals of Statistics, 1978) with its fit
term measured out of sample, or that term alone. Candidates are tried in ascending order, until ``PATIENCE`` in a row
do not improve the score. A class with too few held-out codes is scored by "bic" on its training codes, with a warning.
"""

from __future__ import annotations

import math
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
from generator.spec.machine import usable_cores

CLUSTER_CANDIDATES = (1, 2, 3, 5, 8, 12, 20, 30)
PATIENCE = 2
_SEARCH_TOLERANCE, _FINAL_TOLERANCE = 5e-3, 1e-3  # minimum gain of an EM step, in nats per code
_MAX_ITERATIONS = 60


@dataclass(frozen=True)
class ClusterChoice:
    """The chosen number of clusters of a class, and the score of every candidate tried (lower is better)."""

    class_name: str
    clusters: int
    scores: dict[int, float]


@dataclass(frozen=True)
class MixtureFit:
    """The fitted distribution, the number of clusters of each class, and warnings."""

    mixture: GaussianMixture
    choices: tuple[ClusterChoice, ...]
    warnings: tuple[FitWarning, ...]


@dataclass(frozen=True)
class MixtureOptions:
    """How a mixture is fitted: ``clusters`` sets their number; ``None`` chooses it by ``criterion``."""

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
        mixture = _join_classes([self], len(self.mean_KD[0]), 0, self.covariance)
        return mixture.log_prob(codes_ND, np.zeros(len(codes_ND), dtype=np.int64))


def fit_mixture(
    codes: Codes,
    *,
    seed: int = 0,
    clusters: int | None = None,
    criterion: Criterion = "likelihood",
    covariance: Covariance = "full",
) -> MixtureFit:
    """One mixture per class, or a single one without labels. Raises ``SourceError`` as ``check_codes`` does."""
    classes, options = check_codes(codes), MixtureOptions(seed, clusters, criterion, covariance)
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        ThreadPoolExecutor(max_workers=min(len(classes), usable_cores())) as pool,
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = list(pool.map(lambda class_codes: _fit_class(class_codes, options), classes))
    mixture = _join_classes(
        [class_mixture for class_mixture, _ in fits], codes.dims, len(codes.class_names), covariance
    )
    fit_warnings = tuple(warning for class_codes in classes for warning in _warnings(class_codes, clusters))
    return MixtureFit(
        mixture.with_quantiles(density_quantiles(mixture, codes)), tuple(choice for _, choice in fits), fit_warnings
    )


def _fit_class(class_codes: ClassCodes, options: MixtureOptions) -> tuple[_ClassMixture, ClusterChoice]:
    limit = max_clusters(class_codes)
    candidates = (
        [k for k in CLUSTER_CANDIDATES if k <= limit] if options.clusters is None else [min(options.clusters, limit)]
    )
    fits: dict[int, SklearnMixture] = {}
    scores: dict[int, float] = {}
    for k in candidates:
        fits[k] = _expectation_maximisation(class_codes.codes_ND, k, options)
        scores[k] = _score(_class_mixture(fits[k], class_codes), class_codes, options.criterion)
        best = min(scores, key=lambda candidate: scores[candidate])
        if candidates.index(k) - candidates.index(best) >= PATIENCE:
            break
    # Candidates are compared with a loose tolerance; the chosen fit then continues with a tighter one.
    final = fits[best].set_params(tol=_FINAL_TOLERANCE, warm_start=True).fit(class_codes.codes_ND)
    return _class_mixture(final, class_codes), ClusterChoice(class_codes.name, best, scores)


def _expectation_maximisation(codes_ND: np.ndarray, clusters: int, options: MixtureOptions) -> SklearnMixture:
    covariance_type = {"full": "full", "diagonal": "diag", "tied": "tied"}[options.covariance]
    fit: SklearnMixture = SklearnMixture(
        clusters,
        covariance_type=covariance_type,
        tol=_SEARCH_TOLERANCE,
        max_iter=_MAX_ITERATIONS,
        reg_covar=variance_floor(codes_ND),
        random_state=options.seed,
    ).fit(codes_ND)
    return fit


def _class_mixture(fit: SklearnMixture, class_codes: ClassCodes) -> _ClassMixture:
    weight_K, count = fit.weights_ / fit.weights_.sum(), class_codes.count
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


def _score(class_mixture: _ClassMixture, class_codes: ClassCodes, criterion: Criterion) -> float:
    count = class_codes.count
    scored_ND = class_codes.holdout_HD if has_enough_holdout(class_codes) else class_codes.codes_ND
    fit_term = -2.0 * count * float(class_mixture.log_prob(scored_ND).mean())
    if criterion == "likelihood" and has_enough_holdout(class_codes):
        return fit_term
    return fit_term + _count_parameters(class_mixture) * math.log(count)


def _count_parameters(class_mixture: _ClassMixture) -> int:
    clusters, dims = class_mixture.mean_KD.shape
    per_matrix = dims if class_mixture.covariance == "diagonal" else dims * (dims + 1) // 2
    return int(clusters - 1 + clusters * dims + len(class_mixture.factor) * per_matrix)


def _join_classes(
    class_mixtures: list[_ClassMixture], dims: int, classes: int, covariance: Covariance
) -> GaussianMixture:
    sizes = tuple(len(part.weight_K) for part in class_mixtures)
    return GaussianMixture(
        MixtureConfig(dims=dims, classes=classes, clusters=sizes, covariance=covariance),
        weight_M=np.concatenate([part.weight_K for part in class_mixtures]),
        mean_MD=np.concatenate([part.mean_KD for part in class_mixtures]),
        factor=np.concatenate([part.factor for part in class_mixtures]),
        quantile_CQ=empty_quantiles(classes),
    )


def _warnings(class_codes: ClassCodes, clusters: int | None) -> list[FitWarning]:
    return [
        *cluster_warnings(class_codes, clusters),
        *covariance_warnings(class_codes),
        *holdout_warnings(class_codes, "the number of clusters is chosen on training codes; "),
    ]
