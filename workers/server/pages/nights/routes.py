"""Routes of nights: the schedules, one with its calendar, gates and runs, and what an operator may do about a run."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.errors import LatentmillError, SpecError
from generator.spec.canonical import short_repr
from workers.schedules.dates import date_key, parse_date_key
from workers.schedules.manual_runs import parse_date
from workers.schedules.runs import Run, read_run
from workers.schedules.store import StoredSchedule
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.decisions import hold_schedule, run_date
from workers.server.pages.nights.calendar import MEANINGS, SIGNS, CalendarRuns, make_months
from workers.server.pages.nights.gate_charts import HEIGHT, WIDTH, JudgedRun, make_charts
from workers.server.pages.nights.rows import RunRow, make_rows
from workers.server.pages.nights.schedule_form import schedule_text
from workers.server.pages.nights.times import LocalTimes, cron_words, first_of_month
from workers.server.pages.pictures import Picture, pictures_of
from workers.server.pages.promotion import BuildField, Confirmed, promote_by_form
from workers.server.pages.rendering import render
from workers.server.problems import Problem
from workers.server.runs import RunListing
from workers.server.schedules import find_schedule, own_run, tenant_schedules, view_run, view_schedule

_LISTED = 30  # runs of a page
_JUDGED = 60  # runs in the charts of gates
_MONTHS = 2  # of a page
_MAX_READ = 400  # runs of the calendar that are read for one page
_BESIDE = 8  # images of each of two builds
_MONTH = re.compile(r"(\d{4})-(\d{2})")

router = APIRouter(include_in_schema=False)

Reader = Annotated[Caller, Depends(require("reader"))]
Operator = Annotated[Caller, Depends(require("operator"))]
DateField = Annotated[str, Form(max_length=50)]
KeyQuery = Annotated[str, Query(max_length=50)]


@router.get("/nights")
def list_nights(request: Request, caller: Reader) -> Response:
    """The tenant's schedules, each with its next date and its last run."""
    context, now, rows = context_of(request), datetime.now(UTC), list[dict[str, Any]]()
    for stored in tenant_schedules(context, caller):
        times = LocalTimes(stored.schedule.timezone)
        last, _ = _newest(context, caller, RunListing(context.root, stored.schedule.name), now, 1)
        rows.append(
            {
                "schedule": view_schedule(context, caller, stored),
                "words": cron_words(stored.schedule.cron),
                "times": times,
                "last": view_run(context, caller, last[0]) if last else None,
                "last_local": times.text(last[0].date) if last else "",
            }
        )
    return render(request, "nights.html", rows=rows)


@router.get("/nights/{name}")
def show_schedule(request: Request, caller: Reader, name: str, until: KeyQuery = "", month: KeyQuery = "") -> Response:
    """One schedule: a calendar of its dates, what its gates measured, and its runs.

    ``until``: the date of the newest run that is listed, as ``date_key`` writes it; ``month``: the last month of the
    calendar (``2026-03``), by default that of ``until``.
    """
    context, now = context_of(request), datetime.now(UTC)
    stored = find_schedule(context, caller, name)
    times, newest = LocalTimes(stored.schedule.timezone), parse_date_key(until) if until else now
    last = _parse_month(month) if month else first_of_month(times.local(newest).date())
    listing = RunListing(context.root, name)
    runs, older = _newest(context, caller, listing, newest, _JUDGED)
    rows, older = make_rows(context, caller, times, runs), runs[_LISTED].date if len(runs) > _LISTED else older
    listed = rows[:_LISTED]
    return render(
        request,
        "night.html",
        view=view_schedule(context, caller, stored),
        schedule_text=schedule_text(context, caller, stored),
        words=cron_words(stored.schedule.cron),
        times=times,
        rows=listed,
        beside=next((row.key for row in listed if row.refusals and row.comparison), ""),
        months=_months(context, caller, stored, listing, times, last, listed, now),
        signs=SIGNS,
        meanings=MEANINGS,
        earlier=f"{first_of_month(last, -_MONTHS):%Y-%m}",
        later=f"{first_of_month(last, _MONTHS):%Y-%m}" if last <= first_of_month(times.local(now).date()) else "",
        month=f"{last:%Y-%m}" if month else "",
        until=until,
        older=date_key(older) if older else "",
        charts=make_charts(_judged(rows, {row.key for row in listed})),
        width=WIDTH,
        height=HEIGHT,
        undo=_undo(rows),
        may_change=caller.may("operator"),
    )


