"""Fitting a ring: its centre, then per class a mixture of (log radius, angle) whose angle is wrapped.

The centre is that of the circle with the least algebraic error over all codes, sum (|z|^2 + a x + b y + c)^2 (Kasa,
IEEE Transactions on Instrumentation and Measurement, 1976), fitted again and again with less weight for codes off the
circle (Tukey's weights), so that stray codes do not move it.

A mixture starts as an ordinary one, cut where the class has its widest gap, and is then improved by expectation
maximisation over components and windings together: a code belongs to component k in turn w with the responsibility
r_kw, and counts there with the angle t + 2 pi w. The number of clusters is chosen as in ``fitting``, by likelihood.
"""

from __future__ import annotations

import math
import os
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

_MAX_ITERATIONS = 60
_MIN_GAIN = 1e-4  # least gain of a step of expectation maximisation, in nats a code
_MIN_VARIANCE = 1e-6  # least variance of log radius and angle
_MAX_ANGLE_STD = math.pi  # standard deviation of an angle; wider ones are uniform on the circle
_TURNS = TURN * np.arange(-2, 3)
_CENTRE_ROUNDS = 20
_OUTLIER_DISTANCE = 4.0  # codes farther from the middle, in median distances, have no part in the first round
_TUKEY = 4.685
_MAX_CENTRE_DISTANCE = 1e3  # a centre so far away is that of a straight line


@dataclass(frozen=True)
class PolarFit:
    """The fitted distribution, and what a person should know of the fit."""

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
    """Raises ``SourceError`` as ``checks.checked`` does, and for codes of other than two dimensions."""
    if codes.dims != 2:
        hint = "use a flow, or train with --latent-dim 2"
        raise SourceError("codes", "2 dimensions for the sampler polar", f"{codes.dims} dimensions", hint)
    classes = check_codes(codes)
    centre_D = ring_centre(codes.codes_ND)
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        ThreadPoolExecutor(max_workers=min(len(classes), os.cpu_count() or 1)) as pool,
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = list(pool.map(lambda of_class: _fit_class(of_class, centre_D, seed, clusters), classes))
    polar = _joined(centre_D, [parts for parts, _ in fits], len(codes.class_names))
    said = tuple(
        w for of_class in classes for w in (*cluster_warnings(of_class, clusters), *holdout_warnings(of_class))
    )
    return PolarFit(polar.with_quantiles(density_quantiles(polar, codes)), tuple(choice for _, choice in fits), said)


def ring_centre(codes_ND: np.ndarray) -> np.ndarray:
    """(2,): the centre of the circle that codes lie on; of codes on a straight line, their middle."""
    middle_D = np.median(codes_ND, axis=0)
    away_N = np.hypot(*(codes_ND - middle_D).T)
    scale = float(np.median(away_N)) or float(away_N.max())
    points_ND, weight_N = (codes_ND - middle_D) / scale, (away_N <= _OUTLIER_DISTANCE * scale).astype(np.float64)
    system_N3 = np.column_stack([points_ND, np.ones(len(points_ND))])
    squares_N, centre_D = (points_ND**2).sum(axis=1), np.zeros(2)
    for _ in range(_CENTRE_ROUNDS):
        root_N = np.sqrt(weight_N)
        solution, _, rank, _ = np.linalg.lstsq(system_N3 * root_N[:, None], squares_N * root_N, rcond=1e-9)
        if rank < 3 or np.abs(solution[:2]).max() > _MAX_CENTRE_DISTANCE:
            break
        centre_D = solution[:2] / 2.0
        radius_N = np.hypot(*(points_ND - centre_D).T)
        miss_N = np.abs(radius_N - np.median(radius_N))
        usual = 1.4826 * float(np.median(miss_N)) + 1e-12
        weight_N = np.maximum(0.0, 1.0 - (miss_N / (_TUKEY * usual)) ** 2) ** 2
    centred_D: np.ndarray = middle_D + scale * centre_D
    return centred_D


def _fit_class(
    of_class: ClassCodes, centre_D: np.ndarray, seed: int, clusters: int | None
) -> tuple[_ClassMixture, ClusterChoice]:
    most = max_clusters(of_class)
    candidates = [k for k in CLUSTER_CANDIDATES if k <= most] if clusters is None else [min(clusters, most)]
    polar_N2 = to_polar(of_class.codes_ND, centre_D)
    judged_N2 = to_polar(of_class.holdout_HD, centre_D) if has_enough_holdout(of_class) else polar_N2
    fits: dict[int, _ClassMixture] = {}
    scores: dict[int, float] = {}
    for k in candidates:
        fits[k] = _fit_wrapped(polar_N2, _initial_mixture(polar_N2, k, seed))
        scores[k] = -2.0 * len(polar_N2) * float(logsumexp(_joint_log_prob(judged_N2, fits[k]), axis=(1, 2)).mean())
        if not has_enough_holdout(of_class):
            scores[k] += (6 * k - 1) * math.log(len(polar_N2))
        best = min(scores, key=lambda tried: scores[tried])
        if candidates.index(k) - candidates.index(best) >= PATIENCE:
            break
    return fits[best], ClusterChoice(of_class.name, best, scores)


