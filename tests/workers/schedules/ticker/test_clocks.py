"""Nights without a ticker, clocks that jump, and lost cursors: no date runs twice."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.simulated_schedules import ScheduleSimulation
from workers.schedules.store import read_cursor

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("none", ["skipped"] * 4), ("latest", ["skipped"] * 3 + ["promoted"]), ("all", ["skipped"] + ["promoted"] * 3)],
)
def test_nobody_was_there_for_four_nights(simulation: ScheduleSimulation, policy: str, expected: list[str]) -> None:
    simulation.declare(catch_up=policy, catch_up_limit=3)
    simulation.clock.advance(days=4, hours=-1)
    simulation.finish_runs()
    assert list(simulation.states().values()) == expected
    skipped = [run for run in simulation.runs() if run.state == "skipped"]
    assert all(run.why == "missed" and "no scheduler was running" in run.reason for run in skipped)
    simulation.tick_nights(5, 5)
    assert list(simulation.states().values()) == [*expected, "promoted"]


def test_a_year_without_a_ticker_costs_little(simulation: ScheduleSimulation) -> None:
    simulation.declare(cron="* * * * *", catch_up="all", catch_up_limit=2, overlap="queue")
    simulation.clock.advance(days=365)
    simulation.ticker().tick()
    runs = simulation.runs()
    assert len(runs) == 1 + 2 + 6  # one for all skipped dates, two caught up, six on time
    assert runs[0].until is not None
    assert (runs[0].date, runs[0].until + MINUTE) == (datetime(2026, 1, 1, 0, 1, tzinfo=UTC), runs[1].date)


def test_a_clock_that_runs_ahead_begins_nothing_where_the_store_knows_better(simulation: ScheduleSimulation) -> None:
    simulation.declare()
    simulation.clock.skew = "the clock of this machine is 86,400 s ahead of that of the store"
    simulation.clock.advance(days=1)
    simulation.ticker().tick()
    assert simulation.runs() == []
    simulation.clock.advance(days=-1)
    simulation.clock.skew = ""
    simulation.clock.advance(hours=3, minutes=30)
    simulation.ticker().tick()
    assert simulation.states() == {"01-01 03:30": "submitted"}


@pytest.mark.parametrize("policy", ["none", "latest", "all"])
@pytest.mark.parametrize("ahead", [0.98, 1, 40, 400])
def test_a_clock_that_jumps_there_and_back(simulation: ScheduleSimulation, policy: str, ahead: float) -> None:
    """No date is run twice, and every date is run at its true time, whatever the wrong clock decided."""
    simulation.declare(catch_up=policy, catch_up_limit=3)
    simulation.tick_nights(1, 2)
    simulation.clock.advance(days=ahead)
    simulation.tick_until(until=simulation.clock.time + timedelta(hours=1), step=10 * MINUTE)
    simulation.tick_nights(3, 7)
    runs = {run.date: run for run in simulation.runs()}
    for day in range(1, 8):
        assert runs[datetime(2026, 1, day, 3, 30, tzinfo=UTC)].state in ("promoted", "kept"), day
    assert Counter(simulation.pool.submissions).most_common(1)[0][1] == 1


def test_a_clock_that_jumps_back_runs_nothing_again(simulation: ScheduleSimulation) -> None:
    simulation.declare()
    simulation.tick_nights(1, 9)
    before = simulation.runs()
    simulation.tick_nights(3, 9)
    assert simulation.runs() == before
    assert len(simulation.pool.submissions) == 9
    simulation.tick_nights(10, 10)
    assert len(simulation.runs()) == 10


def test_a_lost_cursor_is_only_work(simulation: ScheduleSimulation) -> None:
    simulation.declare()
    simulation.tick_nights(1, 3)
    assert read_cursor(simulation.root, "nightly") == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)
    before = simulation.runs()
    simulation.root.delete("schedules/cursors/nightly.json")
    simulation.ticker().tick()
    assert simulation.runs() == before
    simulation.root.put("schedules/cursors/nightly.json", b"nonsense")
    simulation.ticker().tick()
    assert simulation.runs() == before
    assert read_cursor(simulation.root, "nightly") == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)
