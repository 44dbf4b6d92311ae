"""Runs that a person asks for: one date, or every date of a span that has no dataset yet."""

from __future__ import annotations

import re
from datetime import date as calendar_date
from datetime import datetime, timedelta
from typing import NamedTuple

from generator.errors import SpecError
from generator.spec.canonical import short_repr
from workers.schedules.dates import check_moment
from workers.schedules.new_run import ResolvedJob, new_run
from workers.schedules.runs import Origin, Run, create_run, read_run, restart_run, run_dates
from workers.schedules.schedule import Schedule
from workers.schedules.service import Service
from workers.schedules.store import StoredSchedule

MAX_BACKFILL_DATES = 100_000  # dates of one backfill
_SECOND = timedelta(seconds=1)
_RETRYABLE_STATES = frozenset({"skipped", "failed", "cancelled", "replaced"})  # what a backfill takes up
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class BackfillDate(NamedTuple):
    """A date of a backfill, and the run that it has."""

    date: datetime
    run: Run | None

    @property
    def needs_run(self) -> bool:
        return self.run is None or self.run.state in _RETRYABLE_STATES


def parse_date(schedule: Schedule, text: str | None, now: datetime) -> datetime:
    """The logical date that a user means: now, a moment, or the only date on a day. Raises ``SpecError``."""
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
    """From ``first`` to ``last``, which are days (whole ones, of the schedule's zone) or moments. ``SpecError``."""
    begin = _parse_moment(schedule, first, "from")
    end = _parse_moment(schedule, last, "to")
    if _DAY.fullmatch(last):
        next_day = datetime.combine(calendar_date.fromisoformat(last) + timedelta(days=1), datetime.min.time())
        end = schedule.timetable.to_utc(next_day) - _SECOND
    if end < begin:
        raise SpecError("to", f"a moment after {first}", short_repr(last))
    return begin, end


def plan_backfill(hands: Service, schedule: Schedule, first: datetime, last: datetime) -> list[BackfillDate]:
    """Every date from ``first`` to ``last``, and its run. Raises ``SpecError`` for very many or none."""
    dates = []
    for date in schedule.timetable.between(first - _SECOND, last):
        dates.append(date)
        if len(dates) > MAX_BACKFILL_DATES:
            raise SpecError(
                "to", f"a span of at most {MAX_BACKFILL_DATES:,} dates", f"more of them up to {last:%Y-%m-%d %H:%M} UTC"
            )
    if not dates:
        raise SpecError("from", "a span with a date of the schedule", f"none from {first.isoformat()} on")
    there = set(run_dates(hands.root, schedule.name))
    return [BackfillDate(date, read_run(hands.root, schedule.name, date) if date in there else None) for date in dates]


def check_not_future(date: datetime, now: datetime, field: str = "date") -> None:
    """Raises ``SpecError`` for a date to come: built now, ``latest`` would stand there until then."""
    if date > now:
        raise SpecError(field, "a date that has come", f"{date:%Y-%m-%dT%H:%MZ}")


def start_run(
    hands: Service, kept: StoredSchedule, date: datetime, now: datetime, origin: Origin, *, fresh: bool = False
) -> Run:
    """Make the run of ``date``, or take an ended one up again; as it is then.

    What was pinned before stays so, but for gates and what follows; with ``fresh`` the job is pinned anew. Raises
    ``InputError`` before anything is written: for what cannot be built, for a date to come, and for a run that is
    going on or promoted.
    """
    check_not_future(date, now)
    schedule, there = kept.schedule, read_run(hands.root, kept.schedule.name, date)
    if there is not None and (not there.has_ended or there.state == "promoted"):
        got = f"one that is {there.state} for {date:%Y-%m-%dT%H:%MZ}"
        hint = "" if there.has_ended else "latentmill cancel stops its job"
        raise SpecError("run", "a date whose run has ended without a promoted build", got, hint)
    if there is not None and there.spec is not None and not fresh:
        pinned = ResolvedJob(there.spec, hands.root, there.channel)
    else:
        pinned = hands.resolve_job(schedule, date)
    run = new_run(schedule, date, now, origin, pinned, hands.job_state(pinned.spec).submitted)
    if there is not None:
        run = run.model_copy(update={"take": there.take + 1})
    if create_run(hands.root, run) if there is None else restart_run(hands.root, there, run):
        return run
    raise SpecError("run", "a date that nobody else begins now", f"{date:%Y-%m-%dT%H:%MZ}", "look at its history")


def _parse_moment(schedule: Schedule, text: str, field: str) -> datetime:
    try:
        found = check_moment(datetime.fromisoformat(text), field)
    except ValueError as wrong:
        raise SpecError(field, "a day (2026-03-01) or a moment (2026-03-01T03:30)", short_repr(text)) from wrong
    found = found.replace(microsecond=0)
    return (
        found.astimezone(schedule.timetable.to_local(found).tzinfo)
        if found.tzinfo
        else schedule.timetable.to_utc(found)
    )