def _initial_mixture(polar_N2: np.ndarray, clusters: int, seed: int) -> _ClassMixture:
    """An ordinary mixture of angles counted from the middle of the widest gap."""
    angle_N = np.sort(polar_N2[:, 1])
    gap_N = np.diff(angle_N, append=angle_N[0] + TURN)
    cut = float(angle_N[gap_N.argmax()] + 0.5 * gap_N.max())
    unrolled_N2 = np.column_stack([polar_N2[:, 0], np.mod(polar_N2[:, 1] - cut, TURN)])
    fit = SklearnMixture(clusters, max_iter=_MAX_ITERATIONS, reg_covar=_MIN_VARIANCE, random_state=seed).fit(
        unrolled_N2
    )
    mean_K2 = fit.means_ + np.array([0.0, cut])
    return _ClassMixture(fit.weights_ / fit.weights_.sum(), mean_K2, fit.covariances_)


def _fit_wrapped(polar_N2: np.ndarray, parts: _ClassMixture) -> _ClassMixture:
    """Expectation maximisation over components and windings."""
    before = -math.inf
    unrolled_NW2 = polar_N2[:, None, :] + np.stack([np.zeros_like(_TURNS), _TURNS], axis=1)
    for _ in range(_MAX_ITERATIONS):
        parts = _wrap_angles(parts)
        joint_NWK = _joint_log_prob(polar_N2, parts)
        log_density_N = logsumexp(joint_NWK, axis=(1, 2))
        if log_density_N.mean() - before < _MIN_GAIN:
            break
        before = float(log_density_N.mean())
        share_NWK = np.exp(joint_NWK - log_density_N[:, None, None])
        parts = _m_step(unrolled_NW2, share_NWK)
    return _ClassMixture(
        parts.weight_K,
        parts.mean_K2,
        _limit_angle_variance(shrink(parts.covariance_K22, parts.weight_K, len(polar_N2))),
    )


def _joint_log_prob(polar_N2: np.ndarray, parts: _ClassMixture) -> np.ndarray:
    """joint_NWK: log of weight times density of each code in each turn and component."""
    factor_K22 = np.linalg.cholesky(parts.covariance_K22)
    d_u = (polar_N2[:, 0, None] - parts.mean_K2[:, 0]) / factor_K22[:, 0, 0]
    d_t = polar_N2[:, 1, None, None] + _TURNS[:, None] - parts.mean_K2[:, 1]
    white_NWK = (d_t - (factor_K22[:, 1, 0] * d_u)[:, None, :]) / factor_K22[:, 1, 1]
    log_scale_K = np.log(parts.weight_K) - np.log(factor_K22[:, 0, 0] * factor_K22[:, 1, 1]) - math.log(TURN)
    joint_NWK: np.ndarray = log_scale_K - 0.5 * (d_u[:, None, :] ** 2 + white_NWK**2)
    return joint_NWK


def _m_step(unrolled_NW2: np.ndarray, share_NWK: np.ndarray) -> _ClassMixture:
    total_K = share_NWK.sum(axis=(0, 1)) + 1e-10
    mean_K2 = np.einsum("nwk,nwd->kd", share_NWK, unrolled_NW2) / total_K[:, None]
    second_K22 = np.einsum("nwk,nwd,nwe->kde", share_NWK, unrolled_NW2, unrolled_NW2, optimize=True)
    covariance_K22 = second_K22 / total_K[:, None, None] - mean_K2[:, :, None] * mean_K2[:, None, :]
    return _ClassMixture(
        total_K / total_K.sum(), mean_K2, _limit_angle_variance(covariance_K22 + _MIN_VARIANCE * np.eye(2))
    )


def _wrap_angles(parts: _ClassMixture) -> _ClassMixture:
    """The same mixture with mean angles in [-pi, pi]."""
    angle_K = np.mod(parts.mean_K2[:, 1] + math.pi, TURN) - math.pi
    return _ClassMixture(parts.weight_K, np.column_stack([parts.mean_K2[:, 0], angle_K]), parts.covariance_K22)


def _limit_angle_variance(covariance_K22: np.ndarray) -> np.ndarray:
    """Angles no wider than a standard deviation of ``_WIDEST``, at the same correlation with the radius."""
    ratio_K = np.minimum(1.0, _MAX_ANGLE_STD / np.sqrt(covariance_K22[:, 1, 1]))
    scale_K2 = np.column_stack([np.ones_like(ratio_K), ratio_K])
    narrowed_K22: np.ndarray = covariance_K22 * scale_K2[:, :, None] * scale_K2[:, None, :]
    return narrowed_K22


def _joined(centre_D: np.ndarray, parts: list[_ClassMixture], classes: int) -> PolarMixture:
    centred = [_wrap_angles(part) for part in parts]
    mixture = GaussianMixture(
        MixtureConfig(dims=2, classes=classes, clusters=tuple(len(part.weight_K) for part in centred)),
        weight_M=np.concatenate([part.weight_K for part in centred]),
        mean_MD=np.concatenate([part.mean_K2 for part in centred]),
        factor=np.linalg.cholesky(np.concatenate([part.covariance_K22 for part in centred])),
        quantile_CQ=empty_quantiles(classes),
    )
    return PolarMixture(centre_D, mixture)
