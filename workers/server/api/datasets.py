"""Routes of datasets and builds: list, manifest, verdict, reports, documents; promote, roll back, pin."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from generator.curation.gates import Verdict, read_verdict
from generator.datasets.builds import build_store, check_dataset, is_committed, list_builds
from generator.datasets.promotion import DatasetState, read_state
from generator.datasets.promotion.promote import Outcome
from generator.errors import DatasetError, ObjectMissing
from generator.production.provenance.manifest import (
    CARD_KEY,
    CROISSANT_KEY,
    MANIFEST_KEY,
    MAX_EXTRA_BYTES,
    MAX_MANIFEST_BYTES,
    PREVIEW_KEY,
)
from generator.spec.canonical import digest_of
from generator.spec.recipe import BuildId
from generator.store.base import Store
from workers.server import decisions
from workers.server.api.routing import (
    IMMUTABLE,
    REVALIDATE,
    After,
    Limit,
    Operator,
    Page,
    Reader,
    bytes_answer,
    json_answer,
    new_router,
    page_answer,
    page_of,
)
from workers.server.builds import check_build_id
from workers.server.context import context_of
from workers.server.listing import find_datasets
from workers.server.readers import find_readers

_REPORT_KEY = "reports/quality.json"
_MAX_REPORT_BYTES = 16 * 2**20
_DOCUMENTS = {
    "card": (CARD_KEY, "text/markdown; charset=utf-8"),
    "croissant": (CROISSANT_KEY, "application/ld+json"),
    "preview": (PREVIEW_KEY, "image/jpeg"),
}

router = new_router("datasets")
BUILD = "/datasets/{dataset:path}/builds/{build}"


class DatasetName(BaseModel):
    """A dataset, as requests name it: its place and its name."""

    dataset: str


class BuildRow(BaseModel):
    """A build of a dataset. ``committed``: readers may get it; ``current``: they get it; ``pinned``: it is kept."""

    build: str
    committed: bool
    current: bool
    pinned: bool


class PromoteBody(BaseModel):
    """``logical_date``: the day that the build is for; ``again``: also if the build was rolled back."""

    model_config = ConfigDict(extra="forbid")
    logical_date: AwareDatetime | None = None
    again: bool = False


class RollbackBody(BaseModel):
    """``to``: the build to go back to, by default the one promoted before; ``undo``: revert the last rollback."""

    model_config = ConfigDict(extra="forbid")
    to: BuildId | None = None
    undo: bool = False


class PinBody(BaseModel):
    """``note``: why the build is kept."""

    model_config = ConfigDict(extra="forbid")
    note: str = Field(default="", max_length=500)


class PromoteAnswer(BaseModel):
    """The outcome (``moved``, ``already``, ``older``, ``withdrawn``), and the state of the dataset after it."""

    outcome: Outcome
    state: DatasetState


@router.get("/datasets", response_model=Page[DatasetName])
def list_datasets(
    request: Request,
    caller: Reader,
    limit: Limit = 100,
    after: After = None,
    place: Annotated[str | None, Query(max_length=1000, description="Only those at this place, or below it")] = None,
) -> Response:
    """The datasets at the places of the tenant, ascending."""
    found = find_datasets(context_of(request), caller.tenant, place)
    part, following = page_of(found, str, limit, after)
    return page_answer(request, [DatasetName(dataset=name) for name in part], following)


@router.get("/datasets/{dataset:path}/builds", response_model=Page[BuildRow])
def list_dataset_builds(
    request: Request, caller: Reader, dataset: str, limit: Limit = 100, after: After = None
) -> Response:
    """The builds of a dataset, committed or not, ascending by id."""
    store = context_of(request).dataset(caller.tenant, dataset)
    check_dataset(store)
    part, following = page_of(list_builds(store), str, limit, after)
    state = read_state(store) or DatasetState(by_promotion=False)
    readers = find_readers(store, state)
    rows = [
        BuildRow(
            build=build,
            committed=is_committed(build_store(store, build)),
            current=build == readers.build,
            pinned=build in state.pinned,
        )
        for build in part
    ]
    return page_answer(request, rows, following)


@router.get("/datasets/{dataset:path}/state", response_model=DatasetState)
def show_state(request: Request, caller: Reader, dataset: str) -> Response:
    """Which build readers get, the history of promotions, and the pins."""
    store = context_of(request).dataset(caller.tenant, dataset)
    check_dataset(store)
    return json_answer(request, read_state(store) or DatasetState(by_promotion=False))


@router.get(BUILD + "/manifest")
def show_manifest(request: Request, caller: Reader, dataset: str, build: str) -> Response:
    """The manifest of a committed build, as it is stored."""
    store = _build(request, caller.tenant, dataset, build)
    data = store.get(MANIFEST_KEY, MAX_MANIFEST_BYTES)
    return bytes_answer(request, data, "application/json", etag=_tag(data), caching=REVALIDATE)


@router.get(BUILD + "/segments/{first}")
def show_segment(request: Request, caller: Reader, dataset: str, build: str, first: int) -> Response:
    """The receipts of the shards from ``first`` on, which the manifest of a large build lists as one segment."""
    found = context_of(request).build(caller.tenant, dataset, build)
    stated = next((segment for segment in found.manifest.segments if segment.first == first), None)
    if stated is None:
        raise DatasetError("first", "the first shard of a segment in the manifest of this build", first)
    data = found.store.get(stated.key, stated.size)
    return bytes_answer(request, data, "application/json", etag=_tag(data), caching=IMMUTABLE)


@router.get(BUILD + "/documents/{name}")
def show_document(
    request: Request, caller: Reader, dataset: str, build: str, name: Literal["card", "croissant", "preview"]
) -> Response:
    """The card, the Croissant file or the preview of a committed build."""
    key, media_type = _DOCUMENTS[name]
    found = context_of(request).build(caller.tenant, dataset, build)
    stated = next((extra for extra in found.manifest.extras if extra.key == key), None)
    if stated is None:
        raise DatasetError(name, "a document of this build", "a build without it")
    data = found.store.get(key, min(stated.size, MAX_EXTRA_BYTES))
    return bytes_answer(request, data, media_type, etag=_tag(data), caching=IMMUTABLE)


@router.get(BUILD + "/verdict", response_model=Verdict)
def show_verdict(request: Request, caller: Reader, dataset: str, build: str) -> Response:
    """What the gates found."""
    found = read_verdict(_build(request, caller.tenant, dataset, build))
    if found is None:
        raise DatasetError("verdict", "a build that its gates have judged", build)
    return json_answer(request, found)


@router.get(BUILD + "/report")
def show_report(request: Request, caller: Reader, dataset: str, build: str) -> Response:
    """The quality report (`latentmill measure`), as it is stored."""
    try:
        data = _build(request, caller.tenant, dataset, build).get(_REPORT_KEY, _MAX_REPORT_BYTES)
    except ObjectMissing as missing:
        raise DatasetError("report", "a build that was measured", build) from missing
    return bytes_answer(request, data, "application/json")


@router.post(BUILD + "/promote", response_model=PromoteAnswer)
def promote_build(
    request: Request, caller: Operator, dataset: str, build: str, body: PromoteBody | None = None
) -> Response:
    """Make a build the one that readers get."""
    context, wanted = context_of(request), body or PromoteBody()
    date: datetime | None = wanted.logical_date
    done = decisions.promote_build(context, caller, dataset, build, logical_date=date, again=wanted.again)
    return json_answer(request, PromoteAnswer(outcome=done.outcome, state=done.state))


@router.post("/datasets/{dataset:path}/rollback", response_model=DatasetState)
def roll_back(request: Request, caller: Operator, dataset: str, body: RollbackBody | None = None) -> Response:
    """Go back to the build promoted before, or to another one."""
    wanted = body or RollbackBody()
    state = decisions.roll_back(context_of(request), caller, dataset, to=wanted.to, undo=wanted.undo)
    return json_answer(request, state)


@router.put(BUILD + "/pin", response_model=DatasetState)
def pin_build(request: Request, caller: Operator, dataset: str, build: str, body: PinBody | None = None) -> Response:
    """Protect a build from retention."""
    note = (body or PinBody()).note
    return json_answer(request, decisions.pin_build(context_of(request), caller, dataset, build, note=note))


@router.delete(BUILD + "/pin", response_model=DatasetState)
def unpin_build(request: Request, caller: Operator, dataset: str, build: str) -> Response:
    """Remove the pin of a build."""
    return json_answer(request, decisions.unpin_build(context_of(request), caller, dataset, build))


def _build(request: Request, tenant: str, dataset: str, build: str) -> Store:
    """The store of a committed build. Raises ``DatasetError``."""
    store = build_store(context_of(request).dataset(tenant, dataset), check_build_id(build))
    if not is_committed(store):
        raise DatasetError("build", "a committed build of this dataset", build)
    return store


def _tag(data: bytes) -> str:
    return digest_of(data).removeprefix("sha256:")[:32]
