"""Runs that a person asks for: one date, or every date of a span that has no dataset yet."""

from __future__ import annotations

import re
from datetime import date as calendar_date
from datetime import datetime, timedelta
from typing import NamedTuple

from generator.errors import SpecError
from generator.spec.canonical import shown
from workers.schedules.dates import checked
from workers.schedules.new_run import Pinned, new_run
from workers.schedules.runs import Origin, Run, create_run, dates_of, read_run, take_up
from workers.schedules.schedule import Schedule
from workers.schedules.service import Hands
from workers.schedules.store import Kept

MOST = 100_000  # dates of one backfill
_SECOND = timedelta(seconds=1)
_AGAIN = frozenset({"skipped", "failed", "cancelled", "replaced"})  # what a backfill takes up
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class Planned(NamedTuple):
    """A date of a backfill, and the run that it has."""

    date: datetime
    there: Run | None

    @property
    def wanted(self) -> bool:
        return self.there is None or self.there.state in _AGAIN


def date_of(schedule: Schedule, text: str | None, now: datetime) -> datetime:
    """The logical date that a user means: now, a moment, or the only date on a day. Raises ``SpecError``."""
    if text is None:
        return now.replace(microsecond=0)
    if not _DAY.fullmatch(text):
        return _moment(schedule, text, "date")
    first, last = span_of(schedule, text, text)
    found = list(schedule.times.between(first - _SECOND, last))
    if len(found) == 1:
        return found[0]
    times = ", ".join(f"{schedule.times.local(date):%Y-%m-%dT%H:%M}" for date in found[:5])
    got = f"{len(found)} on {text}" + (f": {times}" if found else "")
    raise SpecError("date", "a day with one date of the schedule, or a day and a time", got)


def span_of(schedule: Schedule, first: str, last: str) -> tuple[datetime, datetime]:
    """From ``first`` to ``last``, which are days (whole ones, of the schedule's zone) or moments. ``SpecError``."""
    begin = _moment(schedule, first, "from")
    end = _moment(schedule, last, "to")
    if _DAY.fullmatch(last):
        next_day = datetime.combine(calendar_date.fromisoformat(last) + timedelta(days=1), datetime.min.time())
        end = schedule.times.moment(next_day) - _SECOND
    if end < begin:
        raise SpecError("to", f"a moment after {first}", shown(last))
    return begin, end


def plan_backfill(hands: Hands, schedule: Schedule, first: datetime, last: datetime) -> list[Planned]:
    """Every date from ``first`` to ``last``, and its run. Raises ``SpecError`` for very many or none."""
    dates = []
    for date in schedule.times.between(first - _SECOND, last):
        dates.append(date)
        if len(dates) > MOST:
            raise SpecError("to", f"a span of at most {MOST:,} dates", f"more of them up to {last:%Y-%m-%d %H:%M} UTC")
    if not dates:
        raise SpecError("from", "a span with a date of the schedule", f"none from {first.isoformat()} on")
    there = set(dates_of(hands.root, schedule.name))
    return [Planned(date, read_run(hands.root, schedule.name, date) if date in there else None) for date in dates]


def check_come(date: datetime, now: datetime, field: str = "date") -> None:
    """Raises ``SpecError`` for a date to come: built now, ``latest`` would stand there until then."""
    if date > now:
        raise SpecError(field, "a date that has come", f"{date:%Y-%m-%dT%H:%MZ}")


def begin(hands: Hands, kept: Kept, date: datetime, now: datetime, origin: Origin, *, fresh: bool = False) -> Run:
    """Make the run of ``date``, or take an ended one up again; as it is then.

    What was pinned before stays so, but for gates and what follows; with ``fresh`` the job is pinned anew. Raises
    ``InputError`` before anything is written: for what cannot be built, for a date to come, and for a run that is
    going on or promoted.
    """
    check_come(date, now)
    schedule, there = kept.schedule, read_run(hands.root, kept.schedule.name, date)
    if there is not None and (not there.over or there.state == "promoted"):
        got = f"one that is {there.state} for {date:%Y-%m-%dT%H:%MZ}"
        hint = "" if there.over else "latentmill cancel stops its job"
        raise SpecError("run", "a date whose run has ended without a promoted build", got, hint)
    if there is not None and there.spec is not None and not fresh:
        pinned = Pinned(there.spec, hands.root, there.channel)
    else:
        pinned = hands.pin(schedule, date)
    run = new_run(schedule, date, now, origin, pinned, hands.look(pinned.spec).begun)
    if there is not None:
        run = run.model_copy(update={"take": there.take + 1})
    if create_run(hands.root, run) if there is None else take_up(hands.root, there, run):
        return run
    raise SpecError("run", "a date that nobody else begins now", f"{date:%Y-%m-%dT%H:%MZ}", "look at its history")


def _moment(schedule: Schedule, text: str, field: str) -> datetime:
    try:
        found = checked(datetime.fromisoformat(text), field)
    except ValueError as wrong:
        raise SpecError(field, "a day (2026-03-01) or a moment (2026-03-01T03:30)", shown(text)) from wrong
    found = found.replace(microsecond=0)
    return found.astimezone(schedule.times.local(found).tzinfo) if found.tzinfo else schedule.times.moment(found)
