"""The ticker in simulated time: at most one run per date, and none is skipped unless a policy says so."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from generator.errors import StoreUnavailable
from generator.models.bundle import push
from generator.models.bundle.channels import move_channel
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.crashing import CrashingService, CrashingStore
from tests.support.simulated_schedules import ScheduleSimulation
from workers.schedules.new_run import ResolvedJob
from workers.schedules.runs import ENDED_STATES, Run, live_markers
from workers.schedules.schedule import Schedule
from workers.schedules.service import Outcome
from workers.schedules.store import remove_schedule, update_stored

MINUTE = timedelta(minutes=1)


def test_a_night(simulation: ScheduleSimulation) -> None:
    simulation.declare(retention={"last": 3})
    ticker = simulation.ticker()
    ticker.tick()
    assert simulation.runs() == []
    simulation.clock.advance(hours=3, minutes=30)
    ticker.tick()
    assert simulation.states() == {"01-01 03:30": "submitted"}
    simulation.clock.advance(minutes=10)
    ticker.tick()
    (run,) = simulation.runs()
    assert run.state == "promoted"
    assert simulation.pool.latest == [run.date]
    assert [chore for _, _, chore in simulation.pool.done_chores] == ["retain", "succeeded"]
    ticker.tick()
    assert list(live_markers(simulation.root)) == []
    assert len(simulation.pool.submissions) == 1


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_year(simulation: ScheduleSimulation, zone: str) -> None:
    """Tickers restart at random times, within the grace period; each day has exactly one run, on time."""
    rng = Random(zone)
    stored = simulation.declare(cron="30 2 * * *", timezone=zone)
    dates = stored.schedule.timetable.upcoming(simulation.clock.time, 365)
    ticker = simulation.ticker()
    for date in dates:
        for moment in (date - MINUTE, date + rng.random() * 4 * MINUTE, date + 15 * MINUTE):
            simulation.clock.time = moment
            ticker = simulation.ticker() if rng.random() < 0.3 else ticker
            ticker.tick()
    runs = simulation.runs()
    assert [run.date for run in runs] == dates
    assert {run.state for run in runs} == {"promoted"}
    assert all(run.created - run.date < 5 * MINUTE for run in runs)
    assert Counter(simulation.pool.submissions).most_common(1)[0][1] == 1
    assert len({run.spec.recipe.seed for run in runs if run.spec}) == 365
    days = [stored.schedule.timetable.to_local(date).date() for date in dates]
    assert days == [days[0] + timedelta(days=day) for day in range(365)]
    assert len({stored.schedule.timetable.to_local(date).utcoffset() for date in dates}) == 2


@pytest.mark.parametrize(
    ("overlap", "states", "cancelled"),
    [
        ("skip", ["promoted", "skipped", "skipped", "promoted"], 0),
        ("queue", ["promoted", "promoted", "submitted", "created"], 0),
        ("replace", ["replaced", "replaced", "replaced", "submitted"], 3),
    ],
)
def test_a_run_that_is_longer_than_its_period(
    simulation: ScheduleSimulation, overlap: str, states: list[str], cancelled: int
) -> None:
    simulation.declare(cron="0 * * * *", overlap=overlap)
    simulation.pool.build_time = timedelta(minutes=150)
    simulation.tick_until(until=datetime(2026, 1, 1, 4, 1, tzinfo=UTC), step=10 * MINUTE)
    if overlap != "queue":
        assert list(simulation.states().values()) == [*states[:3], "submitted"]
        assert len(simulation.pool.cancelled) == cancelled
    simulation.tick_until(until=datetime(2026, 1, 1, 6, 41, tzinfo=UTC), step=10 * MINUTE)
    assert len(simulation.pool.submitted_at) - len(simulation.pool.cancelled) == sum(
        run.state in ("submitted", "promoted") for run in simulation.runs()
    )
    if overlap != "replace":
        assert list(simulation.states().values())[:4] == states
    submitted = [run for run in simulation.runs() if run.state == "submitted"]
    assert len(submitted) == (overlap != "skip")


def test_a_gate_that_refuses(simulation: ScheduleSimulation) -> None:
    simulation.declare(gates={})
    simulation.pool.verdict = lambda run: Outcome(run.date.day != 2, "copies: 12% of the images")
    simulation.tick_nights(1, 3)
    assert list(simulation.states().values()) == ["promoted", "refused", "promoted"]
    assert simulation.runs()[1].reason == "copies: 12% of the images"
    assert [date.day for date in simulation.pool.latest] == [1, 3]
    assert [chore for _, _, chore in simulation.pool.done_chores] == ["succeeded", "refused", "succeeded"]


def test_a_judge_that_falls_ill_is_asked_again(simulation: ScheduleSimulation) -> None:
    simulation.declare(gates={})
    answers = iter([StoreUnavailable("s3", "an answer", "none"), RuntimeError("a bug"), Outcome(True, "")])

    def evaluate(run: Run) -> Outcome:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    simulation.pool.verdict = evaluate
    simulation.tick_until(until=datetime(2026, 1, 1, 3, 50, tzinfo=UTC), step=10 * MINUTE)
    assert (simulation.runs()[0].state, simulation.runs()[0].note) == ("committed", "s3: expected an answer, got none")
    simulation.tick_until(until=datetime(2026, 1, 1, 4, 30, tzinfo=UTC), step=10 * MINUTE)
    assert simulation.states() == {"01-01 03:30": "promoted"}


def test_a_channel_that_moves_while_a_build_runs(simulation: ScheduleSimulation, tmp_path: Path) -> None:
    move_channel(simulation.root, "cats", simulation.digest, by="a test")
    simulation.declare(job={"channel": "cats"}, overlap="queue", cron="0 * * * *")
    simulation.pool.build_time = timedelta(minutes=100)
    simulation.tick_until(until=datetime(2026, 1, 1, 2, 5, tzinfo=UTC), step=5 * MINUTE)
    assert list(simulation.states().values()) == ["submitted", "created"]
    other = push(open_store(str(tiny_bundle(tmp_path / "other", seed=1))), simulation.root)
    move_channel(simulation.root, "cats", other, by="a test")
    simulation.tick_until(until=datetime(2026, 1, 1, 7, tzinfo=UTC), step=5 * MINUTE)
    bundles = [run.spec.recipe.bundle for run in simulation.runs()[:3] if run.spec]
    assert bundles == [simulation.digest, simulation.digest, other]
    assert [spec.recipe.bundle for spec in simulation.pool.specs.values()][:3] == bundles
    assert [run.channel for run in simulation.runs()[:3]] == ["cats"] * 3


def test_a_job_that_cannot_be_is_a_run_that_failed(simulation: ScheduleSimulation) -> None:
    simulation.declare(job={"counts": {"horse": 3}, "count": None})
    simulation.tick_until(until=datetime(2026, 1, 1, 4, tzinfo=UTC), step=10 * MINUTE)
    (run,) = simulation.runs()
    assert (run.state, run.spec) == ("failed", None)
    assert "counts.horse" in run.reason
    assert [chore for _, _, chore in simulation.pool.done_chores] == ["failed"]
    assert list(live_markers(simulation.root)) == []


def test_trouble_with_one_schedule_is_not_that_of_the_others(
    simulation: ScheduleSimulation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a-damaged", "b-odd", "c-good"):
        simulation.declare(name=name)
    simulation.root.put("schedules/declared/a-damaged.json", b"{}")
    resolve_job = simulation.pool.resolve_job

    def fail_for_one(schedule: Schedule, date: datetime) -> ResolvedJob:
        if schedule.name == "b-odd":
            raise RuntimeError("a bug")
        return resolve_job(schedule, date)

    monkeypatch.setattr(simulation.pool, "resolve_job", fail_for_one)
    simulation.tick_nights(1, 1)
    assert (simulation.states("b-odd"), simulation.states("c-good")) == ({}, {"01-01 03:30": "promoted"})
    assert caplog.text.count("b-odd: unexpected error") == 1
    assert caplog.text.count("a-damaged: schedules/declared/a-damaged.json") == 1
    monkeypatch.undo()
    simulation.tick_nights(1, 1)
    assert simulation.states("b-odd") == {"01-01 03:30": "promoted"}


def test_paused_and_resumed(simulation: ScheduleSimulation) -> None:
    simulation.declare()
    update_stored(simulation.root, "nightly", lambda stored: stored and stored.model_copy(update={"held": True}))
    simulation.tick_until(until=datetime(2026, 1, 3, tzinfo=UTC), step=30 * MINUTE)
    assert [(run.state, run.why) for run in simulation.runs()] == [("skipped", "paused")] * 2
    update_stored(simulation.root, "nightly", lambda stored: stored and stored.model_copy(update={"held": False}))
    simulation.tick_until(until=datetime(2026, 1, 4, tzinfo=UTC), step=30 * MINUTE)
    assert list(simulation.states().values()) == ["skipped", "skipped", "promoted"]


def test_a_schedule_that_was_removed_lets_its_run_end(simulation: ScheduleSimulation) -> None:
    simulation.declare()
    simulation.tick_until(until=datetime(2026, 1, 1, 3, 35, tzinfo=UTC), step=5 * MINUTE)
    remove_schedule(simulation.root, "nightly")
    simulation.tick_until(until=datetime(2026, 1, 3, tzinfo=UTC), step=30 * MINUTE)
    assert simulation.states() == {"01-01 03:30": "promoted"}


def test_start_and_end(simulation: ScheduleSimulation) -> None:
    simulation.declare(start="2026-01-02T03:30", end="2026-01-03T03:30")
    simulation.tick_until(until=datetime(2026, 1, 6, tzinfo=UTC), step=30 * MINUTE)
    assert list(simulation.states()) == ["01-02 03:30", "01-03 03:30"]


def test_a_deadline_is_at_risk_once(simulation: ScheduleSimulation) -> None:
    simulation.declare(deadline="1h")
    simulation.pool.build_time = timedelta(hours=3)
    for _ in range(90):  # a new ticker each time
        simulation.ticker().tick()
        simulation.clock.advance(minutes=5)
    (run,) = simulation.runs()
    assert run.state == "promoted"
    assert "at this pace it ends at 2026-01-01 06:3" in run.at_risk
    assert [chore for _, _, chore in simulation.pool.done_chores] == ["at_risk", "succeeded"]


def test_a_run_in_time_worries_nobody(simulation: ScheduleSimulation) -> None:
    simulation.declare(deadline="1h")
    simulation.pool.build_time = timedelta(minutes=50)
    simulation.clock.advance(hours=3)
    simulation.tick_until(until=datetime(2026, 1, 1, 5, tzinfo=UTC), step=2 * MINUTE)
    assert simulation.runs()[0].at_risk == ""
    assert simulation.states() == {"01-01 03:30": "promoted"}


@pytest.mark.slow
def test_many_schedules_cost_a_pass_no_more_than_their_lists(simulation: ScheduleSimulation) -> None:
    for number in range(30):
        simulation.declare(name=f"nightly-{number}")
    simulation.tick_nights(1, 2)
    assert {run.state for number in range(30) for run in simulation.runs(f"nightly-{number}")} <= ENDED_STATES
    ticker, seen = simulation.ticker(), list[str]()
    ticker.tick()
    store = simulation.root

    class Counting(CrashingStore):
        def head(self, key: str) -> Any:
            seen.append(key)
            return super().head(key)

        def get(self, key: str, *arguments: Any) -> bytes:
            seen.append(key)
            return super().get(key, *arguments)

        def list(self, prefix: str = "") -> Any:
            seen.append(f"list {prefix}")
            return super().list(prefix)

    watched = CrashingService(simulation.pool, Counting(store, 10**9, after=False))
    ticker = simulation.ticker(watched)
    ticker.tick()
    seen.clear()
    ticker.tick()
    assert seen == ["list schedules/declared/", "list schedules/cursors/", "list schedules/live/"]
