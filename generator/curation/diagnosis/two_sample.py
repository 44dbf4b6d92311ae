"""Two-sample tests of samples against held-out codes: classifier test and maximum mean discrepancy."""

from __future__ import annotations

import math
import warnings

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from generator.curation.diagnosis.unmeasured import Unmeasured
from generator.spec.canonical import FrozenModel

MIN_CODES = 30
_FOLDS, _HIDDEN, _STEPS = 5, 20, 80
_MAX_EACH = 1_000
_INFLATION = 1.5  # of the accuracy's standard deviation relative to a binomial's, because folds share training codes
_PERMUTATIONS, _MAX_MMD = 200, 800


class Accuracy(FrozenModel):
    """Accuracy of a classifier that separates samples from held-out codes; 0.5 if indistinguishable."""

    accuracy: float
    low: float  # 95% interval
    high: float
    p_value: float  # of an accuracy this high if both have the same distribution


class Discrepancy(FrozenModel):
    """Squared maximum mean discrepancy, unbiased (it may be negative), and its permutation p-value."""

    mmd2: float
    p_value: float


def classifier_test(samples_BD: np.ndarray, codes_HD: np.ndarray, *, seed: int = 0) -> Accuracy | Unmeasured:
    """Classifier two-sample test: Lopez-Paz & Oquab, "Revisiting classifier two-sample tests", ICLR 2017.

    The network of the paper (one hidden layer of 20 rectifiers), trained by L-BFGS with weight decay, cross-validated
    in five folds on standardised codes, with equal numbers of samples and codes.
    """
    count = min(len(samples_BD), len(codes_HD), _MAX_EACH)
    if count < MIN_CODES:
        return Unmeasured(why=f"{count} held-out codes, fewer than {MIN_CODES}")
    x_ND = _standardise(np.concatenate([samples_BD[:count], codes_HD[:count]]))
    y_N = np.repeat([0, 1], count)
    right = 0
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train, test in folds.split(x_ND, y_N):
            network = MLPClassifier((_HIDDEN,), solver="lbfgs", alpha=1.0, max_iter=_STEPS, random_state=seed)
            right += int((network.fit(x_ND[train], y_N[train]).predict(x_ND[test]) == y_N[test]).sum())
    accuracy = right / (2 * count)
    deviation = _INFLATION * 0.5 / math.sqrt(2 * count)
    return Accuracy(
        accuracy=accuracy,
        low=max(0.0, accuracy - 1.96 * deviation),
        high=min(1.0, accuracy + 1.96 * deviation),
        p_value=float(norm.sf((accuracy - 0.5) / deviation)),
    )


def mmd_test(samples_BD: np.ndarray, codes_HD: np.ndarray, *, seed: int = 0) -> Discrepancy | Unmeasured:
    """Maximum mean discrepancy: Gretton et al., "A kernel two-sample test", JMLR 2012, its unbiased estimate (eq. 3).

    Gaussian kernel with the median distance as its width; the p-value is from 200 permutations.
    """
    count = min(len(samples_BD), len(codes_HD), _MAX_MMD)
    if count < MIN_CODES:
        return Unmeasured(why=f"{count} held-out codes, fewer than {MIN_CODES}")
    both_ND = np.concatenate([samples_BD[:count], codes_HD[:count]])
    width = float(np.median(pdist(both_ND)))
    if width == 0.0:
        return Unmeasured(why="most codes are equal")
    kernel_NN = np.exp(-cdist(both_ND, both_ND, "sqeuclidean") / (2.0 * width**2))
    np.fill_diagonal(kernel_NN, 0.0)
    rng = np.random.default_rng(seed)
    sign_NP = np.stack(
        [_group_signs(count), *(rng.permutation(_group_signs(count)) for _ in range(_PERMUTATIONS))], axis=1
    )
    mmd2_P = _mmd2(kernel_NN, sign_NP, count)
    p_value = float((1 + (mmd2_P[1:] >= mmd2_P[0]).sum()) / (1 + _PERMUTATIONS))
    return Discrepancy(mmd2=float(mmd2_P[0]), p_value=p_value)


def _group_signs(count: int) -> np.ndarray:
    return np.repeat([1.0, -1.0], count)


def _mmd2(kernel_NN: np.ndarray, sign_NP: np.ndarray, count: int) -> np.ndarray:
    """Eq. 3 for each column of signs: within-sample sums / (count (count - 1)), between-sample sums / count^2."""
    all_P = np.full(sign_NP.shape[1], kernel_NN.sum())
    signed_P = (sign_NP * (kernel_NN @ sign_NP)).sum(axis=0)  # within minus between
    within_P, between_P = (all_P + signed_P) / 2.0, (all_P - signed_P) / 2.0
    mmd2_P: np.ndarray = within_P / (count * (count - 1)) - between_P / count**2
    return mmd2_P


def _standardise(x_ND: np.ndarray) -> np.ndarray:
    spread_D = x_ND.std(axis=0)
    scaled_ND: np.ndarray = (x_ND - x_ND.mean(axis=0)) / np.where(spread_D > 0.0, spread_D, 1.0)
    return scaled_ND
