"""Routes of jobs: submit, list, follow, pause, resume, cancel, clone; and previews of specs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import Body, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from generator.errors import LatentmillError
from generator.production.pipeline.run_costs import Pace
from workers.client.client import PREVIEW_IMAGES
from workers.jobs.preview import MAX_PREVIEW, Preview
from workers.jobs.queries import preview
from workers.jobs.status import JobStatus
from workers.server.api.routing import (
    After,
    Limit,
    Page,
    Reader,
    Submitter,
    json_answer,
    new_router,
    page_answer,
)
from workers.server.audited import audited
from workers.server.builds import check_build_id
from workers.server.bundles import check_bundle
from workers.server.callers import Caller
from workers.server.context import ServerContext, context_of
from workers.server.decisions import decide_job, submit
from workers.server.jobs import JobView, find_job, newest_jobs, view_job
from workers.server.problems import Problem, error_of, problem_document
from workers.server.specs import SpecBody, narrow, spec_facts

PREVIEW_SECONDS = 25.0
_EVENT_SECONDS = 0.5
_QUIET_SECONDS = 15.0
_STREAM_SECONDS = 3600.0

router = new_router("jobs")


class ResumeBody(BaseModel):
    """``new_environment``: let workers with another environment make the missing shards."""

    model_config = ConfigDict(extra="forbid")
    new_environment: bool = False


class ResumeBuildBody(ResumeBody):
    """``build``: ``place/name/builds/id``, or the s3:// URL of a build below a place."""

    build: str = Field(min_length=1, max_length=1000)


class PreviewBody(BaseModel):
    """``spec``: a draft or a job spec; ``count``: the first images of it."""

    model_config = ConfigDict(extra="forbid")
    spec: SpecBody
    count: int = Field(default=PREVIEW_IMAGES, ge=1, le=MAX_PREVIEW, strict=True)


@router.get("/jobs", response_model=Page[JobView])
def list_jobs(
    request: Request,
    caller: Reader,
    limit: Limit = 50,
    after: After = None,
    state: Annotated[Literal["open", "ended"] | None, Query(description="Only unfinished, or only ended jobs")] = None,
) -> Response:
    """The jobs of the tenant, the newest first."""
    context = context_of(request)
    views, following = newest_jobs(context, caller, limit=limit, after=after, state=state)
    return page_answer(request, views, following)


@router.post("/jobs", response_model=JobView, status_code=202)
def submit_job(request: Request, caller: Submitter, body: Annotated[SpecBody, Body()]) -> Response:
    """Submit a job. The same spec submitted again is the same job: 200 if it has ended, else 202."""
    context = context_of(request)
    with audited(caller, "submit job", **spec_facts(body)) as change:
        status = submit(context, narrow(context, caller, body), change)
    return _job_answer(request, context, caller, status)


@router.get("/jobs/{job}", response_model=JobView)
def show_job(request: Request, caller: Reader, job: str) -> Response:
    """The status of a job."""
    context = context_of(request)
    return json_answer(request, view_job(context, caller, find_job(context, caller, job)))


@router.get("/jobs/{job}/pace", response_model=Pace | None)
def show_pace(request: Request, caller: Reader, job: str) -> Response:
    """The job's speed, and the time spent in each stage; ``null`` before its first shard is finished."""
    context = context_of(request)
    find_job(context, caller, job)
    found = context.client.pace(job)
    return json_answer(request, found and found.model_dump(mode="json"))


@router.post("/jobs/{job}/pause", response_model=JobView)
def pause_job(request: Request, caller: Submitter, job: str) -> Response:
    """Pause a job: running shards are finished, no new ones are started."""
    context = context_of(request)
    status = decide_job(context, caller, job, "pause")
    return json_answer(request, view_job(context, caller, status))


@router.post("/jobs/{job}/cancel", response_model=JobView)
def cancel_job(request: Request, caller: Submitter, job: str) -> Response:
    """Cancel a job. Its finished shards are kept."""
    context = context_of(request)
    status = decide_job(context, caller, job, "cancel")
    return json_answer(request, view_job(context, caller, status))


@router.post("/jobs/{job}/resume", response_model=JobView)
def resume_job(request: Request, caller: Submitter, job: str, body: ResumeBody | None = None) -> Response:
    """Continue a paused, cancelled or failed job where it stopped."""
    context, wanted = context_of(request), body or ResumeBody()
    status = decide_job(context, caller, job, "resume", new_environment=wanted.new_environment)
    return json_answer(request, view_job(context, caller, status))


