"""Pages of nights: the schedules, what each of their runs came to, and what an operator may do about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.datasets.promotion import DatasetState, read_state
from generator.errors import LatentmillError, SpecError
from generator.store import open_store
from workers.schedules.history import newest_runs
from workers.schedules.manual_runs import parse_date
from workers.schedules.runs import Run, read_run
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.decisions import hold_schedule, run_date
from workers.server.pages.promotion import BuildField, Confirmed, promote_by_form, refusals, verdict_of
from workers.server.pages.rendering import render
from workers.server.problems import Problem
from workers.server.schedules import find_schedule, tenant_schedules, view_run, view_schedule

_RUNS, _DETAILED = 30, 10

router = APIRouter(include_in_schema=False)

Reader = Annotated[Caller, Depends(require("reader"))]
Operator = Annotated[Caller, Depends(require("operator"))]
DateField = Annotated[str, Form(max_length=50)]


@router.get("/nights")
def list_nights(request: Request, caller: Reader) -> Response:
    """The tenant's schedules, each with its next date and its last run."""
    context = context_of(request)
    rows = []
    for stored in tenant_schedules(context, caller):
        last = newest_runs(context.root, stored.schedule.name, 1)
        run = view_run(context, caller, last[0]) if last else None
        rows.append({"schedule": view_schedule(context, caller, stored), "last": run})
    return render(request, "nights.html", rows=rows)


@router.get("/nights/{name}")
def show_schedule(request: Request, caller: Reader, name: str) -> Response:
    """One schedule: its dates, and its last runs with what the gates found."""
    context = context_of(request)
    view = view_schedule(context, caller, find_schedule(context, caller, name))
    runs = newest_runs(context.root, name, _RUNS)
    rows = [_row(context, caller, run, detailed=number < _DETAILED) for number, run in enumerate(runs)]
    return render(request, "night.html", view=view, rows=rows, may_change=caller.may("operator"))


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


def _back(name: str) -> Response:
    return RedirectResponse(f"/nights/{quote(name)}", 303)


def _row(context: ServerContext, caller: Caller, run: Run, *, detailed: bool) -> dict[str, Any]:
    facts = view_run(context, caller, run)
    named = context.places.name_of(caller.tenant, run.dataset) if run.dataset else None
    has_build = run.committed is not None and run.spec is not None and named is not None
    build = run.spec.build_id if has_build and run.spec else ""
    verdict = verdict_of(open_store(run.url, context.settings.s3)) if detailed and build else None
    state = _state(context, run) if detailed and build and run.has_ended else None
    current = state.current.logical_date if state and state.current else None
    is_older, is_current = current is not None and run.date < current, state is not None and state.build == build
    return {
        "facts": facts,
        "date": run.date.isoformat(),
        "dataset": named or "",
        "url": f"/datasets/{named}/builds/{build}" if build else "",
        "job": run.spec.job_id if run.spec else "",
        "verdict": verdict,
        "refusals": refusals(verdict) if run.state == "refused" else [],
        "is_current": is_current,
        "is_older": is_older and not is_current,  # its promotion would be refused
        "may_run": run.has_ended and run.state != "promoted",
        "promote": build if state is not None and not is_current and not is_older else "",
        "withdrawn": state is not None and build in state.withdrawn,
    }


def _state(context: ServerContext, run: Run) -> DatasetState | None:
    """Which build readers of the run's dataset get; ``None`` if that cannot be read."""
    try:
        return read_state(open_store(run.dataset, context.settings.s3)) or DatasetState(by_promotion=False)
    except LatentmillError:
        return None
