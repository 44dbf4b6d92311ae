"""The first page: what there is for this caller."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from workers.server.callers import Caller, require
from workers.server.context import context_of
from workers.server.pages.rendering import render

router = APIRouter(include_in_schema=False)


@router.get("/")
def show_home(request: Request, caller: Annotated[Caller, Depends(require("reader"))]) -> Response:
    """Places of the tenant, and where to go from here."""
    return render(request, "home.html", places=sorted(context_of(request).places.places(caller.tenant)))
