"""Charts of gates: places, thresholds, refused runs, and the words that say the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from generator.curation.gates import Check, Gates, Verdict
from workers.server.pages.nights.gate_charts import HEIGHT, WIDTH, JudgedRun, make_charts, number_text


def judged(day: int, *checks: tuple[str, float | None, float | None, bool | None]) -> JudgedRun:
    found = tuple(
        Check(gate=gate, measured=measured, threshold=limit, holds=holds, words=f"{gate} on {day}")
        for gate, measured, limit, holds in checks
    )
    verdict = Verdict(
        dataset="memory://x",
        build="0" * 20,
        logical_date=None,
        against=None,
        holds=all(each.holds is not False for each in found),
        reasons=(),
        checks=found,
        looked_at=1,
        gates=Gates(),
        judged=datetime(2026, 3, day, tzinfo=UTC),
    )
    return JudgedRun(f"2026-03-{day:02d} 04:00", f"#run-{day}", verdict)


def test_a_chart_has_every_run_in_its_order_within_its_frame() -> None:
    values = (0.01, 0.05, 0.2, 0.02)
    runs = [judged(day, ("drift", value, 0.1, value <= 0.1)) for day, value in enumerate(values, 1)]
    (chart,) = make_charts(runs)
    xs, ys = [point.x for point in chart.points], [point.y for point in chart.points]
    assert xs == sorted(xs)
    assert all(0 <= x <= WIDTH for x in xs)
    assert all(0 <= y <= HEIGHT for y in ys)
    assert ys[2] < ys[1] < ys[3] < ys[0]  # larger is higher
    assert [point.refused for point in chart.points] == [False, False, True, False]
    assert chart.refused == 1
    assert chart.words == "drift on 4"
    assert "Measured 0.02 for 2026-03-04 04:00, the newest of 4 runs." in chart.description
    assert "refused 1 of 4" in chart.description
    (level,) = set(re.findall(r"M[\d.]+ ([\d.]+)", chart.threshold))
    assert ys[2] < float(level) < ys[1]


def test_gates_that_refused_the_newest_run_come_first_and_gates_without_a_number_have_no_chart() -> None:
    runs = [
        judged(1, ("counts", 30, 30, True), ("images", 30, 20, True), ("copies", None, None, None)),
        judged(2, ("counts", 30, 30, True), ("images", 30, 50, False), ("copies", None, None, None)),
    ]
    assert [chart.gate for chart in make_charts(runs)] == ["images", "counts"]


def test_a_threshold_that_was_not_always_there_is_drawn_where_it_was() -> None:
    limits = (None, 0.1, 0.1, None, 0.2)
    (chart,) = make_charts([judged(day, ("drift", 0.05, limit, True)) for day, limit in enumerate(limits, 1)])
    assert chart.threshold.count("M") == 2
    assert [point.threshold for point in chart.points] == ["", "0.1", "0.1", "", "0.2"]


def test_one_run_and_equal_values_are_drawn() -> None:
    for value in (0.0, 7.0, -3.0):
        (chart,) = make_charts([judged(1, ("x", value, None, None))])
        assert 0 < chart.points[0].y < HEIGHT
        assert chart.threshold == ""
    assert make_charts([]) == []


def test_numbers_are_short() -> None:
    assert [number_text(value) for value in (5000.0, 0.0, 0.013245, 1e300, 12.5)] == [
        *("5,000", "0", "0.0132", "1e+300", "12.5")
    ]
