"""Numbers of a selection: histograms beside those of all samples, counts by class and cluster, the map."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from generator.datasets.exploration.columns import BINS, Axis, Columns
from generator.datasets.exploration.frame import CELLS
from generator.datasets.exploration.selection import Selection

MAX_POINTS = 50_000
MAX_CLUSTERS = 50  # that are counted by name
GRID = 256  # cells of a side of the density grid
_POINT_TYPES = ("<u2", "<u2", "<u2", "<u4")  # x, y, value, index
_UNIT = 65_535  # of coordinates and confidences as whole numbers


@dataclass(frozen=True, eq=False)
class Histogram:
    """int64 ``all_B`` and ``selected_B``: samples by bin of ``axis``; ``missing``: selected ones without a value."""

    axis: Axis
    all_B: np.ndarray
    selected_B: np.ndarray
    missing: int


@dataclass(frozen=True, eq=False)
class Counts:
    """int64: samples by number (of the class, of the cluster), all and selected."""

    all_K: np.ndarray
    selected_K: np.ndarray


@dataclass(frozen=True, eq=False)
class Summary:
    """What is shown beside a gallery. ``confidence`` and ``density`` are ``None`` where no sample has a value."""

    count: int
    classes: Counts | None
    clusters: Counts
    confidence: Histogram | None
    density: Histogram | None
    refused: int  # selected samples of which draws were refused before
    draws_refused: int  # so many draws


def summarize(selection: Selection) -> Summary:
    """The numbers of ``selection``."""
    columns, mask_N = selection.columns, selection.mask_N
    attempt_S = columns["attempt"][mask_N]
    classes = len(columns.classes)
    return Summary(
        count=selection.count,
        classes=_counts(columns["label"], mask_N, classes) if classes else None,
        clusters=_counts(columns["cluster"], mask_N, columns.clusters),
        confidence=_histogram(columns, "confidence", columns.confidence, mask_N),
        density=_histogram(columns, "density", columns.density, mask_N),
        refused=int(np.count_nonzero(attempt_S)),
        draws_refused=int(attempt_S.sum(dtype=np.int64)),
    )


def map_bytes(selection: Selection) -> bytes:
    """The map of a selection: a line of JSON, then a grid of densities, then at most ``MAX_POINTS`` points.

    The JSON has ``frame``, ``grid`` (its side), ``points``, ``selected`` and ``scale`` (what 65,535 means in a value).
    The grid: uint8, row by row from the bottom, 0 for no sample, else by the logarithm of their number. The points,
    column after column: uint16 x and y (shares of the frame, of 65,535), uint16 value by the view's colour, uint32
    index. Points are evenly spaced among the selected samples.
    """
    columns, frame = selection.columns, selection.columns.frame
    cell_S = columns["cell"][selection.mask_N]
    placed = selection.indices if bool((cell_S >= 0).all()) else selection.indices[cell_S >= 0]
    if frame is None or not len(placed):
        return _head(selection, 0)
    count = min(len(placed), MAX_POINTS)
    index_P = placed[np.arange(count) * len(placed) // count]
    x_P = _whole((columns["map_x"][index_P] - frame.left) / (frame.right - frame.left))
    y_P = _whole((columns["map_y"][index_P] - frame.bottom) / (frame.top - frame.bottom))
    parts = (x_P, y_P, _values(columns, selection.view.colour, index_P), index_P)
    points = b"".join(
        np.ascontiguousarray(part, dtype=kind).tobytes() for part, kind in zip(parts, _POINT_TYPES, strict=True)
    )
    return _head(selection, count) + _grid(cell_S).tobytes() + points


def density_grid(cell_S: np.ndarray, side: int = GRID) -> np.ndarray:
    """int64 (side, side): the number of samples in each part of the frame, rows from the bottom; ``cell_S``: their
    cells, of which negative ones are left out. ``side`` divides ``CELLS``."""
    shift = CELLS // side
    kept_S = cell_S if bool((cell_S >= 0).all()) else cell_S[cell_S >= 0]
    place_S = (kept_S // (CELLS * shift)) * side + (kept_S % CELLS) // shift
    return np.asarray(np.bincount(place_S, minlength=side * side).reshape(side, side))


def _grid(cell_S: np.ndarray) -> np.ndarray:
    found_RC = np.log1p(density_grid(cell_S))
    top = float(found_RC.max(initial=0.0))
    return np.asarray(np.ceil(found_RC * (255.0 / top) if top else found_RC), dtype=np.uint8)


def _head(selection: Selection, points: int) -> bytes:
    frame, colour = selection.columns.frame, selection.view.colour
    document = {
        "frame": None if frame is None else frame.values(),
        "grid": GRID if points else 0,
        "points": points,
        "selected": selection.count,
        "colour": colour,
    }
    return json.dumps(document).encode() + b"\n"


def _values(columns: Columns, colour: str, index_P: np.ndarray) -> np.ndarray:
    if colour == "confidence":
        return _whole(np.nan_to_num(columns["label_confidence"][index_P], nan=0.0))
    return np.asarray(np.clip(columns["label" if colour == "class" else "cluster"][index_P], 0, _UNIT))


def _whole(share_P: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(np.clip(share_P, 0.0, 1.0) * _UNIT))


def _counts(values_N: np.ndarray, mask_N: np.ndarray, numbers: int) -> Counts:
    """Of the numbers 0 .. numbers - 1; the first place counts -1, for samples without a value, and is cut off."""
    all_K, selected_K = (
        np.bincount(values_M + 1, minlength=numbers + 1)[1 : numbers + 1] for values_M in (values_N, values_N[mask_N])
    )
    return Counts(all_K, selected_K)


def _histogram(columns: Columns, name: str, axis: Axis | None, mask_N: np.ndarray) -> Histogram | None:
    if axis is None:
        return None
    bin_N = columns[f"{name}_bin"]
    all_B, selected_B = (np.bincount(bin_M, minlength=BINS + 1) for bin_M in (bin_N, bin_N[mask_N]))
    return Histogram(axis, all_B[:BINS], selected_B[:BINS], int(selected_B[BINS]))
