"""Fitting one Gaussian per class: means and covariances of the codes, nothing to choose and no search."""

from __future__ import annotations

import numpy as np

from generator.models.latents.codes import ClassCodes, Codes
from generator.models.latents.config import Covariance
from generator.models.latents.fitting.checks import FitWarning, check_codes, covariance_warnings, holdout_warnings
from generator.models.latents.fitting.shrinkage import shrink, variance_floor
from generator.models.latents.mixture import GaussianMixture, MixtureConfig
from generator.models.latents.quantiles import density_quantiles, empty_quantiles


def fit_gaussian(codes: Codes, covariance: Covariance = "full") -> tuple[GaussianMixture, tuple[FitWarning, ...]]:
    """``tied``: all classes have the covariance within classes. Raises ``SourceError`` as ``checks.checked``."""
    classes, labels = check_codes(codes), len(codes.class_names)
    config = MixtureConfig(
        family="gaussian", dims=codes.dims, classes=labels, clusters=(1,) * len(classes), covariance=covariance
    )
    mean_CD, factor = moments(classes, covariance)
    gaussian = GaussianMixture(
        config, weight_M=np.ones(len(classes)), mean_MD=mean_CD, factor=factor, quantile_CQ=empty_quantiles(labels)
    )
    warnings = [
        warning for of_class in classes for warning in (*covariance_warnings(of_class), *holdout_warnings(of_class))
    ]
    return gaussian.with_quantiles(density_quantiles(gaussian, codes)), tuple(warnings)


def standard_normal(codes: Codes) -> GaussianMixture:
    """N(0, 1) in each dimension, without labels; ``codes`` are draws from it, for the quantiles of its density."""
    config = MixtureConfig(family="gaussian", dims=codes.dims, classes=0, clusters=(1,), covariance="diagonal")
    mean_MD, scale_MD = np.zeros((1, codes.dims)), np.ones((1, codes.dims))
    normal = GaussianMixture(
        config, weight_M=np.ones(1), mean_MD=mean_MD, factor=scale_MD, quantile_CQ=empty_quantiles(0)
    )
    return normal.with_quantiles(density_quantiles(normal, codes))


def moments(classes: list[ClassCodes], covariance: Covariance = "full") -> tuple[np.ndarray, np.ndarray]:
    """(mean_CD, factor as of ``MixtureConfig.factor_shape``): the Gaussian of each class."""
    return np.stack([of_class.codes_ND.mean(axis=0) for of_class in classes]), _factor(classes, covariance)


def _factor(classes: list[ClassCodes], covariance: Covariance) -> np.ndarray:
    covariance_CDD = np.stack([_covariance(of_class.codes_ND) for of_class in classes])
    count_C = np.array([len(of_class.codes_ND) for of_class in classes])
    if covariance == "diagonal":
        scale_CD: np.ndarray = np.sqrt(np.diagonal(covariance_CDD, axis1=1, axis2=2))
        return scale_CD
    if covariance == "tied":
        covariance_CDD = np.average(covariance_CDD, axis=0, weights=count_C)[None]
        count_C = count_C.sum(keepdims=True)
    alone = np.ones(1)
    parts = [shrink(part_DD[None], alone, count) for part_DD, count in zip(covariance_CDD, count_C, strict=True)]
    return np.linalg.cholesky(np.concatenate(parts))


def _covariance(codes_ND: np.ndarray) -> np.ndarray:
    floor = variance_floor(codes_ND)
    covariance_DD: np.ndarray = np.cov(codes_ND.T, bias=True).reshape(codes_ND.shape[1], -1)
    return covariance_DD + floor * np.eye(len(covariance_DD))
