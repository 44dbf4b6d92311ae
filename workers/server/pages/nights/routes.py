"""Routes of nights: the schedules, one with its calendar, gates and runs, and what an operator may do about a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from generator.errors import LatentmillError, SpecError
from generator.spec.canonical import short_repr
from workers.schedules.cron import parse_date_key
from workers.schedules.manual_runs import parse_date
from workers.schedules.runs import read_run
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.decisions import hold_schedule, run_date
from workers.server.pages.nights.overview import last_runs, schedule_values
from workers.server.pages.nights.rows import make_rows
from workers.server.pages.nights.times import LocalTimes, cron_words
from workers.server.pages.pictures import Picture, pictures_of
from workers.server.pages.promotion import BuildField, Confirmed, promote_by_form
from workers.server.pages.rendering import render, render_text, version_of
from workers.server.problems import Problem
from workers.server.schedules import find_schedule, own_run, view_schedule

_BESIDE = 8  # images of each of two builds

router = APIRouter(include_in_schema=False)

Reader = Annotated[Caller, Depends(require("reader"))]
Operator = Annotated[Caller, Depends(require("operator"))]
DateField = Annotated[str, Form(max_length=50)]
KeyQuery = Annotated[str, Query(max_length=50)]


@router.get("/nights")
def list_nights(request: Request, caller: Reader, part: bool = False) -> Response:
    """The tenant's schedules, each with its next date and its last run; the table alone for a page that follows it."""
    context = context_of(request)
    rows = [
        {
            "schedule": view_schedule(context, caller, each.stored),
            "words": cron_words(each.stored.schedule.cron),
            "last": each,
        }
        for each in last_runs(context, caller)
    ]
    return render(request, "night_rows.html" if part else "nights.html", rows=rows)


@router.get("/nights/{name}")
def show_schedule(
    request: Request,
    caller: Reader,
    name: str,
    until: KeyQuery = "",
    month: KeyQuery = "",
    changed: bool = False,
) -> Response:
    """One schedule: a calendar of its dates, what its gates measured, and its runs.

    ``until``: the date of the newest run that is listed, as ``date_key`` writes it; ``month``: the last month of the
    calendar (``2026-03``), by default that of ``until``; ``changed``: its form was sent just now.
    """
    context = context_of(request)
    values = schedule_values(context, caller, find_schedule(context, caller, name), until=until, month=month)
    seen = version_of(render_text(request, "night_state.html", part=True, **values))
    return render(request, "night.html", part=False, seen=seen, changed=changed, **values)


@router.get("/nights/{name}/state")
def show_state(
    request: Request, caller: Reader, name: str, seen: KeyQuery = "", until: KeyQuery = "", month: KeyQuery = ""
) -> Response:
    """The parts of the page of a schedule that change by themselves; no content while they are those of ``seen``."""
    context = context_of(request)
    values = schedule_values(context, caller, find_schedule(context, caller, name), until=until, month=month)
    text = render_text(request, "night_state.html", part=True, **values)
    version = version_of(text)
    if version == seen:
        return Response(status_code=204)
    return HTMLResponse(text + render_text(request, "night_seen.html", seen=version))


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


class Gallery(NamedTuple):
    """The first images of a build; ``pictures``: ``None`` if they cannot be read."""

    build: str
    href: str
    pictures: list[Picture] | None


def _back(name: str) -> Response:
    return RedirectResponse(f"/nights/{quote(name)}", 303)


def _gallery(context: ServerContext, caller: Caller, dataset: str, build: str) -> Gallery:
    href = f"/datasets/{quote(dataset)}/builds/{quote(build)}"
    try:
        found = context.build(caller.tenant, dataset, build)
        count = min(_BESIDE, found.manifest.shards[0].samples)
        return Gallery(build, href, pictures_of(found, href, None, range(count)))
    except LatentmillError:  # deleted or damaged: the other build is shown nevertheless
        return Gallery(build, href, None)
