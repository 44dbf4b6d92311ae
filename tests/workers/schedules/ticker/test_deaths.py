"""Tickers that crash at any write or call, several tickers at once, and an unavailable Redis or store."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from generator.errors import StoreUnavailable
from generator.store import open_store
from tests.support.crashing import CrashingService, CrashingStore
from tests.support.simulated_schedules import Killed, ScheduleSimulation
from workers.schedules.runs import live_markers

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fatal", range(1, 25))
def test_killed_at_any_write(simulation: ScheduleSimulation, fatal: int, after: bool) -> None:
    simulation.declare(cron="*/30 * * * *", gates={}, retention={"last": 3})
    simulation.clock.advance(minutes=30)
    store = CrashingStore(simulation.root, fatal, after=after)
    ticker_to_crash, crashed = simulation.ticker(CrashingService(simulation.pool, store)), False
    try:
        for _ in range(3):
            ticker_to_crash.tick()
            simulation.clock.advance(minutes=5)
    except Killed:
        crashed = True
    simulation.finish_runs()
    states = simulation.states()
    assert [state for date, state in states.items() if date <= "01-01 01:00"] == ["promoted"] * 2
    assert len(simulation.pool.submitted_at) == len(states)
    assert list(live_markers(simulation.root)) == [] or len(states) > 2
    assert crashed == (store.writes_left <= 0)
    assert Counter(simulation.pool.done_chores)[("nightly", simulation.runs()[0].date, "succeeded")] in (
        1,
        2,
    )  # at least once
    assert crashed or fatal > 12  # otherwise this parameter tested nothing


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["submit", "check_gates", "promote"])
def test_killed_around_a_call(simulation: ScheduleSimulation, call: str, after: bool) -> None:
    simulation.declare(gates={})
    simulation.clock.advance(hours=3, minutes=31)
    ticker_to_crash = simulation.ticker(CrashingService(simulation.pool, simulation.root, call, after=after))

    def tick_until_crash() -> None:
        for _ in range(3):
            ticker_to_crash.tick()
            simulation.clock.advance(minutes=10)

    with pytest.raises(Killed):
        tick_until_crash()
    simulation.finish_runs()
    assert simulation.states() == {"01-01 03:30": "promoted"}
    assert len(simulation.pool.submitted_at) == 1
    assert simulation.pool.latest == [simulation.runs()[0].date]


def test_a_job_that_was_cancelled_is_not_begun_again_by_the_heir_of_its_ticker(simulation: ScheduleSimulation) -> None:
    simulation.declare()
    simulation.clock.advance(hours=3, minutes=31)
    with pytest.raises(Killed):
        simulation.ticker(CrashingService(simulation.pool, simulation.root, "submit", after=True)).tick()
    (run,) = simulation.runs()
    assert run.state == "created"
    assert run.spec is not None
    simulation.pool.cancel(run.spec.job_id)  # by a person
    simulation.ticker().tick()
    assert simulation.states() == {"01-01 03:30": "cancelled"}
    assert len(simulation.pool.submissions) == 1


@pytest.mark.slow
def test_two_tickers_at_once(tmp_path: Path) -> None:
    """Four threads on one directory: no date has two runs, no run reaches two final states."""
    simulation = ScheduleSimulation(tmp_path, open_store(str(tmp_path / "root")))
    simulation.declare(cron="*/10 * * * *", gates={}, catch_up="all")
    simulation.pool.build_time = 5 * MINUTE
    barrier, failures = threading.Barrier(4), list[BaseException]()

    def tick(number: int) -> None:
        try:
            ticker = simulation.ticker(who=f"ticker {number}")
            for _ in range(30):
                barrier.wait(60)
                ticker.tick()
                if barrier.wait(60) == 0:
                    simulation.clock.advance(minutes=9)
        except BaseException as failure:
            failures.append(failure)
            barrier.abort()

    threads = [threading.Thread(target=tick, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    simulation.finish_runs()
    runs = simulation.runs()
    assert [run.date for run in runs] == [runs[0].date + 10 * place * MINUTE for place in range(len(runs))]
    assert len(runs) >= 26
    assert len(simulation.pool.submitted_at) == len({run.spec.job_id for run in runs if run.spec}) == len(runs)
    assert {run.state for run in runs[:26]} == {"promoted"}
    assert simulation.pool.latest == sorted(set(simulation.pool.latest))


def test_redis_is_lost_overnight(simulation: ScheduleSimulation) -> None:
    simulation.declare(deadline="4h")
    simulation.pool.redis_away = True
    simulation.tick_until(until=datetime(2026, 1, 1, 6, tzinfo=UTC), step=20 * MINUTE)
    (run,) = simulation.runs()
    assert (run.state, "a Redis that answers" in run.note) == ("created", True)
    assert "no image made yet" in run.at_risk
    simulation.pool.redis_away = False
    simulation.tick_until(until=datetime(2026, 1, 1, 7, tzinfo=UTC), step=20 * MINUTE)
    assert simulation.states() == {"01-01 03:30": "promoted"}
    assert [chore for _, _, chore in simulation.pool.done_chores] == ["at_risk", "succeeded"]


def test_the_store_is_away_for_a_while(simulation: ScheduleSimulation, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation.declare()
    ticker = simulation.ticker()

    def unavailable(*_: object) -> None:
        raise StoreUnavailable("root", "an answer", "none")

    simulation.clock.advance(hours=3, minutes=30)
    with monkeypatch.context() as patch:
        patch.setattr(type(simulation.root), "list", unavailable)
        with pytest.raises(StoreUnavailable):
            ticker.tick()
    simulation.clock.advance(hours=2)
    ticker.tick()
    assert simulation.states() == {"01-01 03:30": "submitted"}  # caught up, as it is the latest
