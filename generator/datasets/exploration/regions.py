"""Regions of a map: a polygon, and which points lie in it, by the even-odd rule.

The grid of the frame answers for most points at once: a cell that the outline does not cross lies in the polygon as a
whole or not at all. Points in the other cells are compared with every edge. Both give the same answer, in time that
hardly depends on the number of points.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from generator.datasets.exploration.frame import CELLS, Frame
from generator.errors import SpecError
from generator.spec.canonical import short_repr

MAX_CORNERS = 500
_FORM = f"3 to {MAX_CORNERS} points x,y with blanks between them"
_NUMBER = r"[-+]?(?:\d{1,9}\.?\d{0,9}|\.\d{1,9})(?:[eE][-+]?\d{1,2})?"
_POINT = re.compile(rf"({_NUMBER}),({_NUMBER})")


@dataclass(frozen=True)
class Region:
    """A polygon: its corners in order, in the units of the map."""

    corners: tuple[tuple[float, float], ...]

    @property
    def text(self) -> str:
        """As ``parse_region`` reads it."""
        return " ".join(f"{x:.6g},{y:.6g}" for x, y in self.corners)

    def contains(self, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """bool (N,): which points lie inside."""
        inside_N = np.zeros(len(x_N), dtype=bool)
        with np.errstate(invalid="ignore"):
            for (ax, ay), (bx, by) in self._edges():
                if ay == by:
                    continue
                crosses_N = (ay > y_N) != (by > y_N)
                inside_N ^= crosses_N & (x_N < (bx - ax) * (y_N - ay) / (by - ay) + ax)
        return inside_N

    def select(self, frame: Frame, cell_N: np.ndarray, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """bool (N,): like ``contains``, for float32 points of which ``cell_N`` are the cells in ``frame``."""
        crossed_C, inside_C = self._crossed(frame), self._inside(frame)
        state_C = np.where(crossed_C, 2, inside_C).astype(np.uint8)
        found_N = state_C[np.maximum(cell_N, 0)]
        found_N[cell_N < 0] = 0
        near = np.flatnonzero(found_N == 2)
        found_N[near] = self.contains(x_N[near].astype(np.float64), y_N[near].astype(np.float64))
        selected_N: np.ndarray = found_N.view(bool)
        return selected_N

    def _edges(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        return list(zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True))

    def _crossed(self, frame: Frame) -> np.ndarray:
        """bool: the cells that the outline may cross; some beside them too."""
        wide, high = (frame.right - frame.left) / CELLS, (frame.top - frame.bottom) / CELLS
        crossed_RC = np.zeros((CELLS, CELLS), dtype=bool)
        for (ax, ay), (bx, by) in self._edges():
            begin, end = _part_between(ax, bx, frame.left - wide, frame.right + wide)
            low, high_end = _part_between(ay, by, frame.bottom - high, frame.top + high)
            begin, end = max(begin, low), min(end, high_end)
            if begin > end:
                continue
            steps = 2 + int(2 * (end - begin) * max(abs(bx - ax) / wide, abs(by - ay) / high))
            share = np.linspace(begin, end, steps)
            crossed_RC[frame.rows(ay + share * (by - ay)), frame.columns(ax + share * (bx - ax))] = True
        grown_RC = crossed_RC.copy()
        for axis in (0, 1):  # every cell beside one that a step fell into
            before = grown_RC.copy()
            if axis == 0:
                grown_RC[1:] |= before[:-1]
                grown_RC[:-1] |= before[1:]
            else:
                grown_RC[:, 1:] |= before[:, :-1]
                grown_RC[:, :-1] |= before[:, 1:]
        return grown_RC.reshape(-1)

    def _inside(self, frame: Frame) -> np.ndarray:
        """uint8: whether the centre of each cell lies inside."""
        y_R = frame.bottom + (np.arange(CELLS) + 0.5) * (frame.top - frame.bottom) / CELLS
        turns_RC = np.zeros((CELLS, CELLS + 1), dtype=np.uint8)
        scale = CELLS / (frame.right - frame.left)
        for (ax, ay), (bx, by) in self._edges():
            rows = np.flatnonzero((ay > y_R) != (by > y_R))
            if not len(rows):
                continue
            crossing = (bx - ax) * (y_R[rows] - ay) / (by - ay) + ax
            columns = np.clip(np.ceil((crossing - frame.left) * scale - 0.5), 0, CELLS).astype(np.int64)
            turns_RC[rows, columns] ^= 1  # inside left of the crossing: counted from the right
        from_right_RC = np.bitwise_xor.accumulate(turns_RC[:, ::-1], axis=1)[:, ::-1]
        return np.ascontiguousarray(from_right_RC[:, 1:]).reshape(-1)


def _part_between(start: float, end: float, low: float, high: float) -> tuple[float, float]:
    """The shares of the way from ``start`` to ``end`` between which it lies between ``low`` and ``high``."""
    if start == end:
        return (0.0, 1.0) if low <= start <= high else (1.0, 0.0)
    first, last = sorted(((low - start) / (end - start), (high - start) / (end - start)))
    return max(0.0, first), min(1.0, last)


def parse_region(text: str) -> Region:
    """The region of ``text``, ``x,y x,y x,y ...``. Raises ``SpecError``."""
    words = text.split()[: MAX_CORNERS + 1]
    matches = [_POINT.fullmatch(word) for word in words]
    if not 3 <= len(words) <= MAX_CORNERS or None in matches:
        raise SpecError("region", _FORM, short_repr(text))
    corners = tuple((float(match[1]), float(match[2])) for match in matches if match)
    if not all(math.isfinite(number) for corner in corners for number in corner):
        raise SpecError("region", _FORM, short_repr(text))
    return Region(corners)
