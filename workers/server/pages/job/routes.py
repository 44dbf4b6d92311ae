"""Routes of one job: the page that follows it, its newest images, and decisions about it."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.errors import LatentmillError, SpecError
from generator.production.commit import finished_shards, read_build_location
from generator.spec.recipe import MAX_SHARDS
from generator.store import open_store
from generator.store.base import Store
from workers.ledger.claims import ShardStates
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.decisions import DECISIONS, decide_job
from workers.server.jobs import JobView, find_job, view_job
from workers.server.pages.job.facts import job_facts
from workers.server.pages.job.shard_grid import make_grid
from workers.server.pages.job.speed import make_speed
from workers.server.pages.pictures import data_url
from workers.server.pages.readers import readers_of
from workers.server.pages.rendering import render
from workers.server.problems import Problem

_STOP_POLLING = 286  # htmx asks no more
_FITTING = {
    "paused": ("resume", "cancel"),
    "failed": ("resume",),
    "cancelled": ("resume",),
    "committed": (),
}  # else open
_LARGE_JOB, _SECONDS, _LARGE_SECONDS = 20_000, 1, 5  # shards; between two looks at a job
_MAX_RECEIPTS = 5000  # shards of a job whose receipts are listed, where the ledger does not know them
_SHARDS, _IMAGES = 3, 6  # whose images are shown, and of each
_MAX_INLINE = 256 * 1024  # bytes of an image file inside a page

router = APIRouter(include_in_schema=False)

Reader = Annotated[Caller, Depends(require("reader"))]
Submitter = Annotated[Caller, Depends(require("submitter"))]


class Strip(NamedTuple):
    """The first images of a shard: index and address of each."""

    shard: int
    images: list[tuple[int, str]]


@router.get("/jobs/{job}")
def show_job(request: Request, caller: Reader, job: str, part: bool = False) -> Response:
    """One job; the changing part alone for a page that follows it."""
    context = context_of(request)
    status = find_job(context, caller, job)
    view, build = view_job(context, caller, status), open_store(status.url, context.settings.s3)
    states, costs = _shard_states(context, view, build), context.costs.find(build, ended=view.ended)
    measured = context.progress.rate(job, view.samples_done)
    values: dict[str, Any] = {
        "job": job_facts(view),
        "view": view,
        "grid": make_grid(states, view.shards, context.settings.max_shard_attempts) if states else None,
        "speed": make_speed(view, costs, measured),
        "every": _SECONDS if view.shards <= _LARGE_JOB else _LARGE_SECONDS,
        "may_change": caller.may("submitter"),
        "decisions": _FITTING.get(view.state, ("pause", "cancel")),
        "readers": readers_of(context, caller, view),
        "part": part,
        "swapped": part and view.ended,  # the last part of a page that follows the job
    }
    if part:
        return render(request, "job_part.html", status=_STOP_POLLING if view.ended else 200, **values)
    return render(request, "job.html", **values, **_pictures(context, view, build, states, seen=""))


@router.get("/jobs/{job}/pictures")
def show_pictures(
    request: Request, caller: Reader, job: str, seen: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """Images of the shards that were finished last: a part of the page; no content while they are those of ``seen``."""
    context = context_of(request)
    status = find_job(context, caller, job)
    view, build = view_job(context, caller, status), open_store(status.url, context.settings.s3)
    found = _pictures(context, view, build, _shard_states(context, view, build), seen=seen)
    if found["strips"] is None:
        return Response(status_code=204)
    return render(request, "job_pictures.html", job=job_facts(view), **found)


@router.post("/jobs/{job}/{decision}")
def decide(request: Request, caller: Submitter, job: str, decision: str) -> Response:
    """Pause, resume or cancel a job."""
    chosen = next((each for each in DECISIONS if each == decision), None)
    if chosen is None:
        raise Problem(404, SpecError("path", "a decision about a job", repr(decision[:50])))
    decide_job(context_of(request), caller, job, chosen)
    return RedirectResponse(f"/jobs/{job}", 303)


def _shard_states(context: ServerContext, view: JobView, build: Store) -> ShardStates | None:
    """The states of the shards; ``None`` where they cannot be told, or all are finished."""
    if view.state == "committed":
        return None
    dead = [letter.shard for letter in view.dead if letter.shard is not None]
    if not view.ended and "shards" in context.pool.ledger.facts(view.job):
        return context.pool.ledger.shard_states(view.job)
    if view.missing and sum(last - first + 1 for first, last in view.missing) == view.missing_shards:
        missing = {number for first, last in view.missing for number in range(first, min(last, MAX_SHARDS) + 1)}
        return ShardStates([number for number in range(view.shards) if number not in missing], {}, [], dead, {})
    if view.shards > _MAX_RECEIPTS:
        return None
    try:
        return ShardStates(sorted(finished_shards(read_build_location(build, view.name))), {}, [], dead, {})
    except LatentmillError:  # the build is gone
        return None


def _pictures(
    context: ServerContext, view: JobView, build: Store, states: ShardStates | None, *, seen: str
) -> dict[str, Any]:
    """The images of the shards with the highest numbers that are finished, as shards are begun in ascending order.

    ``strips``: ``None`` if they are those of ``seen``; ``key``: what to ask with the next time.
    """
    newest = sorted(states.done)[-_SHARDS:] if states else list(range(max(0, view.shards - _SHARDS), view.shards))
    if (states is None and view.state != "committed") or view.dataset is None:  # builds elsewhere are not shown
        newest = []
    key = ".".join(map(str, newest))
    if key == seen and seen and not view.ended:
        return {"strips": None, "key": key, "following": True}
    read = [(shard, context.shard_pictures.find(build, view.name, shard, _IMAGES)) for shard in reversed(newest)]
    strips = [_strip(shard, images) for shard, images in read if images]
    is_complete = all(images is not None for _, images in read)
    return {"strips": strips, "key": key if is_complete else "", "following": not view.ended}


def _strip(shard: int, images: dict[int, bytes]) -> Strip:
    small = [(index, data) for index, data in images.items() if len(data) <= _MAX_INLINE]
    return Strip(shard, [(index, data_url(data, _media_type(data))) for index, data in small])


def _media_type(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
