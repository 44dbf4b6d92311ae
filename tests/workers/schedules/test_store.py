"""Schedules and runs in each of the three stores: one run per date under concurrent writes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from generator.errors import SpecError
from generator.store import Store
from workers.schedules.clock import CLOCK_KEY, SystemClock
from workers.schedules.runs import (
    MAX_EARLIER,
    Run,
    RunMarker,
    create_run,
    live_markers,
    read_run,
    remove_marker,
    restart_run,
    run_dates,
    update_run,
)
from workers.schedules.schedule import Schedule
from workers.schedules.store import (
    StoredSchedule,
    move_cursor,
    read_cursor,
    read_stored,
    remove_schedule,
    require_stored,
    schedule_names,
    update_stored,
)

NOW = datetime(2026, 1, 1, 3, 30, tzinfo=UTC)
JOB = {"bundle": "sha256:" + "0" * 64, "count": 3, "destination": "out"}


def a_run(**fields: object) -> Run:
    return Run(**({"schedule": "nightly", "date": NOW, "state": "created", "created": NOW} | fields))  # type: ignore[arg-type]


def at_once(work: Callable[[int], object]) -> list[object]:
    """The results of eight threads that call ``work`` at the same time."""
    barrier, found = threading.Barrier(8), list[object]()

    def do(number: int) -> None:
        barrier.wait(30)
        found.append(work(number))

    threads = [threading.Thread(target=do, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_date_has_one_run(store: Store) -> None:
    found = at_once(lambda number: create_run(store, a_run(note=f"by {number}")))
    assert sorted(map(str, found)) == ["False"] * 7 + ["True"]
    assert list(run_dates(store, "nightly")) == [NOW]
    assert [marker for marker, _ in live_markers(store)] == [RunMarker("nightly", NOW, 1)]
    remove_marker(store, RunMarker("nightly", NOW, 1))
    assert list(live_markers(store)) == []


def test_a_run_moves_on_once_and_no_change_is_lost(store: Store) -> None:
    create_run(store, a_run())

    def on(number: int) -> bool:
        update = a_run(state="submitted", note=f"by {number}")
        return update_run(store, "nightly", NOW, lambda run: update if run.state == "created" else None) == update

    assert sorted(map(str, at_once(on))) == ["False"] * 7 + ["True"]
    at_once(
        lambda number: update_run(
            store, "nightly", NOW, lambda run: run.model_copy(update={"reason": f"{run.reason}{number}"})
        )
    )
    run = read_run(store, "nightly", NOW)
    assert run is not None
    assert (run.state, sorted(run.reason)) == ("submitted", list("01234567"))


def test_of_two_who_take_up_a_run_one_does(store: Store) -> None:
    failed = a_run(state="failed")
    create_run(store, failed)
    fresh = [a_run(note=f"by {number}") for number in range(8)]
    started = at_once(lambda number: restart_run(store, failed, fresh[number]))
    assert [each for each in started if each is not None] == [read_run(store, "nightly", NOW)]
    assert {marker.take for marker, _ in live_markers(store)} == {1, 2} or {
        marker.take for marker, _ in live_markers(store)
    } == {2}


def test_a_run_remembers_what_came_of_its_earlier_takes(store: Store) -> None:
    run: Run | None = a_run(state="refused", reason="take 1", ended=NOW)
    assert run is not None
    assert b"earlier" not in run.canonical()  # as earlier releases wrote it, and read it
    create_run(store, run)
    for number in range(2, MAX_EARLIER + 4):
        assert run is not None
        run = restart_run(store, run, a_run(state="failed", reason=f"take {number}", ended=NOW))
    found = read_run(store, "nightly", NOW)
    assert found == run
    assert found is not None
    assert found.take == MAX_EARLIER + 3
    assert [take.reason for take in found.earlier] == [f"take {number}" for number in range(3, MAX_EARLIER + 3)]
    assert [take.take for take in found.earlier] == list(range(3, MAX_EARLIER + 3))


def test_what_another_tenant_ran_under_the_name_is_not_remembered(store: Store) -> None:
    theirs = a_run(state="failed", without_job="red", reason="no channel red-secret")
    create_run(store, theirs)
    ours = restart_run(store, theirs, a_run(state="failed", without_job="blue"))
    assert ours is not None
    assert (ours.take, ours.earlier) == (2, ())


def test_a_skipped_run_leaves_no_mark(store: Store) -> None:
    assert create_run(store, a_run(state="skipped", why="missed", until=NOW + timedelta(days=3)))
    assert list(live_markers(store)) == []
    assert read_run(store, "nightly", NOW + timedelta(days=1)) is None


def test_what_is_no_run_is_named(store: Store) -> None:
    store.put("schedules/runs/nightly/20260101T033000Z.json", b"{}")
    with pytest.raises(SpecError, match=r"schedules/runs/nightly/20260101T033000Z.json"):
        read_run(store, "nightly", NOW)
    store.put("schedules/runs/nightly/20260102T033000Z.json", a_run().canonical())
    with pytest.raises(SpecError, match="expected the run of nightly"):
        read_run(store, "nightly", NOW + timedelta(days=1))


def test_schedules_and_cursors(store: Store) -> None:
    schedule = Schedule(name="nightly", cron="30 3 * * *", job=JOB)
    stored = StoredSchedule(schedule=schedule, source=str(JOB["bundle"]), since=NOW, added=NOW)
    assert read_stored(store, "nightly") is None
    update_stored(store, "nightly", lambda _: stored)
    assert (require_stored(store, "nightly"), list(schedule_names(store))) == (stored, ["nightly"])
    assert read_cursor(store, "nightly") is None
    later = NOW + timedelta(days=1)
    move_cursor(store, "nightly", None, NOW)
    move_cursor(store, "nightly", None, later)  # a ticker that has not seen the first move
    assert read_cursor(store, "nightly") == NOW
    move_cursor(store, "nightly", NOW, later)
    assert read_cursor(store, "nightly") == later
    remove_schedule(store, "nightly")
    assert (read_stored(store, "nightly"), read_cursor(store, "nightly")) == (None, None)
    for name in ("nightly", "a/b", "../x", ""):
        with pytest.raises(SpecError, match="schedule: expected"):
            require_stored(store, name)


def test_the_clock_of_the_store_is_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    assert clock.skew_warning(store) == ""
    assert store.head(CLOCK_KEY) is not None
    for hours, direction in ((30, "ahead of"), (-30, "behind")):
        wrong = datetime.now(UTC) + timedelta(hours=hours)
        monkeypatch.setattr(SystemClock, "now", lambda _, wrong=wrong: wrong)
        assert f"s {direction} that of the store" in clock.skew_warning(store)
