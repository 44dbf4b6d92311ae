"""Pages of nights: the schedules, and what each of their runs came to."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.curation.gates import Verdict, read_verdict
from generator.errors import LatentmillError, SpecError
from generator.store import open_store
from workers.schedules.history import newest_runs
from workers.schedules.runs import Run
from workers.schedules.store import StoredSchedule, update_stored
from workers.server.audited import audited
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.pages.rendering import render
from workers.server.problems import Problem
from workers.server.schedules import find_schedule, tenant_schedules, view_run, view_schedule

_RUNS, _VERDICTS = 30, 10

router = APIRouter(include_in_schema=False)


@router.get("/nights")
def list_nights(request: Request, caller: Annotated[Caller, Depends(require("reader"))]) -> Response:
    """The tenant's schedules, each with its next date and its last run."""
    context = context_of(request)
    rows = []
    for stored in tenant_schedules(context, caller):
        last = newest_runs(context.root, stored.schedule.name, 1)
        run = view_run(context, caller, last[0]) if last else None
        rows.append({"schedule": view_schedule(context, caller, stored), "last": run})
    return render(request, "nights.html", rows=rows)


@router.get("/nights/{name}")
def show_schedule(request: Request, caller: Annotated[Caller, Depends(require("reader"))], name: str) -> Response:
    """One schedule: its dates, and its last runs with what the gates found."""
    context = context_of(request)
    view = view_schedule(context, caller, find_schedule(context, caller, name))
    runs = newest_runs(context.root, name, _RUNS)
    rows = [_row(context, caller, run, with_verdict=number < _VERDICTS) for number, run in enumerate(runs)]
    return render(request, "night.html", view=view, rows=rows, may_change=caller.may("operator"))


@router.post("/nights/{name}/{decision}")
def hold(
    request: Request, caller: Annotated[Caller, Depends(require("operator"))], name: str, decision: str
) -> Response:
    """Pause or resume a schedule."""
    if decision not in ("pause", "resume"):
        raise Problem(404, SpecError("path", "a decision about a schedule", repr(decision[:50])))
    context, held = context_of(request), decision == "pause"

    def change(stored: StoredSchedule | None) -> StoredSchedule | None:
        return stored and stored.model_copy(update={"held": held})

    with audited(caller, f"{decision} schedule", schedule=name):
        find_schedule(context, caller, name)
        update_stored(context.root, name, change)
    return RedirectResponse(f"/nights/{name}", 303)


def _row(context: ServerContext, caller: Caller, run: Run, *, with_verdict: bool) -> dict[str, Any]:
    facts = view_run(context, caller, run)
    named = context.places.name_of(caller.tenant, run.dataset) if run.dataset else None
    has_build = run.committed is not None and run.spec is not None and named is not None
    verdict = _verdict(context, run) if with_verdict and has_build else None
    url = f"/datasets/{named}/builds/{run.spec.build_id}" if has_build and run.spec else ""
    return {"facts": facts, "url": url, "job": run.spec.job_id if run.spec else "", "verdict": verdict}


def _verdict(context: ServerContext, run: Run) -> Verdict | None:
    """What the gates found; ``None`` if it cannot be read: retention may have deleted the build."""
    try:
        return read_verdict(open_store(run.url, context.settings.s3))
    except LatentmillError:
        return None
