"""The frame of a map: the rectangle that is drawn, and the grid of cells in it that counting and selecting use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.errors import SpecError

CELLS = 1024  # of a side of the grid
NO_CELL = -1


@dataclass(frozen=True)
class Frame:
    """Left, bottom, right and top, in the units of the bundle's map."""

    left: float
    bottom: float
    right: float
    top: float

    def __post_init__(self) -> None:
        sides = (self.left, self.bottom, self.right, self.top)
        if not all(map(math.isfinite, sides)) or not (self.left < self.right and self.bottom < self.top):
            raise SpecError("frame", "left < right and bottom < top", sides)

    def cells(self, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """int32 (N,): row * ``CELLS`` + column of each point, rows from the bottom; ``NO_CELL`` for points without a
        place, and for those outside."""
        inside_N = (x_N >= self.left) & (x_N <= self.right) & (y_N >= self.bottom) & (y_N <= self.top)
        column_N = self.columns(np.where(inside_N, x_N, self.left))
        row_N = self.rows(np.where(inside_N, y_N, self.bottom))
        return np.where(inside_N, row_N * CELLS + column_N, NO_CELL).astype(np.int32)

    def columns(self, x_N: np.ndarray) -> np.ndarray:
        """The column of each x, int64, those outside moved to the border."""
        return _steps((np.asarray(x_N, dtype=np.float64) - self.left) / (self.right - self.left) * CELLS)

    def rows(self, y_N: np.ndarray) -> np.ndarray:
        """The row of each y, int64, those outside moved to the border."""
        return _steps((np.asarray(y_N, dtype=np.float64) - self.bottom) / (self.top - self.bottom) * CELLS)

    def union(self, other: Frame) -> Frame:
        """The smallest frame that holds both."""
        return Frame(
            min(self.left, other.left),
            min(self.bottom, other.bottom),
            max(self.right, other.right),
            max(self.top, other.top),
        )

    def values(self) -> dict[str, float]:
        """The sides as JSON values."""
        return {"left": self.left, "bottom": self.bottom, "right": self.right, "top": self.top}


def frame_around(x_N: np.ndarray, y_N: np.ndarray) -> Frame | None:
    """A frame with all points that have a place, ``None`` if there are none.

    Its sides are rounded outwards to a coarse step, so that builds of one bundle are mostly drawn in the same frame.
    """
    finite_N = np.isfinite(x_N) & np.isfinite(y_N)
    if not finite_N.any():
        return None
    left, right = _round_outwards(float(x_N[finite_N].min()), float(x_N[finite_N].max()))
    bottom, top = _round_outwards(float(y_N[finite_N].min()), float(y_N[finite_N].max()))
    return Frame(left, bottom, right, top)


def frame_from(document: Any) -> Frame | None:
    """The frame of its ``values``. Raises ``SpecError``."""
    return None if document is None else Frame(**{name: float(value) for name, value in dict(document).items()})


def _steps(scaled_N: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.floor(scaled_N), 0, CELLS - 1).astype(np.int64))


def _round_outwards(low: float, high: float) -> tuple[float, float]:
    step = 2.0 ** math.ceil(math.log2(max(high - low, abs(high) * 1e-6, 1e-6) / 4))
    below, above = math.floor(low / step) * step, math.ceil(high / step) * step
    return (below, above) if below < above else (below - step, above + step)
