"""The first page: what there is for this caller."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from generator.errors import LatentmillError
from workers.server.callers import Caller, require
from workers.server.context import context_of
from workers.server.pages.nights.overview import LastRun, troubled_runs
from workers.server.pages.nights.rows import RunRow
from workers.server.pages.rendering import render

router = APIRouter(include_in_schema=False)


@router.get("/")
def show_home(request: Request, caller: Annotated[Caller, Depends(require("reader"))]) -> Response:
    """Nights that went wrong, places of the tenant, and where to go from here."""
    context, troubles = context_of(request), list[tuple[LastRun, RunRow]]()
    with suppress(LatentmillError):  # the page of nights says what is wrong
        troubles = troubled_runs(context, caller)
    places = sorted(context.places.places(caller.tenant))
    return render(request, "home.html", places=places, troubles=troubles)
