"""Manual runs and backfills, in addition to the scheduled runs."""

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


def run_by_hand(simulation: ScheduleSimulation, service: Service, text: str | None = None, **options: Any) -> Run:
    from workers.schedules.store import require_stored

    stored = require_stored(simulation.root, "nightly")
    return start_run(
        service,
        stored,
        parse_date(stored.schedule, text, simulation.clock.time),
        simulation.clock.time,
        "hand",
        **options,
    )


def test_a_run_by_hand_waits_for_nobody_and_moves_latest_only_forward(simulation: ScheduleSimulation) -> None:
    from generator.errors import SpecError

    simulation.declare(cron="30 3 * * *", timezone="Europe/Berlin")
    simulation.clock.advance(days=1)
    simulation.tick_until(until=datetime(2026, 1, 3, 2, 39, tzinfo=UTC), step=30 * MINUTE)
    assert list(simulation.states().values()) == ["promoted", "promoted", "submitted"]
    run = run_by_hand(simulation, simulation.pool, "2025-12-24")
    assert (run.state, run.date) == ("created", datetime(2025, 12, 24, 2, 30, tzinfo=UTC))
    with pytest.raises(SpecError, match="one that is created"):
        run_by_hand(simulation, simulation.pool, "2025-12-24")
    simulation.finish_runs()
    assert simulation.runs()[0].state == "kept"
    assert "later date" in simulation.runs()[0].reason
    assert simulation.pool.latest == sorted(simulation.pool.latest)
    with pytest.raises(SpecError, match="one that is promoted"):
        run_by_hand(simulation, simulation.pool, "2026-01-02")
    wrong = {
        "2026-13-01": "a day",
        "soon": "a day",
        "2026-01-02T99:00": "a day",
        "2026-01-04": "a date that is not in the future",
    }
    for text, message in (wrong | {"0001-01-01": "a year", "9999-12-31": "a year"}).items():
        with pytest.raises(SpecError, match=message):
            run_by_hand(simulation, simulation.pool, text)
    assert len(simulation.runs()) == 4


def test_a_failed_run_is_taken_up_with_what_was_pinned_or_anew(simulation: ScheduleSimulation, tmp_path: Path) -> None:
    move_channel(simulation.root, "cats", simulation.digest, by="a test")
    simulation.declare(job={"channel": "cats"})
    simulation.tick_until(until=datetime(2026, 1, 1, 3, 35, tzinfo=UTC), step=5 * MINUTE)
    (run,) = simulation.runs()
    assert run.spec is not None
    simulation.pool.cancel(run.spec.job_id)
    simulation.ticker().tick()
    assert simulation.states() == {"01-01 03:30": "cancelled"}
    other = push(open_store(str(tiny_bundle(tmp_path / "other", seed=1))), simulation.root)
    move_channel(simulation.root, "cats", other, by="a test")
    again = run_by_hand(simulation, simulation.pool, "2026-01-01")
    assert again.spec == run.spec
    assert again.take == 2
    simulation.pool.build_time = timedelta(hours=9)
    simulation.finish_runs()
    assert simulation.states() == {"01-01 03:30": "submitted"}
    assert simulation.pool.submissions == [run.spec.job_id] * 2
    simulation.pool.cancel(run.spec.job_id)
    simulation.finish_runs()
    fresh = run_by_hand(simulation, simulation.pool, "2026-01-01", fresh=True)
    assert fresh.spec is not None
    assert (fresh.spec.recipe.bundle, fresh.take) == (other, 3)


def test_a_backfill_goes_one_by_one_beside_the_nights(simulation: ScheduleSimulation) -> None:
    from workers.schedules.store import require_stored

    simulation.declare(overlap="skip")
    simulation.tick_until(until=datetime(2026, 1, 2, 12, tzinfo=UTC), step=30 * MINUTE)
    stored = require_stored(simulation.root, "nightly")
    plan = plan_backfill(simulation.pool, stored.schedule, *parse_span(stored.schedule, "2025-12-29", "2026-01-02"))
    assert [each.needs_run for each in plan] == [True, True, True, False, False]
    simulation.pool.build_time = timedelta(hours=8)
    for each in plan[:3]:
        start_run(simulation.pool, stored, each.date, simulation.clock.time, "backfill")
    at_once, ticker = 0, simulation.ticker()
    while simulation.clock.time < datetime(2026, 1, 4, tzinfo=UTC):
        ticker.tick()
        at_once = max(at_once, sum(run.state == "submitted" for run in simulation.runs() if run.origin == "backfill"))
        simulation.clock.advance(minutes=20)
    assert at_once == 1
    states = simulation.states()
    assert {date: states[date] for date in states if date.startswith("12")} == {
        "12-29 03:30": "kept", "12-30 03:30": "kept", "12-31 03:30": "kept",
    }  # fmt: skip
    assert states["01-03 03:30"] == "promoted"  # not skipped because of the backfill
    assert simulation.pool.latest[-1] == datetime(2026, 1, 3, 3, 30, tzinfo=UTC)
