"""Manual runs: one date, or a backfill of every date in a time span that has no dataset yet."""

from __future__ import annotations

import re
from datetime import date as calendar_date
from datetime import datetime, timedelta
from typing import NamedTuple

from generator.errors import SpecError
from generator.spec.canonical import short_repr
from workers.schedules.cron import check_moment
from workers.schedules.new_run import ResolvedJob, new_run
from workers.schedules.runs import Origin, Run, create_run, read_run, restart_run, run_dates
from workers.schedules.schedule import Schedule
from workers.schedules.service import Service
from workers.schedules.store import StoredSchedule

MAX_BACKFILL_DATES = 100_000  # in one backfill
_SECOND = timedelta(seconds=1)
_RETRYABLE_STATES = frozenset({"skipped", "failed", "cancelled", "replaced"})  # a backfill restarts these
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class BackfillDate(NamedTuple):
    """A date of a backfill, and its existing run."""

    date: datetime
    run: Run | None

    @property
    def needs_run(self) -> bool:
        return self.run is None or self.run.state in _RETRYABLE_STATES


def parse_date(schedule: Schedule, text: str | None, now: datetime) -> datetime:
    """The logical date named by ``text``: a moment, or a day with one date; ``None`` is now. Raises ``SpecError``."""
    if text is None:
        return now.replace(microsecond=0)
    if not _DAY.fullmatch(text):
        return _parse_moment(schedule, text, "date")
    first, last = parse_span(schedule, text, text)
    found = list(schedule.timetable.between(first - _SECOND, last))
    if len(found) == 1:
        return found[0]
    times = ", ".join(f"{schedule.timetable.to_local(date):%Y-%m-%dT%H:%M}" for date in found[:5])
    got = f"{len(found)} on {text}" + (f": {times}" if found else "")
    raise SpecError("date", "a day with one date of the schedule, or a day and a time", got)


def parse_span(schedule: Schedule, first: str, last: str) -> tuple[datetime, datetime]:
    """The time span from ``first`` to ``last``: days (both included, local) or moments. Raises ``SpecError``."""
    start = _parse_moment(schedule, first, "from")
    end = _parse_moment(schedule, last, "to")
    if _DAY.fullmatch(last):
        next_day = datetime.combine(calendar_date.fromisoformat(last) + timedelta(days=1), datetime.min.time())
        end = schedule.timetable.to_utc(next_day) - _SECOND
    if end < start:
        raise SpecError("to", f"a moment after {first}", short_repr(last))
    return start, end


def plan_backfill(service: Service, schedule: Schedule, first: datetime, last: datetime) -> list[BackfillDate]:
    """Every date from ``first`` to ``last``, and its run. Raises ``SpecError`` for none or too many."""
    dates = []
    for date in schedule.timetable.between(first - _SECOND, last):
        dates.append(date)
        if len(dates) > MAX_BACKFILL_DATES:
            raise SpecError(
                "to", f"a span of at most {MAX_BACKFILL_DATES:,} dates", f"more dates up to {last:%Y-%m-%d %H:%M} UTC"
            )
    if not dates:
        raise SpecError(
            "from", "a span with a date of the schedule", f"none from {first.isoformat()} to {last.isoformat()}"
        )
    with_run = set(run_dates(service.root, schedule.name))
    return [
        BackfillDate(date, read_run(service.root, schedule.name, date) if date in with_run else None) for date in dates
    ]


def check_not_future(date: datetime, now: datetime, field: str = "date") -> None:
    """Raises ``SpecError`` for a date in the future: its build would block the promotion of all dates before it."""
    if date > now:
        raise SpecError(field, "a date that is not in the future", f"{date:%Y-%m-%dT%H:%MZ}")


def start_run(
    service: Service, stored: StoredSchedule, date: datetime, now: datetime, origin: Origin, *, fresh: bool = False
) -> Run:
    """Create the run of ``date``, or restart an ended one; returns the stored run.

    A restarted run keeps its resolved job, and takes gates and all later settings from the schedule; ``fresh`` resolves
    the job again. Raises ``InputError`` before anything is written: for a job that cannot be built, a date in the
    future, and a run that is unfinished or promoted.
    """
    check_not_future(date, now)
    schedule, existing = stored.schedule, read_run(service.root, stored.schedule.name, date)
    if existing is not None and (not existing.has_ended or existing.state == "promoted"):
        got = f"one that is {existing.state} for {date:%Y-%m-%dT%H:%MZ}"
        hint = "" if existing.has_ended else "latentmill cancel stops its job"
        raise SpecError("run", "a date whose run has ended without a promoted build", got, hint)
    is_own = existing is not None and existing.tenant == schedule.tenant  # not of a removed schedule of this name
    if existing is not None and existing.spec is not None and is_own and not fresh:
        job = ResolvedJob(existing.spec, service.root, existing.channel)
    else:
        job = service.resolve_job(schedule, date)
    run = new_run(schedule, date, now, origin, job, service.job_state(job.spec).submitted)
    if existing is not None:
        started = restart_run(service.root, existing, run)
    else:
        started = run if create_run(service.root, run) else None
    if started is not None:
        return started
    raise SpecError("run", "a date that nobody else is starting now", f"{date:%Y-%m-%dT%H:%MZ}", "look at its history")


def _parse_moment(schedule: Schedule, text: str, field: str) -> datetime:
    try:
        found = check_moment(datetime.fromisoformat(text), field)
    except ValueError as error:
        raise SpecError(field, "a day (2026-03-01) or a moment (2026-03-01T03:30)", short_repr(text)) from error
    found = found.replace(microsecond=0)
    return (
        found.astimezone(schedule.timetable.to_local(found).tzinfo)
        if found.tzinfo
        else schedule.timetable.to_utc(found)
    )
