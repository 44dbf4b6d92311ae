"""Fréchet and kernel distance between two sets of images, as distributions of features. Smaller is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, svdvals

from generator.curation.quality.validation import check_points
from generator.spec.seeding import permutation


def frechet_distance(real_ND: np.ndarray, synthetic_MD: np.ndarray) -> float:
    """The squared Fréchet distance of the two Gaussians with the sets' means and covariances.

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017,
    equation 6. The trace of (C1 C2)^(1/2) is computed as the sum of the singular values of C1^(1/2) C2^(1/2), which
    avoids the square root of a non-symmetric matrix. Biased upwards for few images: compare equal numbers only.
    Symmetric. Raises ``MeasureError``.
    """
    (mean1_D, basis1_DD, roots1_D), (mean2_D, basis2_DD, roots2_D) = (
        _gaussian(each)
        for each in (check_points("real", real_ND), check_points("synthetic", synthetic_MD, like=real_ND))
    )
    cross = svdvals(roots1_D[:, None] * (basis1_DD.T @ basis2_DD) * roots2_D).sum()
    squared = ((mean1_D - mean2_D) ** 2).sum() + (roots1_D**2).sum() + (roots2_D**2).sum() - 2.0 * cross
    return max(0.0, float(squared))


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation of the unbiased estimate over random subsets. The estimate may be negative near 0."""

    mean: float
    spread: float


def kernel_distance(
    real_ND: np.ndarray, synthetic_MD: np.ndarray, *, seed: int = 0, subsets: int = 20, size: int = 1000
) -> KernelDistance:
    """The squared maximum mean discrepancy with the kernel (x y / D + 1)^3.

    Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, equation 4 and section 3. Unbiased, so it does not
    depend on the number of images. Each of the ``subsets`` has ``size`` images of both sets, or as many as the smaller
    set has. Symmetric up to the choice of images. Raises ``MeasureError``.
    """
    real_ND = check_points("real", real_ND)
    synthetic_MD = check_points("synthetic", synthetic_MD, like=real_ND)
    size = min(size, len(real_ND), len(synthetic_MD))
    values = []
    for subset in range(subsets):
        rows_S = permutation(seed, stream=2 * subset, size=len(real_ND))[:size]
        others_S = permutation(seed, stream=2 * subset + 1, size=len(synthetic_MD))[:size]
        values.append(_discrepancy(real_ND[rows_S].astype(np.float64), synthetic_MD[others_S].astype(np.float64)))
    return KernelDistance(float(np.mean(values)), float(np.std(values, ddof=min(1, subsets - 1))))


def _gaussian(points_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean_D, eigenvectors of the covariance (basis_DD), and square roots of its eigenvalues (roots_D)."""
    points_ND = points_ND.astype(np.float64)
    mean_D = points_ND.mean(axis=0)
    points_ND -= mean_D
    values_D, basis_DD = eigh(points_ND.T @ points_ND / (len(points_ND) - 1))
    return mean_D, basis_DD, np.sqrt(np.maximum(values_D, 0.0))


def _discrepancy(x_SD: np.ndarray, y_SD: np.ndarray) -> float:
    count = len(x_SD)
    within = sum((kernel.sum() - np.trace(kernel)) / (count * (count - 1)) for kernel in (_kernel(x_SD), _kernel(y_SD)))
    return float(within - 2.0 * _kernel(x_SD, y_SD).mean())


def _kernel(x_SD: np.ndarray, y_SD: np.ndarray | None = None) -> np.ndarray:
    other_SD = x_SD if y_SD is None else y_SD
    kernel_SS: np.ndarray = (x_SD @ other_SD.T / x_SD.shape[1] + 1.0) ** 3
    return kernel_SS
