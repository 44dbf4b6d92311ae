"""Weights of the samples of a dataset in a mixture: numbers, or a column of its tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from generator.errors import SpecError
from generator.spec.canonical import short_repr

LOG_DENSITY = "log_density"


def cumulate_weights(number: int, dataset: Any, weights: str | np.ndarray) -> np.ndarray:
    """Cumulated weights, float64 (N,), of the N samples of dataset ``number``.

    ``weights``: one number for each sample, or the name of a column of the dataset's tables; for ``log_density`` the
    weight is the density itself, as a share of the largest. Raises ``SpecError``.
    """
    field = f"weights[{number}]"
    found = _read_column(field, dataset, weights) if isinstance(weights, str) else _numbers(field, weights)
    if found.shape != (len(dataset),):
        raise SpecError(field, f"{len(dataset)} weights, one for each sample", f"shape {found.shape}")
    if not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise SpecError(field, "finite weights of at least 0, not all of them 0", "others")
    return np.cumsum(found)


def _numbers(field: str, weights: Any) -> np.ndarray:
    try:
        return np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise SpecError(field, "numbers, or the name of a column", short_repr(weights)) from error


def _read_column(field: str, dataset: Any, name: str) -> np.ndarray:
    if not hasattr(dataset, "table"):
        hint = "open the build with map_style=True, or give the weights as an array"
        raise SpecError(field, "an array, as only builds have columns", repr(name), hint)
    try:
        column = dataset.table([name]).column(0)
    except SpecError as unknown:
        raise SpecError(field, unknown.expected, unknown.got) from unknown
    if column.null_count:
        raise SpecError(field, "a column with a value for every sample", f"{name} with {column.null_count} nulls")
    read: np.ndarray = column.to_numpy()
    if read.dtype.kind not in "fiu":
        raise SpecError(field, "a column of numbers", f"{name}, of {column.type}")
    values = read.astype(np.float64)
    if name == LOG_DENSITY and len(values):
        values = np.exp(values - values.max())
    return values
