"""A calendar of the logical dates of a schedule: months in its time zone, a mark for each state of a day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Literal, get_args

from workers.schedules.cron import date_key
from workers.schedules.runs import Run
from workers.schedules.schedule import Schedule
from workers.schedules.store import StoredSchedule
from workers.server.pages.nights.times import LocalTimes, days_of_month

DayState = Literal[
    "promoted", "kept", "refused", "failed", "cancelled", "replaced", "running",
    "missed", "skipped", "paused", "none", "upcoming", "runs",
]  # fmt: skip
STATES: tuple[DayState, ...] = get_args(DayState)
SIGNS: dict[DayState, str] = {
    "promoted": "\u2713",
    "kept": "=",
    "refused": "\u2717",
    "failed": "!",
    "cancelled": "\u2298",
    "replaced": "\u21bb",
    "running": "\u25b6",
    "missed": "\u25cb",
    "skipped": "\u2192",
    "paused": "\u2016",
    "none": "?",
    "upcoming": "\u25f7",
    "runs": "\u2022",
}
MEANINGS: dict[DayState, str] = {
    "promoted": "readers got it",
    "kept": "its gates hold, readers kept another build",
    "refused": "its gates refused the build",
    "failed": "no build was made",
    "cancelled": "its job was cancelled",
    "replaced": "a later date took its place",
    "running": "it is being made, or waits",
    "missed": "no scheduler was running in time",
    "skipped": "an earlier run had not ended",
    "paused": "the schedule is or was paused",
    "none": "it was due and has no run",
    "upcoming": "it is still to come",
    "runs": "runs that are not counted by state",
}
_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)
_SEVERAL = 3  # dates of a day that are looked for where there is no run
_MANY = 25  # ... and where there are runs


@dataclass(frozen=True)
class Mark:
    """What came of the dates of one day that share a state. ``href``: the newest of their runs; empty without one.

    ``time``: of a single date (``03:30``). ``current``: readers get the build of one of them. ``more``: there are more
    than ``count``.
    """

    state: DayState
    count: int
    time: str
    href: str
    current: bool = False
    more: bool = False

    @property
    def sign(self) -> str:
        return SIGNS[self.state]

    @property
    def words(self) -> str:
        """``promoted``, ``3 promoted``, ``several upcoming``."""
        name = "no run" if self.state == "none" else self.state
        return name if self.count == 1 else f"several {name}" if self.more else f"{self.count:,} {name}"


@dataclass(frozen=True)
class Day:
    """A day of the calendar; ``marks``: none where no date of the schedule is."""

    day: date
    marks: tuple[Mark, ...]
    is_today: bool


@dataclass(frozen=True)
class Month:
    """A month in weeks of seven days from Monday on; ``None`` where the week belongs to another month."""

    first: date
    weeks: tuple[tuple[Day | None, ...], ...]

    @property
    def title(self) -> str:
        return f"{self.first:%B %Y}"


@dataclass(frozen=True)
class CalendarRuns:
    """The runs of the months. ``unread``: dates of runs that were not read; ``before``: the last run before them, which
    may stand for skipped dates inside; ``listed``: keys of the runs that the page shows below; ``current``: the key of
    the run whose build readers get."""

    runs: Sequence[Run]
    unread: Sequence[datetime]
    before: Run | None
    listed: frozenset[str]
    current: str = ""


def make_months(
    stored: StoredSchedule, times: LocalTimes, firsts: Sequence[date], found: CalendarRuns, now: datetime
) -> list[Month]:
    """The months that begin with ``firsts``, in their order."""
    return [_Calendar(stored, times, found, now).month(first) for first in firsts]


def state_of(run: Run) -> DayState:
    """What a calendar calls the state of a run."""
    if not run.has_ended:
        return "running"
    if run.state == "skipped":
        return {"overlap": "skipped", "paused": "paused"}.get(run.why, "missed")  # type: ignore[return-value]
    return run.state  # type: ignore[return-value]


class _Calendar:
    """Marks days. Days with runs show those; others are asked whether a date of the schedule is on them."""

    def __init__(self, stored: StoredSchedule, times: LocalTimes, found: CalendarRuns, now: datetime) -> None:
        self._stored, self._times, self._found, self._now = stored, times, found, now
        self._runs, self._unread = defaultdict[date, list[Run]](list), defaultdict[date, list[datetime]](list)
        for run in found.runs:
            self._runs[times.local(run.date).date()].append(run)
        for moment in found.unread:
            self._unread[times.local(moment).date()].append(moment)
        spans = (run for run in (*found.runs, found.before) if run is not None)
        self._spans = [run for run in spans if run.state == "skipped" and run.until is not None]

    def month(self, first: date) -> Month:
        days: list[Day | None] = [None] * first.weekday()
        today = self._times.local(self._now).date()
        days += [Day(day, self._marks(day), day == today) for day in days_of_month(first)]
        days += [None] * (-len(days) % 7)
        return Month(first, tuple(tuple(days[start : start + 7]) for start in range(0, len(days), 7)))

    def _marks(self, day: date) -> tuple[Mark, ...]:
        by_state = defaultdict[DayState, list[Run]](list)
        for run in self._runs.get(day, ()):
            by_state[state_of(run)].append(run)
        marks = [self._mark(state, by_state[state]) for state in STATES if state in by_state]
        unread = self._unread.get(day)
        if unread:
            marks.append(Mark("runs", len(unread), "", self._href(max(unread))))
        begin, end = self._times.begin_of(day), self._times.begin_of(day + _DAY)
        if begin <= self._now and not unread:
            marks += self._past(begin, min(end, self._now + _SECOND), {run.date for run in self._runs.get(day, ())})
        if end > self._now:
            marks += self._future(max(begin, self._now + _SECOND), end)
        return tuple(marks)

    def _mark(self, state: DayState, runs: list[Run]) -> Mark:
        newest = max(run.date for run in runs)
        current = self._found.current in {date_key(run.date) for run in runs}
        time = f"{self._times.local(newest):%H:%M}" if len(runs) == 1 else ""
        return Mark(state, len(runs), time, self._href(newest), current)

    def _past(self, begin: datetime, end: datetime, with_run: Collection[datetime]) -> list[Mark]:
        """Dates without a run of their own: they share one that was skipped, or have none."""
        dates = self._dates(begin, end, _MANY if with_run else _SEVERAL)
        if len(dates) == _MANY:
            return []  # too often to be told one by one beside runs
        dates = [moment for moment in dates if moment not in with_run]
        if not dates:
            return []
        span = next((run for run in self._spans if run.until and run.date <= dates[0] <= run.until), None)
        if span is not None:
            return [self._unrun(state_of(span), dates, self._href(span.date), more=not with_run)]
        due = [moment for moment in dates if moment > self._stored.since]
        return [self._unrun("none", due, more=not with_run)] if due else []

    def _future(self, begin: datetime, end: datetime) -> list[Mark]:
        dates = self._dates(begin, end, _SEVERAL)
        return [self._unrun("paused" if self._stored.paused else "upcoming", dates)] if dates else []

    def _unrun(self, state: DayState, dates: Sequence[datetime], href: str = "", *, more: bool = True) -> Mark:
        """The mark of dates without a run of their own. ``more``: those may be the first few of them."""
        time = f"{self._times.local(dates[0]):%H:%M}" if len(dates) == 1 else ""
        return Mark(state, len(dates), time, href, more=more and len(dates) == _SEVERAL)

    def _dates(self, begin: datetime, end: datetime, most: int) -> list[datetime]:
        """The first dates of the schedule within a day, as all of them may take long to find."""
        schedule: Schedule = self._stored.schedule
        first, last = schedule.start_utc, schedule.end_utc
        if (first is not None and end <= first) or (last is not None and begin > last):
            return []
        begin = begin if first is None else max(begin, first)
        found = islice(schedule.timetable.between(begin - _SECOND, end - _SECOND), most)
        return [moment for moment in found if last is None or moment <= last]

    def _href(self, moment: datetime) -> str:
        key = date_key(moment)
        month = self._times.local(moment).strftime("%Y-%m")
        return f"#run-{key}" if key in self._found.listed else f"?month={month}&until={key}#run-{key}"
