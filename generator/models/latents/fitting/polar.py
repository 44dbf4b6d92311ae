"""Fitting a polar mixture: the centre of the ring, then per class a mixture of (log radius, wrapped angle).

The centre is that of the circle with the smallest algebraic error over all codes, sum (|z|^2 + a x + b y + c)^2 (Kasa,
IEEE Transactions on Instrumentation and Measurement, 1976), by iteratively reweighted least squares: codes off the
circle get less weight (Tukey's weights), so that outliers do not move the centre.

A mixture starts as an ordinary one on angles unrolled at the widest gap of the class. Expectation maximisation over
components and windings then improves it: a code belongs to component k in winding w with responsibility r_kw, where its
angle is t + 2 pi w. The number of clusters is chosen by likelihood, as in ``fitting.mixture``.
"""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from generator.errors import SourceError
from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.fitting.checks import (
    FitWarning,
    check_codes,
    cluster_warnings,
    holdout_warnings,
    max_clusters,
)
from generator.models.latents.fitting.mixture import CLUSTER_CANDIDATES, PATIENCE, ClusterChoice
from generator.models.latents.fitting.shrinkage import shrink
from generator.models.latents.mixture import GaussianMixture, MixtureConfig
from generator.models.latents.polar import TURN, PolarMixture, to_polar
from generator.models.latents.quantiles import density_quantiles, empty_quantiles, has_enough_holdout
from generator.spec.machine import usable_cores

_MAX_ITERATIONS = 60
_MIN_GAIN = 1e-4  # minimum gain of an EM step, in nats per code
_MIN_VARIANCE = 1e-6  # minimum variance of log radius and angle
_MAX_ANGLE_STD = math.pi  # standard deviation of an angle; a wider one is practically uniform on the circle
_TURNS = TURN * np.arange(-2, 3)
_CENTRE_ROUNDS = 20
_OUTLIER_DISTANCE = 4.0  # codes farther from the median, in median distances, are ignored in the first round
_TUKEY = 4.685
_MAX_CENTRE_DISTANCE = 1e3  # a centre farther away means that the codes lie on a straight line


@dataclass(frozen=True)
class PolarFit:
    """The fitted distribution, the number of clusters of each class, and warnings."""

    polar: PolarMixture
    choices: tuple[ClusterChoice, ...]
    warnings: tuple[FitWarning, ...]


@dataclass(frozen=True)
class _ClassMixture:
    """The mixture of one class in (u, t)."""

    weight_K: np.ndarray
    mean_K2: np.ndarray
    covariance_K22: np.ndarray


def fit_polar(codes: Codes, *, seed: int = 0, clusters: int | None = None) -> PolarFit:
    """Raises ``SourceError`` as ``check_codes`` does, and unless the codes have two dimensions."""
    if codes.dims != 2:
        hint = "use a flow, or train with --latent-dim 2"
        raise SourceError("codes", "2 dimensions for the sampler polar", f"{codes.dims} dimensions", hint)
    classes = check_codes(codes)
    centre_D = ring_centre(codes.codes_ND)
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        ThreadPoolExecutor(max_workers=min(len(classes), usable_cores())) as pool,
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = list(pool.map(lambda class_codes: _fit_class(class_codes, centre_D, seed, clusters), classes))
    polar = _join_classes(centre_D, [class_mixture for class_mixture, _ in fits], len(codes.class_names))
    fit_warnings = tuple(
        warning
        for class_codes in classes
        for warning in (*cluster_warnings(class_codes, clusters), *holdout_warnings(class_codes))
    )
    return PolarFit(
        polar.with_quantiles(density_quantiles(polar, codes)), tuple(choice for _, choice in fits), fit_warnings
    )


