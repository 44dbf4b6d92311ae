"""Runs by hand and backfills, beside the nights of a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from generator.models.bundle import push
from generator.models.bundle.channels import move_channel
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.simulated_schedules import ScheduleSimulation
from workers.schedules.manual_runs import parse_date, parse_span, plan_backfill, start_run
from workers.schedules.runs import Run
from workers.schedules.service import Service

MINUTE = timedelta(minutes=1)


def by_hand(scene: ScheduleSimulation, hands: Service, text: str | None = None, **words: Any) -> Run:
    from workers.schedules.store import require_stored

    kept = require_stored(scene.root, "nightly")
    return start_run(hands, kept, parse_date(kept.schedule, text, scene.clock.time), scene.clock.time, "hand", **words)


def test_a_run_by_hand_waits_for_nobody_and_moves_latest_only_forward(scene: ScheduleSimulation) -> None:
    from generator.errors import SpecError

    scene.declare(cron="30 3 * * *", timezone="Europe/Berlin")
    scene.clock.advance(days=1)
    scene.tick_until(until=datetime(2026, 1, 3, 2, 39, tzinfo=UTC), step=30 * MINUTE)
    assert list(scene.states().values()) == ["promoted", "promoted", "submitted"]
    run = by_hand(scene, scene.pool, "2025-12-24")
    assert (run.state, run.date) == ("created", datetime(2025, 12, 24, 2, 30, tzinfo=UTC))
    with pytest.raises(SpecError, match="one that is created"):
        by_hand(scene, scene.pool, "2025-12-24")
    scene.finish_runs()
    assert scene.runs()[0].state == "kept"
    assert "later date" in scene.runs()[0].reason
    assert scene.pool.latest == sorted(scene.pool.latest)
    with pytest.raises(SpecError, match="one that is promoted"):
        by_hand(scene, scene.pool, "2026-01-02")
    wrong = {"2026-13-01": "a day", "soon": "a day", "2026-01-02T99:00": "a day", "2026-01-04": "a date that has come"}
    for text, told in (wrong | {"0001-01-01": "a year", "9999-12-31": "a year"}).items():
        with pytest.raises(SpecError, match=told):
            by_hand(scene, scene.pool, text)
    assert len(scene.runs()) == 4


def test_a_failed_run_is_taken_up_with_what_was_pinned_or_anew(scene: ScheduleSimulation, tmp_path: Path) -> None:
    move_channel(scene.root, "cats", scene.digest, by="a test")
    scene.declare(job={"channel": "cats"})
    scene.tick_until(until=datetime(2026, 1, 1, 3, 35, tzinfo=UTC), step=5 * MINUTE)
    (run,) = scene.runs()
    assert run.spec is not None
    scene.pool.cancel(run.spec.job_id)
    scene.ticker().tick()
    assert scene.states() == {"01-01 03:30": "cancelled"}
    other = push(open_store(str(tiny_bundle(tmp_path / "other", seed=1))), scene.root)
    move_channel(scene.root, "cats", other, by="a test")
    again = by_hand(scene, scene.pool, "2026-01-01")
    assert again.spec == run.spec
    assert again.take == 2
    scene.pool.build_time = timedelta(hours=9)
    scene.finish_runs()
    assert scene.states() == {"01-01 03:30": "submitted"}
    assert scene.pool.submissions == [run.spec.job_id] * 2
    scene.pool.cancel(run.spec.job_id)
    scene.finish_runs()
    fresh = by_hand(scene, scene.pool, "2026-01-01", fresh=True)
    assert fresh.spec is not None
    assert (fresh.spec.recipe.bundle, fresh.take) == (other, 3)


def test_a_backfill_goes_one_by_one_beside_the_nights(scene: ScheduleSimulation) -> None:
    from workers.schedules.store import require_stored

    scene.declare(overlap="skip")
    scene.tick_until(until=datetime(2026, 1, 2, 12, tzinfo=UTC), step=30 * MINUTE)
    kept = require_stored(scene.root, "nightly")
    plan = plan_backfill(scene.pool, kept.schedule, *parse_span(kept.schedule, "2025-12-29", "2026-01-02"))
    assert [each.needs_run for each in plan] == [True, True, True, False, False]
    scene.pool.build_time = timedelta(hours=8)
    for each in plan[:3]:
        start_run(scene.pool, kept, each.date, scene.clock.time, "backfill")
    most, ticker = 0, scene.ticker()
    while scene.clock.time < datetime(2026, 1, 4, tzinfo=UTC):
        ticker.tick()
        most = max(most, sum(run.state == "submitted" for run in scene.runs() if run.origin == "backfill"))
        scene.clock.advance(minutes=20)
    assert most == 1
    states = scene.states()
    assert {date: states[date] for date in states if date.startswith("12")} == {
        "12-29 03:30": "kept", "12-30 03:30": "kept", "12-31 03:30": "kept",
    }  # fmt: skip
    assert states["01-03 03:30"] == "promoted"  # not skipped because of the backfill
    assert scene.pool.latest[-1] == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)
