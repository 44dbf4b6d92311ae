"""Pages of datasets: those of the tenant, the builds of one, and which of them readers get."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.datasets.promotion.state import UtcDatetime
from generator.errors import SpecError
from generator.spec.canonical import short_repr
from workers.server.callers import Caller, require
from workers.server.context import context_of
from workers.server.decisions import pin_build, roll_back, unpin_build
from workers.server.listing import find_datasets
from workers.server.pages.build_rows import MAX_BUILDS, list_rows
from workers.server.pages.explore import BUILD, Reader
from workers.server.pages.promotion import BuildField, Confirmed, promote_by_form
from workers.server.pages.rendering import render
from workers.server.problems import Problem

Operator = Annotated[Caller, Depends(require("operator"))]
NightField = Annotated[str, Form(max_length=63)]
_MOMENT: TypeAdapter[UtcDatetime] = TypeAdapter(UtcDatetime)

router = APIRouter(include_in_schema=False)


@router.get("/datasets")
def show_datasets(request: Request, caller: Reader) -> Response:
    """The datasets at the places of the tenant."""
    context = context_of(request)
    datasets = [(name, f"/datasets/{quote(name)}") for name in find_datasets(context, caller.tenant)]
    return render(request, "datasets.html", datasets=datasets, places=sorted(context.places.places(caller.tenant)))


@router.get("/datasets/{dataset:path}")
def show_dataset(
    request: Request, caller: Reader, dataset: str, start: Annotated[int, Query(ge=0, le=MAX_BUILDS)] = 0
) -> Response:
    """The builds of a dataset, the newest first, a page of them from ``start``."""
    listed = list_rows(context_of(request), caller.tenant, dataset, start)
    return render(request, "dataset.html", dataset=dataset, listed=listed, may_change=caller.may("operator"))


@router.post(BUILD + "/promote")
def promote_build(
    request: Request,
    caller: Operator,
    dataset: str,
    build: str,
    date: Annotated[str, Form(max_length=50)] = "",
    again: Annotated[bool, Form()] = False,
    confirm: Confirmed = False,
) -> Response:
    """Make a build the one that readers get. ``date``: its logical date; empty: as ``promote`` finds it."""
    try:
        logical_date = _MOMENT.validate_python(date) if date else None
    except ValidationError as wrong:
        raise SpecError("date", "a moment with an offset: 2026-03-01T03:30+00:00", short_repr(date)) from wrong
    promote_by_form(request, caller, dataset, build, logical_date=logical_date, again=again, confirmed=confirm)
    return _back(dataset, "")


@router.post(BUILD + "/{decision}")
def decide_pin(
    request: Request,
    caller: Operator,
    dataset: str,
    build: str,
    decision: str,
    note: Annotated[str, Form(max_length=500)] = "",
    night: NightField = "",
    confirm: Confirmed = False,
) -> Response:
    """Pin a build, so that retention keeps it, or unpin it. ``night``: the schedule on whose page the form was."""
    if decision not in ("pin", "unpin"):
        raise Problem(404, SpecError("path", "a decision about a build", short_repr(decision)))
    if not confirm:
        raise Problem(422, SpecError("confirm", f"the confirmation of {decision}", "none"))
    if decision == "pin":
        pin_build(context_of(request), caller, dataset, build, note=" ".join(note.split()))
    else:
        unpin_build(context_of(request), caller, dataset, build)
    return _back(dataset, night)


@router.post("/datasets/{dataset:path}/rollback")
def roll_dataset_back(
    request: Request,
    caller: Operator,
    dataset: str,
    build: BuildField,
    undo: Annotated[bool, Form()] = False,
    night: NightField = "",
    confirm: Confirmed = False,
) -> Response:
    """Go back to an earlier build; ``undo``: revert the last rollback, which took ``build`` back."""
    if not confirm:
        raise Problem(422, SpecError("confirm", "the confirmation that readers will get this build", "none"))
    roll_back(context_of(request), caller, dataset, to=build, undo=undo)
    return _back(dataset, night)


def _back(dataset: str, night: str) -> Response:
    """To the page of the schedule on which the form was, or to that of the dataset."""
    return RedirectResponse(f"/nights/{quote(night, safe='')}" if night else f"/datasets/{quote(dataset)}", 303)