def ring_centre(codes_ND: np.ndarray) -> np.ndarray:
    """(2,): centre of the circle fitted to the codes; their median if they lie on a straight line."""
    median_D = np.median(codes_ND, axis=0)
    distance_N = np.hypot(*(codes_ND - median_D).T)
    scale = float(np.median(distance_N)) or float(distance_N.max())
    points_ND, weight_N = (codes_ND - median_D) / scale, (distance_N <= _OUTLIER_DISTANCE * scale).astype(np.float64)
    system_N3 = np.column_stack([points_ND, np.ones(len(points_ND))])
    squares_N, centre_D = (points_ND**2).sum(axis=1), np.zeros(2)
    for _ in range(_CENTRE_ROUNDS):
        root_N = np.sqrt(weight_N)
        solution, _, rank, _ = np.linalg.lstsq(system_N3 * root_N[:, None], squares_N * root_N, rcond=1e-9)
        if rank < 3 or np.abs(solution[:2]).max() > _MAX_CENTRE_DISTANCE:
            break
        centre_D = solution[:2] / 2.0
        radius_N = np.hypot(*(points_ND - centre_D).T)
        residual_N = np.abs(radius_N - np.median(radius_N))
        residual_scale = 1.4826 * float(np.median(residual_N)) + 1e-12
        weight_N = np.maximum(0.0, 1.0 - (residual_N / (_TUKEY * residual_scale)) ** 2) ** 2
    shifted_D: np.ndarray = median_D + scale * centre_D
    return shifted_D


def _fit_class(
    class_codes: ClassCodes, centre_D: np.ndarray, seed: int, clusters: int | None
) -> tuple[_ClassMixture, ClusterChoice]:
    limit = max_clusters(class_codes)
    candidates = [k for k in CLUSTER_CANDIDATES if k <= limit] if clusters is None else [min(clusters, limit)]
    polar_N2 = to_polar(class_codes.codes_ND, centre_D)
    scored_N2 = to_polar(class_codes.holdout_HD, centre_D) if has_enough_holdout(class_codes) else polar_N2
    fits: dict[int, _ClassMixture] = {}
    scores: dict[int, float] = {}
    for k in candidates:
        fits[k] = _fit_wrapped(polar_N2, _initial_mixture(polar_N2, k, seed))
        scores[k] = -2.0 * len(polar_N2) * float(logsumexp(_joint_log_prob(scored_N2, fits[k]), axis=(1, 2)).mean())
        if not has_enough_holdout(class_codes):
            scores[k] += (6 * k - 1) * math.log(len(polar_N2))
        best = min(scores, key=lambda candidate: scores[candidate])
        if candidates.index(k) - candidates.index(best) >= PATIENCE:
            break
    return fits[best], ClusterChoice(class_codes.name, best, scores)


def _initial_mixture(polar_N2: np.ndarray, clusters: int, seed: int) -> _ClassMixture:
    """An ordinary Gaussian mixture, with angles measured from the middle of the widest gap."""
    angle_N = np.sort(polar_N2[:, 1])
    gap_N = np.diff(angle_N, append=angle_N[0] + TURN)
    cut = float(angle_N[gap_N.argmax()] + 0.5 * gap_N.max())
    unrolled_N2 = np.column_stack([polar_N2[:, 0], np.mod(polar_N2[:, 1] - cut, TURN)])
    fit = SklearnMixture(clusters, max_iter=_MAX_ITERATIONS, reg_covar=_MIN_VARIANCE, random_state=seed).fit(
        unrolled_N2
    )
    mean_K2 = fit.means_ + np.array([0.0, cut])
    return _ClassMixture(fit.weights_ / fit.weights_.sum(), mean_K2, fit.covariances_)


def _fit_wrapped(polar_N2: np.ndarray, mixture: _ClassMixture) -> _ClassMixture:
    """Expectation maximisation over components and windings."""
    previous = -math.inf
    unrolled_NW2 = polar_N2[:, None, :] + np.stack([np.zeros_like(_TURNS), _TURNS], axis=1)
    for _ in range(_MAX_ITERATIONS):
        mixture = _wrap_angles(mixture)
        joint_NWK = _joint_log_prob(polar_N2, mixture)
        log_density_N = logsumexp(joint_NWK, axis=(1, 2))
        if log_density_N.mean() - previous < _MIN_GAIN:
            break
        previous = float(log_density_N.mean())
        responsibility_NWK = np.exp(joint_NWK - log_density_N[:, None, None])
        mixture = _m_step(unrolled_NW2, responsibility_NWK)
    return _ClassMixture(
        mixture.weight_K,
        mixture.mean_K2,
        _limit_angle_variance(shrink(mixture.covariance_K22, mixture.weight_K, len(polar_N2))),
    )


