"""What all measures ask of the points they are given, refused with words instead of warnings."""

from __future__ import annotations

import numpy as np

from generator.errors import MeasureError


def check_points(name: str, points_ND: np.ndarray, *, least: int = 2, like: np.ndarray | None = None) -> np.ndarray:
    """``points_ND`` (features, codes or pixels of any real type), if a measure can be taken on them.

    Raises ``MeasureError`` for fewer than ``least`` points, another number of dimensions than ``like``, numbers that
    are none, and points that are all alike.
    """
    if points_ND.ndim != 2 or (like is not None and points_ND.shape[1] != like.shape[1]):
        dims = "D" if like is None else like.shape[1]
        raise MeasureError(name, f"points of shape (N, {dims})", f"shape {points_ND.shape}")
    if len(points_ND) < least:
        raise MeasureError(name, f"at least {least} images", len(points_ND), "give more of them, or a smaller k")
    if not all(np.isfinite(points_ND[begin : begin + 4096]).all() for begin in range(0, len(points_ND), 4096)):
        raise MeasureError(name, "finite features", "NaN or infinity")
    if (points_ND == points_ND[0]).all():
        raise MeasureError(name, "images that differ", f"{len(points_ND)} that are all alike")
    return points_ND
