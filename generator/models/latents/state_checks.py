"""Common checks of stored arrays: names, types, shapes and values. All raise ``BundleError``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from generator.errors import BundleError

Shapes = Mapping[str, tuple[int, ...]]
_NO_TYPES: Mapping[str, type] = {}


def check_arrays(
    tensors: Mapping[str, np.ndarray], shapes: Shapes, types: Mapping[str, type] = _NO_TYPES
) -> dict[str, np.ndarray]:
    """``tensors`` as contiguous arrays: exactly those of ``shapes``, finite, of dtype ``types`` (default float64)."""
    if set(tensors) != set(shapes):
        raise BundleError("latents", f"the tensors {sorted(shapes)}", sorted(tensors))
    return {
        name: _check_array(name, tensors[name], shape, np.dtype(types.get(name, np.float64)))
        for name, shape in shapes.items()
    }


def check_quantiles(quantile_CQ: np.ndarray) -> None:
    """Each row must be ascending."""
    if np.any(np.diff(quantile_CQ, axis=1) < 0.0):
        raise BundleError("latents.quantile", "ascending values in each row", "descending values")


def check_positive(name: str, value: np.ndarray) -> None:
    """All numbers must be above zero."""
    if not np.all(value > 0.0):
        raise BundleError(f"latents.{name}", "positive numbers", f"{value.min()}")


def check_factors(factor_FDD: np.ndarray) -> None:
    """Factors must be lower triangular with a positive diagonal."""
    if np.any(np.triu(factor_FDD, 1)):
        raise BundleError("latents.factor", "lower-triangular factors", "numbers above the diagonal")
    diagonal_FD = np.diagonal(factor_FDD, axis1=1, axis2=2)
    if not np.all(diagonal_FD > 0.0):
        raise BundleError("latents.factor", "a positive diagonal", f"{diagonal_FD.min()}")


def _check_array(name: str, value: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.ndarray:
    if value.dtype != dtype or value.shape != shape:
        raise BundleError(f"latents.{name}", f"{dtype} of shape {shape}", f"{value.dtype} of shape {value.shape}")
    if not np.isfinite(value).all():
        raise BundleError(f"latents.{name}", "finite numbers", "NaN or infinity")
    return np.ascontiguousarray(value)
