"""Training curves as the geometry of an SVG: two lines over epochs, with round numbers at the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from generator.models.autoencoders.settings import EpochRecord

WIDTH, HEIGHT = 640.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 12.0, 12.0, 36.0
_MAX_POINTS, _MAX_ROWS, _TICKS = 400, 100, 5


@dataclass(frozen=True)
class Tick:
    """A number at an axis: where it stands, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Curves:
    """The drawing, in units of its view box ``WIDTH`` x ``HEIGHT``. ``train``, ``holdout``: points of a polyline.

    ``best``: the epoch of the lowest held-out loss, ``best_at`` its place. ``rows``: records for a table, at most 100,
    evenly spaced, with first, best and last; ``clipped``: whether the highest losses lie above the drawing.
    """

    train: str
    holdout: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    best: EpochRecord
    best_at: tuple[float, float]
    last: EpochRecord
    rows: tuple[EpochRecord, ...]
    clipped: bool
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def draw_curves(history: Sequence[EpochRecord]) -> Curves | None:
    """The curves of a training; ``None`` without an epoch."""
    if not history:
        return None
    best = min(history, key=lambda record: record.holdout_loss)
    low, high, clipped = _span(history)
    first, last = history[0].epoch, history[-1].epoch

    def x(epoch: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * ((epoch - first) / (last - first) if last > first else 0.5), 1)

    def y(loss: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (min(loss, high) - low) / (high - low), 1)

    shown = _evenly(history, _MAX_POINTS, best)
    return Curves(
        train=" ".join(f"{x(record.epoch)},{y(record.train_loss)}" for record in shown),
        holdout=" ".join(f"{x(record.epoch)},{y(record.holdout_loss)}" for record in shown),
        x_ticks=tuple(Tick(x(at), f"{at:,.0f}") for at in _round_numbers(first, last, whole=True)),
        y_ticks=tuple(Tick(y(at), f"{at:,.6g}") for at in _round_numbers(low, high)),
        best=best,
        best_at=(x(best.epoch), y(best.holdout_loss)),
        last=history[-1],
        rows=tuple(_evenly(history, _MAX_ROWS, best)),
        clipped=clipped,
    )


def _span(history: Sequence[EpochRecord]) -> tuple[float, float, bool]:
    """The lowest and the highest loss that is drawn, and whether higher ones are cut: the first epochs of a training
    may be so high that the rest would be a flat line."""
    losses = [loss for record in history for loss in (record.train_loss, record.holdout_loss)]
    low, high = min(losses), max(losses)
    ordered = sorted(losses)
    usual = ordered[int(0.9 * (len(ordered) - 1))]
    if high - low > 4.0 * (usual - low) > 0.0:
        high = low + 1.6 * (usual - low)
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin, False
    margin = 0.05 * (high - low)
    return low - margin, high + margin, max(losses) > high + margin


def _evenly(history: Sequence[EpochRecord], limit: int, best: EpochRecord) -> list[EpochRecord]:
    """At most about ``limit`` records, evenly spaced, with the first, the last and the best."""
    step = max(1, math.ceil(len(history) / limit))
    return [
        record
        for number, record in enumerate(history)
        if number % step == 0 or number == len(history) - 1 or record is best
    ]


def _round_numbers(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Some round numbers from ``low`` to ``high``."""
    raw = (high - low) / _TICKS
    if raw <= 0.0 or not math.isfinite(raw):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= 0.75 * raw)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, first + 4 * _TICKS) if number * step <= high + 1e-9 * step]
