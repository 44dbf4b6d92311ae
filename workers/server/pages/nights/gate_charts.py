"""What gates measured over the logical dates, as line charts: places in an SVG, and the same numbers for a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from generator.curation.gates import Check, Verdict

WIDTH, HEIGHT = 340, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24
_PADDING = 0.08  # of the range of values, above and below
_FROM_ZERO = 0.4  # share of the largest value: if the smallest is below it, the axis begins at 0
_MAX_CHARTS = 40


class JudgedRun(NamedTuple):
    """A run and what its gates found: its date in words, and the address of the run."""

    date: str
    href: str
    verdict: Verdict


@dataclass(frozen=True)
class ChartPoint:
    """One run: where it is in the chart, and its numbers as text (``threshold``: empty without one)."""

    x: float
    y: float
    date: str
    href: str
    measured: str
    threshold: str
    refused: bool


@dataclass(frozen=True)
class GateChart:
    """One gate. ``line``: the ``points`` of a polyline; ``threshold``: the ``d`` of a path, empty without thresholds;
    ``ticks``: height and text of numbers beside the axis; ``refused``: how many runs it refused; ``words``: what it
    found last."""

    gate: str
    points: tuple[ChartPoint, ...]
    line: str
    threshold: str
    ticks: tuple[tuple[float, str], ...]
    refused: int
    words: str

    @property
    def description(self) -> str:
        newest = self.points[-1]
        limit = f" The threshold is {newest.threshold}." if newest.threshold else ""
        refused = f" It refused {self.refused} of {len(self.points)} runs." if self.refused else " It refused no run."
        return f"Measured {newest.measured} for {newest.date}, the newest of {len(self.points)} runs.{limit}{refused}"


def make_charts(runs: Sequence[JudgedRun]) -> list[GateChart]:
    """A chart for each gate with a number, of ``runs`` in ascending order; those that refused the newest run first."""
    by_gate: dict[str, list[tuple[JudgedRun, Check]]] = {}
    for run in reversed(runs):  # the gates of the newest run come first
        for check in run.verdict.checks:
            if check.measured is not None:
                by_gate.setdefault(check.gate, []).append((run, check))
    charts = [_chart(gate, found[::-1]) for gate, found in list(by_gate.items())[:_MAX_CHARTS]]
    last = runs[-1].href if runs else ""
    return sorted(charts, key=lambda chart: not (chart.points[-1].refused and chart.points[-1].href == last))


def number_text(value: float) -> str:
    """A measured value: ``5,000``, ``0.0132``."""
    is_large = 1000 <= abs(value) < 1e15
    return f"{value:,.0f}" if is_large or (abs(value) < 1e15 and value == int(value)) else f"{value:.3g}"


def _chart(gate: str, found: list[tuple[JudgedRun, Check]]) -> GateChart:
    measured = [check.measured or 0.0 for _, check in found]
    values = [*measured, *(check.threshold for _, check in found if check.threshold is not None)]
    low, high = _limits(values)
    step = (WIDTH - _LEFT - _RIGHT) / len(found)
    places = [_LEFT + (number + 0.5) * step for number in range(len(found))]
    points = tuple(
        ChartPoint(
            x=round(x, 1),
            y=_height(value, low, high),
            date=run.date,
            href=run.href,
            measured=number_text(value),
            threshold="" if check.threshold is None else number_text(check.threshold),
            refused=check.holds is False,
        )
        for x, value, (run, check) in zip(places, measured, found, strict=True)
    )
    thresholds = [(x, check.threshold) for x, (_, check) in zip(places, found, strict=True)]
    return GateChart(
        gate=gate,
        points=points,
        line=" ".join(f"{point.x:g},{point.y:g}" for point in points),
        threshold=_steps(thresholds, step, low, high),
        ticks=tuple((_height(value, low, high), number_text(value)) for value in sorted({min(values), max(values)})),
        refused=sum(point.refused for point in points),
        words=found[-1][1].words,
    )


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of the axis."""
    low, high = min(values), max(values)
    if low == high:
        pad = abs(high) * _PADDING or 1.0
        return (0.0 if high == 0.0 else low - pad), high + pad
    pad = (high - low) * _PADDING
    return (0.0 if 0.0 <= low < _FROM_ZERO * high else low - pad), high + pad


def _height(value: float, low: float, high: float) -> float:
    return round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)


def _steps(thresholds: list[tuple[float, float | None]], step: float, low: float, high: float) -> str:
    """A path with one level piece for each run, joined where neighbours have a threshold."""
    parts, open_path = list[str](), False
    for x, value in thresholds:
        if value is None:
            open_path = False
            continue
        y = _height(value, low, high)
        parts.append(f"{'V' if open_path else f'M{x - step / 2:.1f} '}{y:g}")
        parts.append(f"H{x + step / 2:.1f}")
        open_path = True
    return "".join(parts)