def _joint_log_prob(polar_N2: np.ndarray, mixture: _ClassMixture) -> np.ndarray:
    """joint_NWK: log of weight times density of each code in each winding and component."""
    factor_K22 = np.linalg.cholesky(mixture.covariance_K22)
    d_u = (polar_N2[:, 0, None] - mixture.mean_K2[:, 0]) / factor_K22[:, 0, 0]
    d_t = polar_N2[:, 1, None, None] + _TURNS[:, None] - mixture.mean_K2[:, 1]
    white_NWK = (d_t - (factor_K22[:, 1, 0] * d_u)[:, None, :]) / factor_K22[:, 1, 1]
    log_scale_K = np.log(mixture.weight_K) - np.log(factor_K22[:, 0, 0] * factor_K22[:, 1, 1]) - math.log(TURN)
    joint_NWK: np.ndarray = log_scale_K - 0.5 * (d_u[:, None, :] ** 2 + white_NWK**2)
    return joint_NWK


def _m_step(unrolled_NW2: np.ndarray, responsibility_NWK: np.ndarray) -> _ClassMixture:
    total_K = responsibility_NWK.sum(axis=(0, 1)) + 1e-10
    mean_K2 = np.einsum("nwk,nwd->kd", responsibility_NWK, unrolled_NW2) / total_K[:, None]
    second_K22 = np.einsum("nwk,nwd,nwe->kde", responsibility_NWK, unrolled_NW2, unrolled_NW2, optimize=True)
    covariance_K22 = second_K22 / total_K[:, None, None] - mean_K2[:, :, None] * mean_K2[:, None, :]
    return _ClassMixture(
        total_K / total_K.sum(), mean_K2, _limit_angle_variance(covariance_K22 + _MIN_VARIANCE * np.eye(2))
    )


def _wrap_angles(mixture: _ClassMixture) -> _ClassMixture:
    """The same mixture with mean angles in [-pi, pi]."""
    angle_K = np.mod(mixture.mean_K2[:, 1] + math.pi, TURN) - math.pi
    return _ClassMixture(mixture.weight_K, np.column_stack([mixture.mean_K2[:, 0], angle_K]), mixture.covariance_K22)


def _limit_angle_variance(covariance_K22: np.ndarray) -> np.ndarray:
    """Limits the standard deviation of angles to ``_MAX_ANGLE_STD``, with unchanged correlation with the radius."""
    ratio_K = np.minimum(1.0, _MAX_ANGLE_STD / np.sqrt(covariance_K22[:, 1, 1]))
    scale_K2 = np.column_stack([np.ones_like(ratio_K), ratio_K])
    limited_K22: np.ndarray = covariance_K22 * scale_K2[:, :, None] * scale_K2[:, None, :]
    return limited_K22


def _join_classes(centre_D: np.ndarray, class_mixtures: list[_ClassMixture], classes: int) -> PolarMixture:
    wrapped = [_wrap_angles(part) for part in class_mixtures]
    mixture = GaussianMixture(
        MixtureConfig(dims=2, classes=classes, clusters=tuple(len(part.weight_K) for part in wrapped)),
        weight_M=np.concatenate([part.weight_K for part in wrapped]),
        mean_MD=np.concatenate([part.mean_K2 for part in wrapped]),
        factor=np.linalg.cholesky(np.concatenate([part.covariance_K22 for part in wrapped])),
        quantile_CQ=empty_quantiles(classes),
    )
    return PolarMixture(centre_D, mixture)
