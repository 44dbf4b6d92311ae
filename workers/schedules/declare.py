"""Stores schedules: checks one against its bundle and its next dates, makes it self-contained, writes it."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from generator.curation.gates import Gates
from generator.errors import SpecError
from generator.models.bundle import push
from generator.spec.recipe import Digest
from generator.store.base import Store
from workers.jobs.pool import Pool
from workers.notifications import check_hosts
from workers.schedules.new_run import ResolvedJob, resolve_job
from workers.schedules.schedule import Schedule
from workers.schedules.store import StoredSchedule, read_stored, update_stored
from workers.settings import Settings

_CHECKED_DATES = 3
_SECOND = timedelta(seconds=1)
_SPECIAL_SOURCES = ("digits", "test")  # names of sources that are not paths: the bundled one, a split


def check_schedule(
    schedule: Schedule, root: Store, settings: Settings, now: datetime, *, workers: Pool | None = None
) -> list[ResolvedJob]:
    """The jobs of the next dates of ``schedule``, resolved as of now. Writes nothing. ``workers``: see ``resolve_job``.

    Raises ``InputError`` for anything that would fail at those dates, and for a schedule without a future date.
    """
    check_hosts(schedule.notifications, settings)
    dates = schedule.upcoming(now, _CHECKED_DATES)
    if not dates:
        raise SpecError(
            "end",
            "an end with a date of the schedule before it",
            f"{schedule.end}, before the next date of {schedule.cron}",
        )
    return [resolve_job(schedule, date, root, settings, workers) for date in dates]


def declare(
    schedule: Schedule,
    source: Digest,
    root: Store,
    settings: Settings,
    now: datetime,
    *,
    replace: bool = False,
    workers: Pool | None = None,
) -> StoredSchedule:
    """Store ``schedule``, which was read from a file with digest ``source``. Idempotent.

    A bundle outside the root is pushed to it first, and paths become absolute. A stored schedule of the same name with
    other content is overwritten only with ``replace``. ``workers``: see ``resolve_job``. Raises ``InputError`` and
    ``WorkerUnavailable`` before anything is written.
    """
    jobs = check_schedule(schedule, root, settings, now, workers=workers)
    _check_name_free(read_stored(root, schedule.name), source, replace)
    whole = _make_self_contained(schedule, jobs[0], root)

    def change(stored: StoredSchedule | None) -> StoredSchedule | None:
        _check_name_free(stored, source, replace)
        if stored is not None and stored.source == source:
            return None
        since, held = _counts_from(whole, stored, now), stored is not None and stored.held
        return StoredSchedule(schedule=whole, source=source, since=since, added=now, held=held)

    result = update_stored(root, schedule.name, change)
    assert result is not None
    return result


def _check_name_free(stored: StoredSchedule | None, source: Digest, replace: bool) -> None:
    if stored is None or replace or stored.source == source:
        return
    expected = "a name that no other schedule has"
    got = f"{stored.schedule.name}, added {stored.added:%Y-%m-%d %H:%M} UTC with other content"
    raise SpecError("name", expected, got, "choose another name, or use --replace")


def _counts_from(schedule: Schedule, stored: StoredSchedule | None, now: datetime) -> datetime:
    """The time after which dates are run: ``start`` or now; now if the timetable of a stored schedule has changed."""
    start = schedule.start_utc
    if stored is None:
        return now if start is None else start - _SECOND
    previous = stored.schedule
    same = (previous.cron, previous.timezone, previous.start_utc) == (schedule.cron, schedule.timezone, start)
    return stored.since if same else now


def _make_self_contained(schedule: Schedule, job: ResolvedJob, root: Store) -> Schedule:
    """``schedule`` with a bundle digest and absolute paths, so that every ticker reads it the same way."""
    job_fields = dict(schedule.job)
    bundle = job_fields.get("bundle")
    if isinstance(bundle, str) and "{" not in bundle:
        if not bundle.startswith("sha256:"):
            push(job.bundle, root)
        job_fields["bundle"] = job.spec.recipe.bundle
    elif isinstance(bundle, str):
        job_fields["bundle"] = absolute_location(bundle)
    job_fields["destination"] = absolute_location(str(job_fields["destination"]))
    return schedule.model_copy(update={"job": job_fields, "gates": _with_absolute_references(schedule.gates)})


def _with_absolute_references(gates: Gates | None) -> Gates | None:
    """``gates`` with absolute paths of their sources of real images."""
    if gates is None or gates.reference is None:
        return gates
    update = {name: absolute_location(location) for name, location in reference_sources(gates).items()}
    return gates.model_copy(update={"reference": gates.reference.model_copy(update=update)})


def reference_sources(gates: Gates | None) -> dict[str, str]:
    """The reference's fields that name a path or URL, with their values."""
    if gates is None or gates.reference is None:
        return {}
    fields = {"source": gates.reference.source, "test": gates.reference.test}
    return {
        name: location for name, location in fields.items() if location is not None and location not in _SPECIAL_SOURCES
    }


def absolute_location(location: str) -> str:
    """The absolute form of a path, which may contain templates; a URL or digest as it is."""
    if "://" in location or location.startswith("sha256:"):
        return location
    return os.path.abspath(Path(location).expanduser())  # noqa: PTH100
