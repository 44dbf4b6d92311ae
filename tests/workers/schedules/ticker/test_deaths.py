"""Tickers that die at any write or call, several at once, and a Redis or a store that is away."""

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
def test_killed_at_any_write(scene: ScheduleSimulation, fatal: int, after: bool) -> None:
    scene.declare(cron="*/30 * * * *", gates={}, retention={"last": 3})
    scene.clock.advance(minutes=30)
    store = CrashingStore(scene.root, fatal, after=after)
    doomed, died = scene.ticker(CrashingService(scene.pool, store)), False
    try:
        for _ in range(3):
            doomed.tick()
            scene.clock.advance(minutes=5)
    except Killed:
        died = True
    scene.finish_runs()
    states = scene.states()
    assert [state for date, state in states.items() if date <= "01-01 01:00"] == ["promoted"] * 2
    assert len(scene.pool.submitted_at) == len(states)
    assert list(live_markers(scene.root)) == [] or len(states) > 2
    assert died == (store.writes_left <= 0)
    assert Counter(scene.pool.done_chores)[("nightly", scene.runs()[0].date, "succeeded")] in (1, 2)  # at least once
    assert died or fatal > 12  # else nothing was tried here


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["submit", "check_gates", "promote"])
def test_killed_around_a_call(scene: ScheduleSimulation, call: str, after: bool) -> None:
    scene.declare(gates={})
    scene.clock.advance(hours=3, minutes=31)
    doomed = scene.ticker(CrashingService(scene.pool, scene.root, call, after=after))

    def work_until_death() -> None:
        for _ in range(3):
            doomed.tick()
            scene.clock.advance(minutes=10)

    with pytest.raises(Killed):
        work_until_death()
    scene.finish_runs()
    assert scene.states() == {"01-01 03:30": "promoted"}
    assert len(scene.pool.submitted_at) == 1
    assert scene.pool.latest == [scene.runs()[0].date]


def test_a_job_that_was_cancelled_is_not_begun_again_by_the_heir_of_its_ticker(scene: ScheduleSimulation) -> None:
    scene.declare()
    scene.clock.advance(hours=3, minutes=31)
    with pytest.raises(Killed):
        scene.ticker(CrashingService(scene.pool, scene.root, "submit", after=True)).tick()
    (run,) = scene.runs()
    assert run.state == "created"
    assert run.spec is not None
    scene.pool.cancel(run.spec.job_id)  # by a person
    scene.ticker().tick()
    assert scene.states() == {"01-01 03:30": "cancelled"}
    assert len(scene.pool.submissions) == 1


def test_two_tickers_at_once(tmp_path: Path) -> None:
    """Four threads on one directory: no date has two runs, no run is judged into two states."""
    scene = ScheduleSimulation(tmp_path, open_store(str(tmp_path / "root")))
    scene.declare(cron="*/10 * * * *", gates={}, catch_up="all")
    scene.pool.build_time = 5 * MINUTE
    barrier, failures = threading.Barrier(4), list[BaseException]()

    def tick(number: int) -> None:
        try:
            ticker = scene.ticker(who=f"ticker {number}")
            for _ in range(30):
                barrier.wait(60)
                ticker.tick()
                if barrier.wait(60) == 0:
                    scene.clock.advance(minutes=9)
        except BaseException as failure:
            failures.append(failure)
            barrier.abort()

    threads = [threading.Thread(target=tick, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    scene.finish_runs()
    runs = scene.runs()
    assert [run.date for run in runs] == [runs[0].date + 10 * place * MINUTE for place in range(len(runs))]
    assert len(runs) >= 26
    assert len(scene.pool.submitted_at) == len({run.spec.job_id for run in runs if run.spec}) == len(runs)
    assert {run.state for run in runs[:26]} == {"promoted"}
    assert scene.pool.latest == sorted(set(scene.pool.latest))


def test_redis_is_lost_overnight(scene: ScheduleSimulation) -> None:
    scene.declare(deadline="4h")
    scene.pool.redis_away = True
    scene.tick_until(until=datetime(2026, 1, 1, 6, tzinfo=UTC), step=20 * MINUTE)
    (run,) = scene.runs()
    assert (run.state, "a Redis that answers" in run.note) == ("created", True)
    assert "nothing is made yet" in run.at_risk
    scene.pool.redis_away = False
    scene.tick_until(until=datetime(2026, 1, 1, 7, tzinfo=UTC), step=20 * MINUTE)
    assert scene.states() == {"01-01 03:30": "promoted"}
    assert [chore for _, _, chore in scene.pool.done_chores] == ["at_risk", "succeeded"]


def test_the_store_is_away_for_a_while(scene: ScheduleSimulation, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.declare()
    ticker = scene.ticker()

    def away(*_: object) -> None:
        raise StoreUnavailable("root", "an answer", "none")

    scene.clock.advance(hours=3, minutes=30)
    with monkeypatch.context() as patch:
        patch.setattr(type(scene.root), "list", away)
        with pytest.raises(StoreUnavailable):
            ticker.tick()
    scene.clock.advance(hours=2)
    ticker.tick()
    assert scene.states() == {"01-01 03:30": "submitted"}  # caught up, as it is the latest
