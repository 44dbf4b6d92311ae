"""The page that lists the jobs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from workers.server.callers import Caller, require
from workers.server.context import context_of
from workers.server.jobs import newest_jobs
from workers.server.pages.job.facts import job_facts
from workers.server.pages.rendering import render

_PAGE = 50

router = APIRouter(include_in_schema=False)

Reader = Annotated[Caller, Depends(require("reader"))]


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
    template, jobs = "job_rows.html" if rows else "jobs.html", [job_facts(job) for job in found]
    return render(request, template, jobs=jobs, following=following, chosen=state, after=after or "")
