"""Drawings of a page as SVG shapes: histograms, and the samples of a shard on the bundle's map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_POINTS = 2000
COLOURS = 10  # that the style sheet has
_BARS, _WIDTH, _HEIGHT = 24, 360, 120  # of a histogram; in units of its drawing
_SIDE, _MARGIN = 480, 8  # of the map


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: its place in the drawing, and what it says."""

    x: str
    y: str
    width: str
    height: str
    text: str


@dataclass(frozen=True)
class Histogram:
    """``title``; ``low`` and ``high``: the ends of its axis as text."""

    title: str
    low: str
    high: str
    bars: tuple[Bar, ...]
    width: int = _WIDTH
    height: int = _HEIGHT


@dataclass(frozen=True)
class CodeChart:
    """The map: ``paths`` holds for each colour that occurs the points that have it."""

    points: int
    paths: tuple[tuple[int, str], ...]
    side: int = _SIDE


def histogram(title: str, values: Sequence[Any], limits: tuple[float, float] | None = None) -> Histogram | None:
    """Of the values that are numbers; ``None`` if there are none, or if they are all the same."""
    found_N = np.array([value for value in values if value is not None], dtype=np.float64)
    found_N = found_N[np.isfinite(found_N)]
    if not len(found_N):
        return None
    low, high = limits or (float(found_N.min()), float(found_N.max()))
    if not low < high:
        return None
    counts_B, edges_B1 = np.histogram(found_N, bins=_BARS, range=(low, high))
    step, top = _WIDTH / _BARS, max(1, int(counts_B.max()))
    bars = [
        Bar(
            x=f"{place * step:.1f}",
            y=f"{_HEIGHT * (1 - count / top):.1f}",
            width=f"{step - 1:.1f}",
            height=f"{_HEIGHT * count / top:.1f}",
            text=f"{edges_B1[place]:.4g} to {edges_B1[place + 1]:.4g}: {count:,}",
        )
        for place, count in enumerate(counts_B.tolist())
    ]
    return Histogram(title, f"{low:.4g}", f"{high:.4g}", tuple(bars))


def code_chart(rows: Sequence[Mapping[str, Any]]) -> CodeChart | None:
    """The first ``MAX_POINTS`` rows that have a place on the map; ``None`` if there are none."""
    placed = [row for row in rows if row.get("map_x") is not None and row.get("map_y") is not None][:MAX_POINTS]
    places_N2 = np.array([(row["map_x"], row["map_y"]) for row in placed], dtype=np.float64).reshape(-1, 2)
    if not len(placed):
        return None
    low_2, span_2 = places_N2.min(axis=0), np.ptp(places_N2, axis=0)
    span_2[span_2 == 0.0] = 1.0
    units_N2 = _MARGIN + (_SIDE - 2 * _MARGIN) * (places_N2 - low_2) / span_2
    units_N2[:, 1] = _SIDE - units_N2[:, 1]
    paths = dict[int, list[str]]()
    for row, (x, y) in zip(placed, units_N2.tolist(), strict=True):
        paths.setdefault((row.get("label") or 0) % COLOURS, []).append(f"M{x:.1f} {y:.1f}h0")
    return CodeChart(len(placed), tuple((colour, "".join(paths[colour])) for colour in sorted(paths)))
