"""The ticker through simulated time: every date at most one run, and none skipped unless a policy says so."""

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


def test_a_night(scene: ScheduleSimulation) -> None:
    scene.declare(retention={"last": 3})
    ticker = scene.ticker()
    ticker.tick()
    assert scene.runs() == []
    scene.clock.advance(hours=3, minutes=30)
    ticker.tick()
    assert scene.states() == {"01-01 03:30": "submitted"}
    scene.clock.advance(minutes=10)
    ticker.tick()
    (run,) = scene.runs()
    assert run.state == "promoted"
    assert scene.pool.latest == [run.date]
    assert [chore for _, _, chore in scene.pool.done_chores] == ["retain", "succeeded"]
    ticker.tick()
    assert list(live_markers(scene.root)) == []
    assert len(scene.pool.submissions) == 1


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_year(scene: ScheduleSimulation, zone: str) -> None:
    """Tickers come and go at odd times, never away for longer than the grace; each day has its one run, on its time."""
    rng = Random(zone)
    kept = scene.declare(cron="30 2 * * *", timezone=zone)
    dates = kept.schedule.timetable.upcoming(scene.clock.time, 365)
    ticker = scene.ticker()
    for date in dates:
        for moment in (date - MINUTE, date + rng.random() * 4 * MINUTE, date + 15 * MINUTE):
            scene.clock.time = moment
            ticker = scene.ticker() if rng.random() < 0.3 else ticker
            ticker.tick()
    runs = scene.runs()
    assert [run.date for run in runs] == dates
    assert {run.state for run in runs} == {"promoted"}
    assert all(run.created - run.date < 5 * MINUTE for run in runs)
    assert Counter(scene.pool.submissions).most_common(1)[0][1] == 1
    assert len({run.spec.recipe.seed for run in runs if run.spec}) == 365
    days = [kept.schedule.timetable.to_local(date).date() for date in dates]
    assert days == [days[0] + timedelta(days=day) for day in range(365)]
    assert len({kept.schedule.timetable.to_local(date).utcoffset() for date in dates}) == 2


@pytest.mark.parametrize(
    ("overlap", "states", "stopped"),
    [
        ("skip", ["promoted", "skipped", "skipped", "promoted"], 0),
        ("queue", ["promoted", "promoted", "submitted", "created"], 0),
        ("replace", ["replaced", "replaced", "replaced", "submitted"], 3),
    ],
)
def test_a_run_that_is_longer_than_its_period(
    scene: ScheduleSimulation, overlap: str, states: list[str], stopped: int
) -> None:
    scene.declare(cron="0 * * * *", overlap=overlap)
    scene.pool.build_time = timedelta(minutes=150)
    scene.tick_until(until=datetime(2026, 1, 1, 4, 1, tzinfo=UTC), step=10 * MINUTE)
    if overlap != "queue":
        assert list(scene.states().values()) == [*states[:3], "submitted"]
        assert len(scene.pool.cancelled) == stopped
    scene.tick_until(until=datetime(2026, 1, 1, 6, 41, tzinfo=UTC), step=10 * MINUTE)
    assert len(scene.pool.submitted_at) - len(scene.pool.cancelled) == sum(
        run.state in ("submitted", "promoted") for run in scene.runs()
    )
    if overlap != "replace":
        assert list(scene.states().values())[:4] == states
    going = [run for run in scene.runs() if run.state == "submitted"]
    assert len(going) == (overlap != "skip")


def test_a_gate_that_refuses(scene: ScheduleSimulation) -> None:
    scene.declare(gates={})
    scene.pool.verdict = lambda run: Outcome(run.date.day != 2, "copies: 12% of the images")
    scene.tick_nights(1, 3)
    assert list(scene.states().values()) == ["promoted", "refused", "promoted"]
    assert scene.runs()[1].reason == "copies: 12% of the images"
    assert [date.day for date in scene.pool.latest] == [1, 3]
    assert [chore for _, _, chore in scene.pool.done_chores] == ["succeeded", "refused", "succeeded"]


def test_a_judge_that_falls_ill_is_asked_again(scene: ScheduleSimulation) -> None:
    scene.declare(gates={})
    answers = iter([StoreUnavailable("s3", "an answer", "none"), RuntimeError("a bug"), Outcome(True, "")])

    def judge(run: Run) -> Outcome:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    scene.pool.verdict = judge
    scene.tick_until(until=datetime(2026, 1, 1, 3, 50, tzinfo=UTC), step=10 * MINUTE)
    assert (scene.runs()[0].state, scene.runs()[0].note) == ("committed", "s3: expected an answer, got none")
    scene.tick_until(until=datetime(2026, 1, 1, 4, 30, tzinfo=UTC), step=10 * MINUTE)
    assert scene.states() == {"01-01 03:30": "promoted"}


def test_a_channel_that_moves_while_a_build_runs(scene: ScheduleSimulation, tmp_path: Path) -> None:
    move_channel(scene.root, "cats", scene.digest, by="a test")
    scene.declare(job={"channel": "cats"}, overlap="queue", cron="0 * * * *")
    scene.pool.build_time = timedelta(minutes=100)
    scene.tick_until(until=datetime(2026, 1, 1, 2, 5, tzinfo=UTC), step=5 * MINUTE)
    assert list(scene.states().values()) == ["submitted", "created"]
    other = push(open_store(str(tiny_bundle(tmp_path / "other", seed=1))), scene.root)
    move_channel(scene.root, "cats", other, by="a test")
    scene.tick_until(until=datetime(2026, 1, 1, 7, tzinfo=UTC), step=5 * MINUTE)
    bundles = [run.spec.recipe.bundle for run in scene.runs()[:3] if run.spec]
    assert bundles == [scene.digest, scene.digest, other]
    assert [spec.recipe.bundle for spec in scene.pool.specs.values()][:3] == bundles
    assert [run.channel for run in scene.runs()[:3]] == ["cats"] * 3


