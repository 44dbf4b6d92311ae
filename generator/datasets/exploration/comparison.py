"""Two builds beside each other: what is more and what is less, by class and by region, and their measures.

Shares are compared, not numbers: of two builds of different sizes, a class or a region is more if a larger share of the
samples lies in it. How sure that is says ``score``: the difference in standard errors, if the samples of both builds
were independent draws (a two-proportion z-test).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from generator.datasets.exploration.columns import Columns
from generator.datasets.exploration.frame import Frame
from generator.datasets.exploration.regions import Region
from generator.datasets.exploration.selection import Selection
from generator.datasets.exploration.summary import density_grid

REGIONS = 16  # regions of a side of the map
MAX_REGIONS = 8  # that are listed, of more and of less
MIN_SCORE = 3.0  # of a region that is listed
_LEVELS = 127
_EMPTY = -128  # of a cell without samples
_SIDES = (64, 32, REGIONS)  # of the map of differences, from fine to coarse
_SAMPLES_A_CELL = 4  # of the smaller selection, on average, that a finer map needs: fewer tell nothing
_FULL_SCORE = 8.0  # a score at which a cell is drawn in full colour


@dataclass(frozen=True)
class Change:
    """Samples of something in two builds: their numbers, their shares, and the difference of these in standard
    errors; positive if it is more in the second build."""

    name: str
    first: int
    second: int
    first_share: float
    second_share: float
    score: float


@dataclass(frozen=True)
class RegionChange:
    """A rectangle of the map, and what changed in it."""

    region: Region
    change: Change


@dataclass(frozen=True)
class Measure:
    """A number of both builds, ``None`` where one has none."""

    name: str
    first: float | None
    second: float | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """``classes``: those of either build. ``more``, ``less``: the regions that changed most, the largest change first;
    both empty unless ``same_map``: only then are the coordinates of the two builds those of one map."""

    classes: tuple[Change, ...]
    more: tuple[RegionChange, ...]
    less: tuple[RegionChange, ...]
    measures: tuple[Measure, ...]
    same_map: bool


def compare(first: Selection, second: Selection, *, same_map: bool) -> Comparison:
    """What is more and what is less in ``second``. ``same_map``: whether the bundles of both have the same map."""
    frame = _common_frame(first.columns, second.columns) if same_map else None
    changes = [] if frame is None else _regions(first, second, frame)
    ranked = sorted(changes, key=lambda each: (-abs(each.change.score), each.change.name))
    return Comparison(
        classes=_classes(first, second),
        more=tuple(each for each in ranked if each.change.score >= MIN_SCORE)[:MAX_REGIONS],
        less=tuple(each for each in ranked if each.change.score <= -MIN_SCORE)[:MAX_REGIONS],
        measures=_measures(first, second),
        same_map=frame is not None,
    )


def difference_bytes(first: Selection, second: Selection) -> bytes:
    """The map of the differences: a line of JSON with ``frame`` and ``grid`` (its side), then int8, row by row from the
    bottom: the score of each part of the frame, 127 for a score of 8 or more, -127 for -8 or less, -128 where neither
    has samples. The parts are larger the fewer samples there are."""
    frame = _common_frame(first.columns, second.columns)
    if frame is None:
        return b'{"frame":null,"grid":0}\n'
    smaller = min(first.count, second.count)
    side = next((each for each in _SIDES if each * each * _SAMPLES_A_CELL <= smaller), _SIDES[-1])
    counts = [density_grid(_cells(each, frame), side).astype(np.float64) for each in (first, second)]
    score = _scores(counts[0], counts[1], max(1, first.count), max(1, second.count))
    levels = np.rint(np.clip(score / _FULL_SCORE, -1.0, 1.0) * _LEVELS).astype(np.int8)
    levels[counts[0] + counts[1] == 0] = _EMPTY
    return json.dumps({"frame": frame.values(), "grid": side}).encode() + b"\n" + levels.tobytes()


def _common_frame(first: Columns, second: Columns) -> Frame | None:
    return None if first.frame is None or second.frame is None else first.frame.union(second.frame)


def _cells(selection: Selection, frame: Frame) -> np.ndarray:
    columns, mask_N = selection.columns, selection.mask_N
    if frame == columns.frame:
        return np.asarray(columns["cell"][mask_N])
    return frame.cells(columns["map_x"][mask_N], columns["map_y"][mask_N])


def _regions(first: Selection, second: Selection, frame: Frame) -> list[RegionChange]:
    counts_RC, others_RC = (density_grid(_cells(each, frame), REGIONS) for each in (first, second))
    wide, high = (frame.right - frame.left) / REGIONS, (frame.top - frame.bottom) / REGIONS
    found = []
    for row, column in np.argwhere(counts_RC + others_RC > 0).tolist():
        left, bottom = frame.left + column * wide, frame.bottom + row * high
        corners = ((left, bottom), (left + wide, bottom), (left + wide, bottom + high), (left, bottom + high))
        name = f"x {left:.4g} to {left + wide:.4g}, y {bottom:.4g} to {bottom + high:.4g}"
        numbers = int(counts_RC[row, column]), int(others_RC[row, column])
        found.append(RegionChange(Region(corners), _change(name, *numbers, first.count, second.count)))
    return found


def _classes(first: Selection, second: Selection) -> tuple[Change, ...]:
    counts, others = _by_class(first), _by_class(second)
    names = list(dict.fromkeys((*first.columns.classes, *second.columns.classes)))
    return tuple(_change(name, counts.get(name, 0), others.get(name, 0), first.count, second.count) for name in names)


def _by_class(selection: Selection) -> dict[str, int]:
    classes = selection.columns.classes
    found_C = np.bincount(selection.columns["label"][selection.mask_N] + 1, minlength=len(classes) + 1)[1:]
    return dict(zip(classes, found_C.tolist(), strict=False))


def _change(name: str, first: int, second: int, of_first: int, of_second: int) -> Change:
    totals = max(1, of_first), max(1, of_second)
    score = float(_scores(np.array([float(first)]), np.array([float(second)]), *totals)[0])
    return Change(name, first, second, first / totals[0], second / totals[1], score)


def _scores(first_R: np.ndarray, second_R: np.ndarray, of_first: int, of_second: int) -> np.ndarray:
    pooled_R = (first_R + second_R) / (of_first + of_second)
    error_R = np.sqrt(pooled_R * (1.0 - pooled_R) * (1.0 / of_first + 1.0 / of_second))
    return np.asarray(
        np.divide(second_R / of_second - first_R / of_first, error_R, out=np.zeros_like(error_R), where=error_R > 0.0)
    )


def _measures(first: Selection, second: Selection) -> tuple[Measure, ...]:
    both = _numbers(first), _numbers(second)
    return tuple(Measure(name, both[0][name], both[1][name]) for name in both[0])


def _numbers(selection: Selection) -> dict[str, float | None]:
    columns, mask_N, count = selection.columns, selection.mask_N, selection.count
    confidence_S = columns["label_confidence"][mask_N]
    confidence_S = confidence_S[~np.isnan(confidence_S)]
    density_S, attempt_S = columns["log_density"][mask_N], columns["attempt"][mask_N]
    size_S = columns["size"][mask_N]
    return {
        "samples": float(count),
        "mean label confidence": _mean(confidence_S),
        "label confidence, 5% quantile": _quantile(confidence_S, 0.05),
        "log-density, 5% quantile": _quantile(density_S, 0.05),
        "log-density, median": _quantile(density_S, 0.5),
        "share of samples drawn again": _mean(attempt_S > 0),
        "draws a sample": None if not count else 1.0 + float(attempt_S.mean()),
        "mean size of an image file, bytes": _mean(size_S) if bool((size_S >= 0).all()) else None,
        "clusters with a sample": float(len(np.unique(columns["cluster"][mask_N]))),
    }


def _mean(values_S: np.ndarray) -> float | None:
    return float(values_S.mean(dtype=np.float64)) if len(values_S) else None


def _quantile(values_S: np.ndarray, share: float) -> float | None:
    """The value of this rank, by partial sorting: much faster than ``np.quantile`` of a million values."""
    if not len(values_S):
        return None
    rank = round(share * (len(values_S) - 1))
    return float(np.partition(values_S, rank)[rank])
