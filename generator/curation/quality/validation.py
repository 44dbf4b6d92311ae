"""Input validation shared by the quality measures."""

from __future__ import annotations

import numpy as np

from generator.errors import MeasureError

_CHECKED_AT_ONCE = 2**24  # numbers


def check_points(name: str, points_ND: np.ndarray, *, minimum: int = 2, like: np.ndarray | None = None) -> np.ndarray:
    """Return ``points_ND`` (features, codes or pixels of any real type) if they can be measured.

    Raises ``MeasureError`` for fewer than ``minimum`` points, another number of dimensions than ``like``, NaN or
    infinity, and points that are all equal.
    """
    if points_ND.ndim != 2 or (like is not None and points_ND.shape[1] != like.shape[1]):
        dims = "D" if like is None else like.shape[1]
        raise MeasureError(name, f"points of shape (N, {dims})", f"shape {points_ND.shape}")
    if len(points_ND) < minimum:
        raise MeasureError(name, f"at least {minimum} images", len(points_ND), "give more images, or a smaller k")
    step = max(1, _CHECKED_AT_ONCE // max(1, points_ND.shape[1]))
    parts = [slice(begin, begin + step) for begin in range(0, len(points_ND), step)]
    if not all(np.isfinite(points_ND[part]).all() for part in parts):
        raise MeasureError(name, "finite features", "NaN or infinity")
    first_D = points_ND[0]
    if all((points_ND[part] == first_D).all() for part in parts):
        raise MeasureError(name, "images that differ", f"{len(points_ND)} equal images")
    return points_ND