def test_a_job_that_cannot_be_is_a_run_that_failed(scene: ScheduleSimulation) -> None:
    scene.declare(job={"counts": {"horse": 3}, "count": None})
    scene.tick_until(until=datetime(2026, 1, 1, 4, tzinfo=UTC), step=10 * MINUTE)
    (run,) = scene.runs()
    assert (run.state, run.spec) == ("failed", None)
    assert "counts.horse" in run.reason
    assert [chore for _, _, chore in scene.pool.done_chores] == ["failed"]
    assert list(live_markers(scene.root)) == []


def test_trouble_with_one_schedule_is_not_that_of_the_others(
    scene: ScheduleSimulation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a-damaged", "b-odd", "c-good"):
        scene.declare(name=name)
    scene.root.put("schedules/declared/a-damaged.json", b"{}")
    pinning = scene.pool.resolve_job

    def pin(schedule: Schedule, date: datetime) -> ResolvedJob:
        if schedule.name == "b-odd":
            raise RuntimeError("a bug")
        return pinning(schedule, date)

    monkeypatch.setattr(scene.pool, "resolve_job", pin)
    scene.tick_nights(1, 1)
    assert (scene.states("b-odd"), scene.states("c-good")) == ({}, {"01-01 03:30": "promoted"})
    assert caplog.text.count("b-odd: unexpected") == 1
    assert caplog.text.count("a-damaged: schedules/declared/a-damaged.json") == 1
    monkeypatch.undo()
    scene.tick_nights(1, 1)
    assert scene.states("b-odd") == {"01-01 03:30": "promoted"}


def test_paused_and_resumed(scene: ScheduleSimulation) -> None:
    scene.declare()
    update_stored(scene.root, "nightly", lambda kept: kept and kept.model_copy(update={"held": True}))
    scene.tick_until(until=datetime(2026, 1, 3, tzinfo=UTC), step=30 * MINUTE)
    assert [(run.state, run.why) for run in scene.runs()] == [("skipped", "paused")] * 2
    update_stored(scene.root, "nightly", lambda kept: kept and kept.model_copy(update={"held": False}))
    scene.tick_until(until=datetime(2026, 1, 4, tzinfo=UTC), step=30 * MINUTE)
    assert list(scene.states().values()) == ["skipped", "skipped", "promoted"]


def test_a_schedule_that_was_removed_lets_its_run_end(scene: ScheduleSimulation) -> None:
    scene.declare()
    scene.tick_until(until=datetime(2026, 1, 1, 3, 35, tzinfo=UTC), step=5 * MINUTE)
    remove_schedule(scene.root, "nightly")
    scene.tick_until(until=datetime(2026, 1, 3, tzinfo=UTC), step=30 * MINUTE)
    assert scene.states() == {"01-01 03:30": "promoted"}


def test_start_and_end(scene: ScheduleSimulation) -> None:
    scene.declare(start="2026-01-02T03:30", end="2026-01-03T03:30")
    scene.tick_until(until=datetime(2026, 1, 6, tzinfo=UTC), step=30 * MINUTE)
    assert list(scene.states()) == ["01-02 03:30", "01-03 03:30"]


def test_a_deadline_is_at_risk_once(scene: ScheduleSimulation) -> None:
    scene.declare(deadline="1h")
    scene.pool.build_time = timedelta(hours=3)
    for _ in range(90):  # a new ticker each time
        scene.ticker().tick()
        scene.clock.advance(minutes=5)
    (run,) = scene.runs()
    assert run.state == "promoted"
    assert "at this pace it ends at 2026-01-01 06:3" in run.at_risk
    assert [chore for _, _, chore in scene.pool.done_chores] == ["at_risk", "succeeded"]


def test_a_run_in_time_worries_nobody(scene: ScheduleSimulation) -> None:
    scene.declare(deadline="1h")
    scene.pool.build_time = timedelta(minutes=50)
    scene.clock.advance(hours=3)
    scene.tick_until(until=datetime(2026, 1, 1, 5, tzinfo=UTC), step=2 * MINUTE)
    assert scene.runs()[0].at_risk == ""
    assert scene.states() == {"01-01 03:30": "promoted"}


def test_many_schedules_cost_a_pass_no_more_than_their_lists(scene: ScheduleSimulation) -> None:
    for number in range(30):
        scene.declare(name=f"nightly-{number}")
    scene.tick_nights(1, 2)
    assert {run.state for number in range(30) for run in scene.runs(f"nightly-{number}")} <= ENDED_STATES
    ticker, seen = scene.ticker(), list[str]()
    ticker.tick()
    store = scene.root

    class Counting(CrashingStore):
        def head(self, key: str) -> Any:
            seen.append(key)
            return super().head(key)

        def get(self, key: str, *words: Any) -> bytes:
            seen.append(key)
            return super().get(key, *words)

        def list(self, prefix: str = "") -> Any:
            seen.append(f"list {prefix}")
            return super().list(prefix)

    watched = CrashingService(scene.pool, Counting(store, 10**9, after=False))
    ticker = scene.ticker(watched)
    ticker.tick()
    seen.clear()
    ticker.tick()
    assert seen == ["list schedules/declared/", "list schedules/cursors/", "list schedules/live/"]
