"""Routes of schedules: list, show, add, pause, resume, remove, run, history."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from generator.spec.recipe import Name
from workers.schedules.history import newest_runs
from workers.schedules.store import remove_schedule
from workers.server.api.routing import (
    After,
    Limit,
    Operator,
    Page,
    Reader,
    json_answer,
    new_router,
    page_answer,
    page_of,
)
from workers.server.audited import audited
from workers.server.callers import Caller
from workers.server.context import context_of
from workers.server.decisions import hold_schedule, put_schedule, run_date
from workers.server.schedules import ScheduleView, find_schedule, own_run, tenant_schedules, view_run, view_schedule

_UPCOMING = 3

router = new_router("schedules")


class RunView(BaseModel):
    """A run, as `latentmill schedule history` shows it; fields without a value are absent."""

    model_config = ConfigDict(extra="allow")
    schedule: str
    date: str
    state: str


class RunBody(BaseModel):
    """``date``: a day or a moment in the schedule's time zone, by default now; ``fresh``: resolve the job again."""

    model_config = ConfigDict(extra="forbid")
    date: str | None = Field(default=None, max_length=50)
    fresh: bool = False


@router.get("/schedules", response_model=Page[ScheduleView])
def list_schedules(request: Request, caller: Reader, limit: Limit = 100, after: After = None) -> Response:
    """The tenant's schedules, ascending by name."""
    context = context_of(request)
    part, following = page_of(tenant_schedules(context, caller), lambda stored: stored.schedule.name, limit, after)
    return page_answer(request, [view_schedule(context, caller, stored) for stored in part], following)


@router.get("/schedules/{name}", response_model=ScheduleView)
def show_schedule(request: Request, caller: Reader, name: Name) -> Response:
    """A schedule and its next dates."""
    context = context_of(request)
    return json_answer(request, view_schedule(context, caller, find_schedule(context, caller, name)))


@router.put("/schedules/{name}", response_model=ScheduleView)
def add_schedule(
    request: Request,
    caller: Operator,
    name: Name,
    body: dict[str, Any],
    replace: Annotated[bool, Query(description="Overwrite a schedule of this name with other content")] = False,
) -> Response:
    """Add a schedule: the fields of a schedule file. Its job has a bundle or channel and a place of the tenant, as a
    draft has; ``tenant`` is that of the key. Adding the same again changes nothing."""
    context = context_of(request)
    return json_answer(
        request, view_schedule(context, caller, put_schedule(context, caller, name, body, replace=replace))
    )


@router.delete("/schedules/{name}", status_code=204)
def delete_schedule(request: Request, caller: Operator, name: Name) -> Response:
    """Remove a schedule. Its history stays, and unfinished runs continue."""
    context = context_of(request)
    with audited(caller, "remove schedule", schedule=name):
        find_schedule(context, caller, name)
        remove_schedule(context.root, name)
    return Response(status_code=204)


@router.post("/schedules/{name}/pause", response_model=ScheduleView)
def pause_schedule(request: Request, caller: Operator, name: Name) -> Response:
    """Skip the dates of a schedule until it is resumed. Unfinished runs continue."""
    return _hold(request, caller, name, held=True)


@router.post("/schedules/{name}/resume", response_model=ScheduleView)
def resume_schedule(request: Request, caller: Operator, name: Name) -> Response:
    """Resume a schedule with its next date."""
    return _hold(request, caller, name, held=False)


@router.get("/schedules/{name}/runs", response_model=Page[RunView])
def list_runs(request: Request, caller: Reader, name: Name, limit: Limit = 30) -> Response:
    """The last runs of a schedule, the newest first."""
    context = context_of(request)
    find_schedule(context, caller, name)
    runs = [view_run(context, caller, run) for run in newest_runs(context.root, name, limit) if own_run(caller, run)]
    return page_answer(request, runs, None)


@router.post("/schedules/{name}/runs", response_model=RunView, status_code=202)
def run_schedule(request: Request, caller: Operator, name: Name, body: RunBody | None = None) -> Response:
    """Start the run of one date, or restart one that ended without a promoted build. A scheduler carries it out."""
    context, wanted = context_of(request), body or RunBody()
    run = run_date(context, caller, name, wanted.date, fresh=wanted.fresh)
    return json_answer(request, view_run(context, caller, run), status=202)


def _hold(request: Request, caller: Caller, name: str, *, held: bool) -> Response:
    context = context_of(request)
    return json_answer(request, view_schedule(context, caller, hold_schedule(context, caller, name, held=held)))
