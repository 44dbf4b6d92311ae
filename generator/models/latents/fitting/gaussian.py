"""Fitting one Gaussian per class: the means and covariances of its codes."""

from __future__ import annotations

import numpy as np

from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.config import Covariance
from generator.models.latents.fitting.checks import FitWarning, check_codes, covariance_warnings, holdout_warnings
from generator.models.latents.fitting.shrinkage import shrink, variance_floor
from generator.models.latents.mixture import GaussianMixture, MixtureConfig
from generator.models.latents.quantiles import density_quantiles, empty_quantiles


def fit_gaussian(codes: Codes, covariance: Covariance = "full") -> tuple[GaussianMixture, tuple[FitWarning, ...]]:
    """``tied``: all classes share the within-class covariance. Raises ``SourceError`` as ``check_codes`` does."""
    classes, class_count = check_codes(codes), len(codes.class_names)
    config = MixtureConfig(
        family="gaussian", dims=codes.dims, classes=class_count, clusters=(1,) * len(classes), covariance=covariance
    )
    mean_CD, factor = moments(classes, covariance)
    gaussian = GaussianMixture(
        config, weight_M=np.ones(len(classes)), mean_MD=mean_CD, factor=factor, quantile_CQ=empty_quantiles(class_count)
    )
    warnings = [
        warning
        for class_codes in classes
        for warning in (*covariance_warnings(class_codes), *holdout_warnings(class_codes))
    ]
    return gaussian.with_quantiles(density_quantiles(gaussian, codes)), tuple(warnings)


def standard_normal(codes: Codes) -> GaussianMixture:
    """N(0, I) without labels; ``codes``: draws from it, for the stored quantiles of its density."""
    config = MixtureConfig(family="gaussian", dims=codes.dims, classes=0, clusters=(1,), covariance="diagonal")
    mean_MD, scale_MD = np.zeros((1, codes.dims)), np.ones((1, codes.dims))
    normal = GaussianMixture(
        config, weight_M=np.ones(1), mean_MD=mean_MD, factor=scale_MD, quantile_CQ=empty_quantiles(0)
    )
    return normal.with_quantiles(density_quantiles(normal, codes))


def moments(classes: list[ClassCodes], covariance: Covariance = "full") -> tuple[np.ndarray, np.ndarray]:
    """(mean_CD, factor of shape ``MixtureConfig.factor_shape``): the Gaussian of each class."""
    return np.stack([class_codes.codes_ND.mean(axis=0) for class_codes in classes]), _factor(classes, covariance)


def _factor(classes: list[ClassCodes], covariance: Covariance) -> np.ndarray:
    covariance_CDD = np.stack([_covariance(class_codes.codes_ND) for class_codes in classes])
    count_C = np.array([class_codes.count for class_codes in classes])
    if covariance == "diagonal":
        scale_CD: np.ndarray = np.sqrt(np.diagonal(covariance_CDD, axis1=1, axis2=2))
        return scale_CD
    if covariance == "tied":
        covariance_CDD = np.average(covariance_CDD, axis=0, weights=count_C)[None]
        count_C = count_C.sum(keepdims=True)
    unit_weight = np.ones(1)
    parts = [shrink(part_DD[None], unit_weight, count) for part_DD, count in zip(covariance_CDD, count_C, strict=True)]
    return np.linalg.cholesky(np.concatenate(parts))


def _covariance(codes_ND: np.ndarray) -> np.ndarray:
    floor = variance_floor(codes_ND)
    covariance_DD: np.ndarray = np.cov(codes_ND.T, bias=True).reshape(codes_ND.shape[1], -1)
    return covariance_DD + floor * np.eye(len(covariance_DD))
