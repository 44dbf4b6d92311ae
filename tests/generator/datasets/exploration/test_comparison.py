"""Two builds compared: more and less by class and by region, measures, and where their documents differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generator.datasets.exploration.columns import Axis, Columns
from generator.datasets.exploration.comparison import compare, difference_bytes
from generator.datasets.exploration.differences import MAX_DIFFERENCES, Difference, find_differences
from generator.datasets.exploration.frame import Frame
from generator.datasets.exploration.selection import Selection, select
from generator.datasets.exploration.view import View

FRAME = Frame(-8.0, -8.0, 8.0, 8.0)


def build(
    seed: int, counts: tuple[int, ...] = (4000, 4000), moved: float = 0.0, frame: Frame | None = FRAME
) -> Columns:
    """Columns of two classes around (-3, 0) and (3, 0); a tenth of the second class lies ``moved`` further up."""
    rng, samples = np.random.default_rng(seed), sum(counts)
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    x_N, y_N = (6.0 * labels - 3.0 + rng.normal(size=samples)), rng.normal(size=samples)
    y_N[(labels == 1) & (rng.uniform(size=samples) < 0.1)] += moved
    arrays = {
        "label": labels,
        "cluster": labels % 1,
        "attempt": rng.integers(0, 2, samples).astype(np.int32),
        "log_density": rng.normal(-50.0, 1.0, samples),
        "label_confidence": rng.uniform(0.5, 1.0, samples).astype(np.float32),
        "map_x": x_N.astype(np.float32),
        "map_y": y_N.astype(np.float32),
        "size": np.full(samples, 700),
    }
    if frame is not None:
        arrays["cell"] = frame.cells(arrays["map_x"], arrays["map_y"])
    return Columns(arrays, samples, ("left", "right"), frame, Axis(-60.0, -40.0), Axis(0.0, 1.0))


def whole(columns: Columns) -> Selection:
    return select(columns, View())


def test_two_draws_of_one_distribution_hardly_differ() -> None:
    found = compare(whole(build(0)), whole(build(1)), same_map=True)
    assert all(abs(each.score) < 1e-9 for each in found.classes)
    assert len(found.more) + len(found.less) <= 1
    assert found.same_map


def test_a_class_and_a_region_that_grew_are_found() -> None:
    found = compare(whole(build(0)), whole(build(1, (4000, 6000), moved=5.0)), same_map=True)
    by_name = {each.name: each for each in found.classes}
    assert by_name["right"].score > 3.0 > -3.0 > by_name["left"].score
    assert (by_name["right"].first, by_name["right"].second) == (4000, 6000)
    assert by_name["right"].second_share == pytest.approx(0.6)
    (x, y), *_ = found.more[0].region.corners
    assert 1.0 <= x <= 4.0
    assert y >= 2.0
    assert found.more[0].change.score > 6.0
    assert found.less
    grid = difference_bytes(whole(build(0)), whole(build(1, moved=5.0)))
    head, _, levels = grid.partition(b"\n")
    side = json.loads(head)["grid"]
    found_RC = np.frombuffer(levels, np.int8).reshape(side, side)
    assert found_RC[int(side * 13 / 16), int(side * 11 / 16)] > 30
    assert found_RC[0, 0] == -128  # nobody is there


@pytest.mark.parametrize(("samples", "side"), [(10, 16), (4000, 16), (4096, 32), (20_000, 64)])
def test_the_map_of_differences_is_as_fine_as_the_smaller_build_allows(samples: int, side: int) -> None:
    large, small = build(0, (30_000, 30_000)), build(1, (samples // 2, samples // 2))
    for pair in ((large, small), (small, large)):
        head, _, levels = difference_bytes(*map(whole, pair)).partition(b"\n")
        assert (json.loads(head)["grid"], len(levels)) == (side, side * side)


def test_measures_stand_side_by_side() -> None:
    found = {each.name: each for each in compare(whole(build(0)), whole(build(1, (10, 10))), same_map=True).measures}
    assert (found["samples"].first, found["samples"].second) == (8000.0, 20.0)
    assert found["mean label confidence"].first == pytest.approx(0.75, abs=0.01)
    assert found["log-density, median"].first == pytest.approx(-50.0, abs=0.1)
    assert found["draws a sample"].first == pytest.approx(1.5, abs=0.05)


def test_other_maps_are_not_compared() -> None:
    found = compare(whole(build(0)), whole(build(1, moved=5.0)), same_map=False)
    assert (found.more, found.less, found.same_map) == ((), (), False)
    assert not compare(whole(build(0)), whole(build(1, frame=None)), same_map=True).same_map
    assert difference_bytes(whole(build(0)), whole(build(1, frame=None))) == b'{"frame":null,"grid":0}\n'


def test_an_empty_selection_is_compared_too() -> None:
    empty = select(build(0), View(where="index < 0"))
    found = compare(empty, whole(build(1)), same_map=True)
    assert {each.name: each.first for each in found.measures}["mean label confidence"] is None
    assert all(np.isfinite(each.score) for each in found.classes)


def test_differences_of_documents() -> None:
    first = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": [{"f": 1}, {"f": 2}], "g": {}}
    second = {"a": 1, "b": {"c": [1, 3]}, "e": [{"f": 1}, {"f": 3}, {"f": 4}], "g": {"h": "x"}}
    assert find_differences(first, second) == [
        Difference("b.c", "[1, 2]", "[1, 3]"),
        Difference("b.d", "null", None),
        Difference("e[1].f", "2", "3"),
        Difference("e[2].f", None, "4"),
        Difference("g", "{}", None),
        Difference("g.h", None, '"x"'),
    ]
    assert find_differences(first, first) == []


def test_differences_are_bounded(tmp_path: Path) -> None:
    found = find_differences({}, {str(number): "x" * 10_000 for number in range(3000)})
    assert len(found) == MAX_DIFFERENCES
    assert all(len(each.second or "") <= 200 for each in found)