@router.post("/jobs/{job}/clone", response_model=JobView, status_code=202)
def clone_job(request: Request, caller: Submitter, job: str, changes: dict[str, Any] | None = None) -> Response:
    """Submit the spec of a job again with changes: fields of recipe and order, ``count``, ``counts``."""
    context, wanted = context_of(request), dict(changes or {})
    with audited(caller, "clone job", cloned=job) as change:
        find_job(context, caller, job)
        if "destination" in wanted:
            wanted["destination"] = context.places.destination(caller.tenant, str(wanted["destination"]))
        spec = context.client.changed_spec(job, wanted)
        check_bundle(context, caller.tenant, spec.recipe.bundle)
        status = submit(context, spec, change)
    return _job_answer(request, context, caller, status)


@router.post("/jobs/resume", response_model=JobView)
def resume_build(request: Request, caller: Submitter, body: ResumeBuildBody) -> Response:
    """Continue an unfinished build that Redis and the store root may have lost; it becomes a job of the tenant."""
    context = context_of(request)
    with audited(caller, "resume build", build=body.build) as change:
        dataset, _, build = body.build.rpartition("/builds/")
        url = f"{context.places.dataset(caller.tenant, dataset)}/builds/{check_build_id(build)}"
        status = context.client.resume(url, tenant=caller.tenant, new_environment=body.new_environment)
        change.note(job=status.job, state=status.state)
    return json_answer(request, view_job(context, caller, status))


@router.post("/preview", response_model=Preview)
def make_preview(request: Request, caller: Submitter, body: PreviewBody) -> Response:
    """The first images of a spec, made by a worker at once; nothing of them is stored."""
    context = context_of(request)
    with audited(caller, "preview", **spec_facts(body.spec)):
        made = preview(context.pool, narrow(context, caller, body.spec), body.count, PREVIEW_SECONDS)
    return json_answer(request, made, caching="no-store")


@router.get("/jobs/{job}/events", response_class=StreamingResponse)
async def follow_job(request: Request, caller: Reader, job: str) -> Response:
    """The status of a job as server-sent events: one whenever it changes, the last one when the job has ended."""
    context = context_of(request)
    first = await run_in_threadpool(find_job, context, caller, job)
    if context.streams.is_full:
        raise context.streams.refusal()
    events = _events(request, context, caller, first)
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _job_answer(request: Request, context: ServerContext, caller: Caller, status: JobStatus) -> Response:
    answer = json_answer(request, view_job(context, caller, status), status=200 if status.ended else 202)
    answer.headers["Location"] = f"{request.url.path.partition('/jobs')[0]}/jobs/{status.job}"
    return answer


async def _events(request: Request, context: ServerContext, caller: Caller, status: JobStatus) -> AsyncIterator[bytes]:
    """Server-sent events: ``status`` with a job, at last ``problem`` if the job cannot be followed any longer."""
    with context.streams.one():
        try:
            async for event in _changes(context, caller, status):
                yield event
        except (LatentmillError, Problem) as error:
            code, facts, _ = error_of(request, error)
            yield _event("problem", problem_document(code, facts))


async def _changes(context: ServerContext, caller: Caller, status: JobStatus) -> AsyncIterator[bytes]:
    """An event for each change until the job has ended, for an hour at most; a comment where nothing changes."""
    loop, sent = asyncio.get_running_loop(), b""
    end = quiet_until = loop.time()
    end += _STREAM_SECONDS
    while loop.time() < end:
        event = _event("status", view_job(context, caller, status).model_dump(mode="json"))
        if event != sent:
            sent, quiet_until = event, loop.time() + _QUIET_SECONDS
            yield event
        elif loop.time() > quiet_until:
            quiet_until = loop.time() + _QUIET_SECONDS
            yield b": still there\n\n"
        if status.ended:
            return
        await asyncio.sleep(_EVENT_SECONDS)
        status = await run_in_threadpool(find_job, context, caller, status.job)


def _event(kind: str, document: Any) -> bytes:
    data = json.dumps(document)
    return f"id: {hashlib.sha256(data.encode()).hexdigest()[:16]}\nevent: {kind}\ndata: {data}\n\n".encode()
