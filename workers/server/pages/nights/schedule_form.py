"""The form that changes a schedule: its text, and what is wrong with it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import yaml
from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.drafts import parse_mapping
from generator.errors import LatentmillError
from workers.schedules.store import StoredSchedule
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.decisions import put_schedule
from workers.server.pages.inline_errors import shown_error
from workers.server.pages.rendering import render
from workers.server.problems import Problem
from workers.server.schedules import find_schedule, view_schedule

_MAX_TEXT = 200_000
_HIDDEN = ("name", "tenant", "notifications")  # the URLs of webhooks may be secret: they stay as they are

router = APIRouter(include_in_schema=False)

Operator = Annotated[Caller, Depends(require("operator"))]
ScheduleText = Annotated[str, Form(max_length=_MAX_TEXT)]


@router.get("/nights/{name}/change")
def show_form(request: Request, caller: Operator, name: str) -> Response:
    """The text of the schedule, to be changed."""
    context = context_of(request)
    return _form(request, name, schedule_text(context, caller, find_schedule(context, caller, name)))


@router.post("/nights/{name}/change")
def change_schedule(request: Request, caller: Operator, name: str, text: ScheduleText) -> Response:
    """Replace the schedule by the one in the text. Webhooks stay unless the text has some."""
    context = context_of(request)
    stored = find_schedule(context, caller, name)
    try:
        body = dict(parse_mapping(text.encode(), where="the form"))
        if stored.schedule.notifications.webhooks and "notifications" not in body:
            body["notifications"] = stored.schedule.notifications.model_dump(mode="json", exclude_unset=True)
        put_schedule(context, caller, name, body, replace=True)
    except (LatentmillError, Problem) as wrong:
        status, error = shown_error(request, caller, wrong)
        return _form(request, name, text, status=status, wrong=str(error))
    return RedirectResponse(f"/nights/{quote(name)}?changed=true", 303)


def schedule_text(context: ServerContext, caller: Caller, stored: StoredSchedule) -> str:
    """The schedule as YAML, as its tenant sees it, without its name, its tenant and its webhooks."""
    document: dict[str, Any] = view_schedule(context, caller, stored).schedule
    shown = {name: value for name, value in document.items() if name not in _HIDDEN}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=1000)


def _form(request: Request, name: str, text: str, *, status: int = 200, wrong: str = "") -> Response:
    return render(request, "night_change.html", status=status, name=name, text=text, wrong=wrong)