@router.get("/nights/{name}/beside")
def show_beside(request: Request, caller: Reader, name: str, date: KeyQuery) -> Response:
    """The first images of a run's build beside those of the build that readers get: a part of the page."""
    context = context_of(request)
    stored = find_schedule(context, caller, name)
    run = own_run(caller, read_run(context.root, name, parse_date_key(date)))
    rows = make_rows(context, caller, LocalTimes(stored.schedule.timezone), [run] if run else [])
    if not rows or not rows[0].comparison or rows[0].readers is None:
        raise Problem(404, SpecError("date", "a run with a build that readers do not get", short_repr(date)))
    row, current = rows[0], rows[0].readers.build
    galleries = [_gallery(context, caller, row.dataset, build) for build in (current, row.build)]
    return render(request, "night_beside.html", row=row, current=current, galleries=galleries)


@router.post("/nights/{name}/run")
def run_again(
    request: Request, caller: Operator, name: str, date: DateField, fresh: Annotated[bool, Form()] = False
) -> Response:
    """Start the run of a date, or restart one that ended without a promoted build."""
    run_date(context_of(request), caller, name, date, fresh=fresh)
    return _back(name)


@router.post("/nights/{name}/promote")
def promote_run(
    request: Request,
    caller: Operator,
    name: str,
    date: DateField,
    build: BuildField,
    again: Annotated[bool, Form()] = False,
    confirm: Confirmed = False,
) -> Response:
    """Promote the build of a run that has ended, for the date of the run."""
    context = context_of(request)
    schedule = find_schedule(context, caller, name).schedule
    run = read_run(context.root, name, parse_date(schedule, date, datetime.now(UTC)))
    dataset = context.places.name_of(caller.tenant, run.dataset) if run and run.spec else None
    if run is None or run.spec is None or dataset is None or run.spec.build_id != build:
        raise Problem(404, SpecError("build", "the build of this date's run", repr(build)))
    if not run.has_ended:
        raise Problem(409, SpecError("run", "a run that has ended", f"one that is {run.state}"))
    promote_by_form(request, caller, dataset, build, logical_date=run.date, again=again, confirmed=confirm)
    return _back(name)


@router.post("/nights/{name}/{decision}")
def hold(request: Request, caller: Operator, name: str, decision: str) -> Response:
    """Pause or resume a schedule."""
    if decision not in ("pause", "resume"):
        raise Problem(404, SpecError("path", "a decision about a schedule", repr(decision[:50])))
    hold_schedule(context_of(request), caller, name, held=decision == "pause")
    return _back(name)


class Undo(NamedTuple):
    """The build that readers get again if the last rollback of a dataset is undone."""

    dataset: str
    build: str


class Gallery(NamedTuple):
    """The first images of a build; ``pictures``: ``None`` if they cannot be read."""

    build: str
    href: str
    pictures: list[Picture] | None


def _back(name: str) -> Response:
    return RedirectResponse(f"/nights/{quote(name)}", 303)


def _newest(
    context: ServerContext, caller: Caller, listing: RunListing, until: datetime, limit: int
) -> tuple[list[Run], datetime | None]:
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
    before, _ = _newest(context, caller, listing, start, 1)
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


def _gallery(context: ServerContext, caller: Caller, dataset: str, build: str) -> Gallery:
    href = f"/datasets/{quote(dataset)}/builds/{quote(build)}"
    try:
        found = context.build(caller.tenant, dataset, build)
        count = min(_BESIDE, found.manifest.shards[0].samples)
        return Gallery(build, href, pictures_of(found, href, None, range(count)))
    except LatentmillError:  # deleted or damaged: the other build is shown nevertheless
        return Gallery(build, href, None)


def _parse_month(text: str) -> date:
    match = _MONTH.fullmatch(text)
    if match is None or not 1971 <= int(match[1]) <= 9000 or not 1 <= int(match[2]) <= 12:
        raise SpecError("month", "a month such as 2026-03", short_repr(text))
    return date(int(match[1]), int(match[2]), 1)
