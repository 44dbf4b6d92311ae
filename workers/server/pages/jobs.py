"""Pages of jobs: the list, and a new job with its preview."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.drafts import parse_mapping
from generator.errors import LatentmillError
from workers.jobs.queries import preview
from workers.server.audited import audited
from workers.server.bundles import tenant_channels
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.decisions import submit
from workers.server.jobs import newest_jobs
from workers.server.pages.job.facts import job_facts
from workers.server.pages.rendering import render
from workers.server.problems import Problem, error_of
from workers.server.specs import narrow, parse_body, spec_facts

_PAGE = 50
_PREVIEW_IMAGES, _PREVIEW_SECONDS = 24, 20.0
_MAX_TEXT = 200_000

router = APIRouter(include_in_schema=False)

Reader = Annotated[Caller, Depends(require("reader"))]
Submitter = Annotated[Caller, Depends(require("submitter"))]
SpecText = Annotated[str, Form(max_length=_MAX_TEXT)]


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


@router.get("/jobs/new")
def new_job(request: Request, caller: Submitter, text: Annotated[str, Query(max_length=_MAX_TEXT)] = "") -> Response:
    """A form for a job spec."""
    return _form(request, caller, text or _example(context_of(request), caller))


@router.post("/jobs/new")
def submit_job(request: Request, caller: Submitter, text: SpecText, look: Annotated[str, Form()] = "") -> Response:
    """Submit the job of the form, or look at its first images."""
    context = context_of(request)
    try:
        body = parse_body(parse_mapping(text.encode(), where="the form"))
        if look:
            with audited(caller, "preview", **spec_facts(body)):
                made = preview(context.pool, narrow(context, caller, body), _PREVIEW_IMAGES, _PREVIEW_SECONDS)
            images = [
                {"url": _data_url(made.format, image.data), "name": image.class_name or f"image {image.index}"}
                for image in made.images
            ]
            return _form(request, caller, text, images=images, refused=made.refused)
        with audited(caller, "submit job", **spec_facts(body)) as change:
            status = submit(context, narrow(context, caller, body), change)
    except (LatentmillError, Problem) as wrong:
        code, error, _ = error_of(request, wrong)
        return _form(request, caller, text, status=code, wrong=context.redact(str(error), caller.tenant))
    return RedirectResponse(f"/jobs/{status.job}", 303)


def _form(request: Request, caller: Caller, text: str, *, status: int = 200, **values: Any) -> Response:
    context = context_of(request)
    known: dict[str, Any] = {"wrong": "", "images": [], "refused": 0} | values
    places = sorted(context.places.places(caller.tenant))
    channels = [channel.line for channel in tenant_channels(context, caller.tenant)]
    return render(request, "job_new.html", status=status, text=text, places=places, channels=channels, **known)


def _example(context: ServerContext, caller: Caller) -> str:
    place = min(context.places.places(caller.tenant))
    channel = next((channel.line for channel in tenant_channels(context, caller.tenant)), "")
    bundle = f"channel: {channel}" if channel else "bundle: sha256:..."
    return f"{bundle}\ncount: 1000\ndestination: {place}\nname: images\nseed: 0\n"


def _data_url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
