"""What the page of a schedule shows: its last run, a calendar, its gates over time, and its runs."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from generator.errors import SpecError
from generator.spec.canonical import short_repr
from workers.schedules.cron import date_key, parse_date_key
from workers.schedules.runs import Run
from workers.schedules.store import StoredSchedule
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.pages.nights.calendar import MEANINGS, SIGNS, CalendarRuns, make_months
from workers.server.pages.nights.gate_charts import HEIGHT, WIDTH, JudgedRun, make_charts
from workers.server.pages.nights.rows import RunRow, make_rows
from workers.server.pages.nights.schedule_form import schedule_text
from workers.server.pages.nights.times import LocalTimes, cron_words, first_of_month
from workers.server.runs import RunListing
from workers.server.schedules import own_run, tenant_schedules, view_schedule

_LISTED = 30  # runs of a page
_JUDGED = 60  # runs in the charts of gates
_MONTHS = 2  # of a page
_TROUBLED = 10  # last runs that were refused or failed, of the first page
_MAX_READ = 400  # runs of the calendar that are read for one page
_MONTH = re.compile(r"(\d{4})-(\d{2})")


class Undo(NamedTuple):
    """The build that readers get again if the last rollback of a dataset is undone."""

    dataset: str
    build: str


def schedule_values(
    context: ServerContext, caller: Caller, stored: StoredSchedule, *, until: str, month: str
) -> dict[str, Any]:
    """What the templates of a schedule show. ``until``, ``month``: as in the address of the page, or empty."""
    now = datetime.now(UTC)
    times, newest = LocalTimes(stored.schedule.timezone), parse_date_key(until) if until else now
    last = _parse_month(month) if month else first_of_month(times.local(newest).date())
    listing = RunListing(context.root, stored.schedule.name)
    runs, older = newest_runs(context, caller, listing, newest, _JUDGED)
    rows, older = make_rows(context, caller, times, runs), runs[_LISTED].date if len(runs) > _LISTED else older
    listed = rows[:_LISTED]
    return {
        "view": view_schedule(context, caller, stored),
        "schedule_text": schedule_text(context, caller, stored),
        "words": cron_words(stored.schedule.cron),
        "times": times,
        "rows": listed,
        "beside": next((row.key for row in listed if row.refusals and row.comparison), ""),
        "months": _months(context, caller, stored, listing, times, last, listed, now),
        "signs": SIGNS,
        "meanings": MEANINGS,
        "earlier": f"{first_of_month(last, -_MONTHS):%Y-%m}",
        "later": f"{first_of_month(last, _MONTHS):%Y-%m}" if last <= first_of_month(times.local(now).date()) else "",
        "month": f"{last:%Y-%m}" if month else "",
        "until": until,
        "older": date_key(older) if older else "",
        "charts": make_charts(_judged(rows, {row.key for row in listed})),
        "width": WIDTH,
        "height": HEIGHT,
        "undo": _undo(rows),
        "may_change": caller.may("operator"),
    }


class LastRun(NamedTuple):
    """A schedule and its last run, if it has one; ``times``: of its zone."""

    stored: StoredSchedule
    times: LocalTimes
    run: Run | None

    @property
    def local(self) -> str:
        return self.times.text(self.run.date) if self.run else ""

    @property
    def href(self) -> str:
        """The page of the schedule, at the last run."""
        return f"/nights/{quote(self.stored.schedule.name)}" + (f"#run-{date_key(self.run.date)}" if self.run else "")


def last_runs(context: ServerContext, caller: Caller) -> list[LastRun]:
    """The schedules of the tenant, ascending by name. Raises ``StoreError``, ``SpecError`` for a damaged one."""
    now, found = datetime.now(UTC), list[LastRun]()
    for stored in tenant_schedules(context, caller):
        runs, _ = newest_runs(context, caller, RunListing(context.root, stored.schedule.name), now, 1)
        found.append(LastRun(stored, LocalTimes(stored.schedule.timezone), runs[0] if runs else None))
    return found


def troubled_runs(context: ServerContext, caller: Caller) -> list[tuple[LastRun, RunRow]]:
    """The last runs that were refused or failed, and whose builds readers do not get; at most ``_TROUBLED``."""
    last = [each for each in last_runs(context, caller) if each.run and each.run.state in ("refused", "failed")]
    rows = [(each, make_rows(context, caller, each.times, [each.run])[0]) for each in last[:_TROUBLED] if each.run]
    return [(each, row) for each, row in rows if not row.is_current]


def newest_runs(
    context: ServerContext, caller: Caller, listing: RunListing, until: datetime, limit: int
) -> tuple[list[Run], datetime | None]:
    """The last runs of the tenant up to ``until``, the newest first; and the date of the next older one."""
    found, older = context.runs.newest(listing, until, limit)
    return [run for run in found if own_run(caller, run)], older


def _months(
    context: ServerContext,
    caller: Caller,
    stored: StoredSchedule,
    listing: RunListing,
    times: LocalTimes,
    last: date,
    listed: list[RunRow],
    now: datetime,
) -> Any:
    firsts = [first_of_month(last, number - _MONTHS + 1) for number in range(_MONTHS)]
    start, end = times.begin_of(firsts[0]), times.begin_of(first_of_month(last, 1))
    runs, unread = context.runs.between(listing, start, end, _MAX_READ)
    before, _ = newest_runs(context, caller, listing, start, 1)
    found = CalendarRuns(
        runs=[run for run in runs if own_run(caller, run)],
        unread=unread,
        before=before[0] if before else None,
        listed=frozenset(row.key for row in listed),
        current=next((row.key for row in listed if row.is_current), ""),
    )
    return make_months(stored, times, firsts, found, now)


def _judged(rows: list[RunRow], listed: set[str]) -> list[JudgedRun]:
    """The runs that have a verdict, ascending."""
    return [
        JudgedRun(row.local, f"#run-{row.key}" if row.key in listed else f"?until={row.key}#run-{row.key}", row.verdict)
        for row in reversed(rows)
        if row.verdict is not None
    ]


def _undo(rows: list[RunRow]) -> Undo | None:
    """What undoing the last rollback of the dataset of the newest run would bring back."""
    row = next((row for row in rows if row.state is not None), None)
    undone = row.state.undone if row and row.state else ()
    return Undo(row.dataset, undone[0][0].build) if row and undone and undone[0] else None


def _parse_month(text: str) -> date:
    match = _MONTH.fullmatch(text)
    if match is None or not 1971 <= int(match[1]) <= 9000 or not 1 <= int(match[2]) <= 12:
        raise SpecError("month", "a month such as 2026-03", short_repr(text))
    return date(int(match[1]), int(match[2]), 1)
