"""A region selects the points inside its polygon by the even-odd rule, as the slow comparison with every edge does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.datasets.exploration.frame import CELLS, NO_CELL, Frame, frame_around
from generator.datasets.exploration.regions import MAX_CORNERS, Region, parse_region
from generator.errors import SpecError

FRAME = Frame(-8.0, -4.0, 8.0, 12.0)
NUMBER = st.floats(-20, 20, allow_nan=False).map(lambda value: round(value, 3))


def points(count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x_N, y_N = rng.uniform(-8, 8, count).astype(np.float32), rng.uniform(-4, 12, count).astype(np.float32)
    x_N[:50], y_N[50:100] = np.nan, np.nan
    return x_N, y_N


X_N, Y_N = points()
CELL_N = FRAME.cells(X_N, Y_N)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=3, max_size=12))
def test_selects_what_lies_inside_any_polygon(corners: list[tuple[float, float]]) -> None:
    region = Region(tuple(corners))
    expected_N = region.contains(X_N.astype(np.float64), Y_N.astype(np.float64))
    assert np.array_equal(region.select(FRAME, CELL_N, X_N, Y_N), expected_N & (CELL_N != NO_CELL))


def test_contains_a_triangle_and_not_the_hole_of_a_star() -> None:
    triangle = Region(((0.0, 0.0), (4.0, 0.0), (0.0, 4.0)))
    assert triangle.contains(np.array([1.0, 3.0, -1.0]), np.array([1.0, 3.0, 1.0])).tolist() == [True, False, False]
    angle = np.pi / 2 + 2 * np.pi * 2 / 5 * np.arange(5)
    star = Region(tuple(zip((4 * np.cos(angle)).tolist(), (4 * np.sin(angle)).tolist(), strict=True)))
    x_N, y_N = np.array([0.0, 0.0], dtype=np.float32), np.array([0.0, 3.0], dtype=np.float32)
    assert star.select(FRAME, FRAME.cells(x_N, y_N), x_N, y_N).tolist() == [False, True]


def test_edges_far_beyond_the_frame_take_no_longer() -> None:
    region = Region(((-1e9, -1e9), (1e9, -1e9), (0.5, 1e9)))
    assert region.select(FRAME, CELL_N, X_N, Y_N).sum() == np.count_nonzero(CELL_N != NO_CELL)


def test_text_of_a_region_is_read_again() -> None:
    region = parse_region("0.5,1 -2,3e1  4,.25")
    assert region.corners == ((0.5, 1.0), (-2.0, 30.0), (4.0, 0.25))
    assert parse_region(region.text) == region


@pytest.mark.parametrize(
    "text", ["", "1,2 3,4", "1,2 3,4 5", "nan,1 2,3 4,5", "1,2 3,4 1e999,5", "1;2 3;4 5;6", "1,2 " * (MAX_CORNERS + 1)]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_region(text)
    assert caught.value.field == "region"
    assert len(str(caught.value)) < 400


def test_a_frame_holds_every_point_and_seldom_changes() -> None:
    rng = np.random.default_rng(1)
    frames = set()
    for night in range(20):
        x_N, y_N = (rng.normal(size=5000).clip(-3.9, 3.9).astype(np.float32) for _ in range(2))
        frame = frame_around(x_N, y_N)
        assert frame is not None
        assert (frame.cells(x_N, y_N) >= 0).all(), night
        frames.add(frame)
    assert len(frames) == 1
    assert frame_around(np.array([np.nan]), np.array([1.0])) is None
    one = frame_around(np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.float32))
    assert one is not None
    assert 0 <= int(one.cells(np.zeros(1), np.zeros(1))[0]) < CELLS * CELLS
