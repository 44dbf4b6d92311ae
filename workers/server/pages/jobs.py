"""Pages of jobs: the list, one job that is followed, decisions about it."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.errors import LatentmillError, SpecError
from workers.server.audited import audited
from workers.server.callers import Caller, require
from workers.server.context import context_of
from workers.server.jobs import JobView, find_job, newest_jobs, view_job
from workers.server.pages.rendering import render
from workers.server.problems import Problem

_PAGE = 50
_STOP_POLLING = 286  # htmx asks no more
_DECISIONS = ("pause", "resume", "cancel")
_FITTING = {
    "paused": ("resume", "cancel"),
    "failed": ("resume",),
    "cancelled": ("resume",),
    "committed": (),
}  # else open

router = APIRouter(include_in_schema=False)

Reader = Annotated[Caller, Depends(require("reader"))]
Submitter = Annotated[Caller, Depends(require("submitter"))]


@router.get("/jobs")
def list_jobs(
    request: Request,
    caller: Reader,
    state: Annotated[Literal["", "open", "ended"], Query()] = "",
    after: Annotated[str | None, Query(max_length=200)] = None,
    rows: bool = False,
) -> Response:
    """The tenant's jobs, the newest first; the rows alone for a page that follows them."""
    found, following = newest_jobs(context_of(request), caller, limit=_PAGE, after=after, state=state or None)
    template, jobs = "job_rows.html" if rows else "jobs.html", [_facts(job) for job in found]
    return render(request, template, jobs=jobs, following=following, chosen=state, after=after or "")


@router.get("/jobs/{job}")
def show_job(request: Request, caller: Reader, job: str, part: bool = False) -> Response:
    """One job; the changing part alone for a page that follows it."""
    context = context_of(request)
    view = view_job(context, caller, find_job(context, caller, job))
    pace = None
    with suppress(LatentmillError):  # it is only of interest
        pace = context.client.pace(job)
    template, status = ("job_part.html", _STOP_POLLING if view.ended else 200) if part else ("job.html", 200)
    values = {
        "job": _facts(view),
        "view": view,
        "pace": pace,
        "may_change": caller.may("submitter"),
        "decisions": _FITTING.get(view.state, ("pause", "cancel")),
        "swapped": part and view.ended,  # the last part of a page that follows the job
    }
    return render(request, template, status=status, **values)


@router.post("/jobs/{job}/{decision}")
def decide(request: Request, caller: Submitter, job: str, decision: str) -> Response:
    """Pause, resume or cancel a job."""
    if decision not in _DECISIONS:
        raise Problem(404, SpecError("path", "a decision about a job", repr(decision[:50])))
    context = context_of(request)
    with audited(caller, f"{decision} job", job=job):
        find_job(context, caller, job)
        getattr(context.client, decision)(job)
    return RedirectResponse(f"/jobs/{job}", 303)


def _facts(job: JobView) -> dict[str, Any]:
    """What templates show of a job."""
    return {
        "job": job.job,
        "name": job.name,
        "state": job.state,
        "samples": job.samples,
        "samples_done": job.samples_done,
        "percent": int(100 * job.samples_done / max(1, job.samples)),
        "submitted": datetime.fromtimestamp(job.submitted, UTC).strftime("%Y-%m-%d %H:%M"),
        "ended": job.ended,
        "waits_for": job.waits_for,
        "url": f"/datasets/{job.dataset}/builds/{job.build}" if job.dataset and job.state == "committed" else "",
    }
