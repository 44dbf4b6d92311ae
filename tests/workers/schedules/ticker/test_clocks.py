"""Nights without a ticker, clocks that jump, and cursors that are lost: nothing runs twice."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.simulated_schedules import ScheduleSimulation
from workers.schedules.store import read_cursor

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [("none", ["skipped"] * 4), ("latest", ["skipped"] * 3 + ["promoted"]), ("all", ["skipped"] + ["promoted"] * 3)],
)
def test_nobody_was_there_for_four_nights(scene: ScheduleSimulation, policy: str, wanted: list[str]) -> None:
    scene.declare(catch_up=policy, catch_up_limit=3)
    scene.clock.advance(days=4, hours=-1)
    scene.finish_runs()
    assert list(scene.states().values()) == wanted
    skipped = [run for run in scene.runs() if run.state == "skipped"]
    assert all(run.why == "missed" and "nobody was there" in run.reason for run in skipped)
    scene.tick_nights(5, 5)
    assert list(scene.states().values()) == [*wanted, "promoted"]


def test_a_year_without_a_ticker_costs_little(scene: ScheduleSimulation) -> None:
    scene.declare(cron="* * * * *", catch_up="all", catch_up_limit=2, overlap="queue")
    scene.clock.advance(days=365)
    scene.ticker().tick()
    runs = scene.runs()
    assert len(runs) == 1 + 2 + 6  # all that was skipped, what is caught up, what is on time
    assert runs[0].until is not None
    assert (runs[0].date, runs[0].until + MINUTE) == (datetime(2026, 1, 1, 0, 1, tzinfo=UTC), runs[1].date)


def test_a_clock_that_runs_ahead_begins_nothing_where_the_store_knows_better(scene: ScheduleSimulation) -> None:
    scene.declare()
    scene.clock.skew = "the clock of this machine is 86,400 s ahead of that of the store"
    scene.clock.advance(days=1)
    scene.ticker().tick()
    assert scene.runs() == []
    scene.clock.advance(days=-1)
    scene.clock.skew = ""
    scene.clock.advance(hours=3, minutes=30)
    scene.ticker().tick()
    assert scene.states() == {"01-01 03:30": "submitted"}


@pytest.mark.parametrize("policy", ["none", "latest", "all"])
@pytest.mark.parametrize("ahead", [0.98, 1, 40, 400])
def test_a_clock_that_jumps_there_and_back(scene: ScheduleSimulation, policy: str, ahead: float) -> None:
    """No date is run twice, and each one that comes in true time has its run, whatever the wrong clock decided."""
    scene.declare(catch_up=policy, catch_up_limit=3)
    scene.tick_nights(1, 2)
    scene.clock.advance(days=ahead)
    scene.tick_until(until=scene.clock.time + timedelta(hours=1), step=10 * MINUTE)
    scene.tick_nights(3, 7)
    runs = {run.date: run for run in scene.runs()}
    for day in range(1, 8):
        assert runs[datetime(2026, 1, day, 3, 30, tzinfo=UTC)].state in ("promoted", "kept"), day
    assert Counter(scene.pool.submissions).most_common(1)[0][1] == 1


def test_a_clock_that_jumps_back_runs_nothing_again(scene: ScheduleSimulation) -> None:
    scene.declare()
    scene.tick_nights(1, 9)
    before = scene.runs()
    scene.tick_nights(3, 9)
    assert scene.runs() == before
    assert len(scene.pool.submissions) == 9
    scene.tick_nights(10, 10)
    assert len(scene.runs()) == 10


def test_a_lost_cursor_is_only_work(scene: ScheduleSimulation) -> None:
    scene.declare()
    scene.tick_nights(1, 3)
    assert read_cursor(scene.root, "nightly") == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)
    before = scene.runs()
    scene.root.delete("schedules/cursors/nightly.json")
    scene.ticker().tick()
    assert scene.runs() == before
    scene.root.put("schedules/cursors/nightly.json", b"nonsense")
    scene.ticker().tick()
    assert scene.runs() == before
    assert read_cursor(scene.root, "nightly") == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)
