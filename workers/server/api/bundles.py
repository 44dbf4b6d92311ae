"""Routes of bundles and channels: list, inspect, upload, move a channel."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, get_args

from fastapi import Query
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from generator.curation.diagnosis.report import DiagnosisReport, read_report
from generator.errors import BundleError, BundleMissing, SpecError
from generator.models.bundle import BundleInfo, bundle_store, push
from generator.models.bundle.channels import Channel, check_channel_name, load_channel, move_channel, roll_back_channel
from generator.models.bundle.format import INFO_FILE, BundleFile
from generator.models.bundle.listing import BundleSummary
from generator.models.bundle.load import parse_info, read_file, read_info_bytes
from generator.spec.canonical import short_repr
from generator.spec.recipe import Digest, Name
from generator.store import open_store
from generator.store.base import Store
from workers.server.api.routing import (
    IMMUTABLE,
    After,
    Limit,
    Operator,
    Page,
    Reader,
    Submitter,
    bytes_answer,
    json_answer,
    new_router,
    page_answer,
    page_of,
)
from workers.server.audited import audited
from workers.server.bundle_uses import BundleUses, uses_of
from workers.server.bundles import (
    bundle_dates_of,
    check_bundle,
    note_upload,
    summary_of_bundle,
    tenant_channels,
)
from workers.server.callers import Caller
from workers.server.context import ServerContext, context_of
from workers.server.problems import Problem

_FILES: tuple[str, ...] = (*get_args(BundleFile), INFO_FILE)
_COPY_BYTES = 2**20

router = new_router("bundles")


class BundleName(BaseModel):
    """A bundle, by its digest."""

    bundle: Digest


class ChannelBody(BaseModel):
    """The bundle that a channel is to point to; ``null`` goes back to the bundle before."""

    model_config = ConfigDict(extra="forbid")
    bundle: Digest | None


@router.get("/bundles", response_model=Page[BundleSummary])
def list_bundles(request: Request, caller: Reader, limit: Limit = 100, after: After = None) -> Response:
    """The tenant's bundles, ascending by digest: what each was made of, when, and which channels point to it."""
    context = context_of(request)
    dates, channels = bundle_dates_of(context, caller.tenant), list(tenant_channels(context, caller.tenant))
    part, following = page_of(sorted(dates), str, limit, after)
    summaries = [summary_of_bundle(context, digest, dates[digest], channels) for digest in part]
    return page_answer(request, summaries, following)


@router.get("/bundles/{digest}", response_model=BundleInfo)
def show_bundle(request: Request, caller: Reader, digest: Digest) -> Response:
    """``bundle.json``: what was trained on what, and the digests of the files. Its bytes have ``digest``."""
    context = context_of(request)
    store = bundle_store(context.root, check_bundle(context, caller.tenant, digest))
    data = read_info_bytes(store, digest)
    return bytes_answer(request, data, "application/json", etag=digest.removeprefix("sha256:"), caching=IMMUTABLE)


@router.get("/bundles/{digest}/uses", response_model=BundleUses)
def show_uses(request: Request, caller: Reader, digest: Digest) -> Response:
    """Channels, schedules, unfinished jobs and builds of the tenant that use the bundle."""
    context = context_of(request)
    check_bundle(context, caller.tenant, digest)
    return json_answer(request, uses_of(context, caller, digest))


@router.get("/bundles/{digest}/diagnosis", response_model=DiagnosisReport)
def show_diagnosis(request: Request, caller: Reader, digest: Digest) -> Response:
    """Whether the bundle's codes can be sampled, as a worker found it when the bundle's page asked; 404 before that."""
    context = context_of(request)
    report = read_report(bundle_store(context.root, check_bundle(context, caller.tenant, digest)), digest)
    if report is None:
        raise BundleMissing("diagnosis", "a bundle that was diagnosed", digest, "its page has a form that asks for it")
    return json_answer(request, report)


@router.post(
    "/bundles",
    response_model=BundleName,
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": [INFO_FILE],
                        "properties": {name: {"type": "string", "format": "binary"} for name in _FILES},
                    }
                }
            },
        }
    },
)
async def upload_bundle(
    request: Request,
    caller: Submitter,
    digest: Annotated[Digest | None, Query(description="The digest that the bundle must have")] = None,
) -> Response:
    """Upload a bundle: its files as the parts of a form, each under its own name. Every digest is checked, and nothing
    is kept of a bundle that is not whole."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        got = short_repr(request.headers.get("content-type", "nothing"))
        raise Problem(415, SpecError("Content-Type", "multipart/form-data", got))
    with context_of(request).uploads.one():
        return await _receive_bundle(request, caller, digest)


async def _receive_bundle(request: Request, caller: Caller, digest: Digest | None) -> Response:
    form = await request.form(max_files=len(_FILES), max_fields=2)
    try:
        parts = {name: part for name, part in form.multi_items() if isinstance(part, UploadFile)}
        if len(parts) < sum(isinstance(part, UploadFile) for _, part in form.multi_items()):
            raise SpecError("body", "each file once", "a file twice")
        return await run_in_threadpool(_store_bundle, request, caller, parts, digest)
    finally:
        await form.close()


@router.get("/channels", response_model=Page[Channel])
def list_channels(request: Request, caller: Reader, limit: Limit = 100, after: After = None) -> Response:
    """The tenant's channels, ascending by name."""
    channels = list(tenant_channels(context_of(request), caller.tenant))
    return page_answer(request, *page_of(channels, lambda channel: channel.line, limit, after))


@router.get("/channels/{channel}", response_model=Channel)
def show_channel(request: Request, caller: Reader, channel: Name) -> Response:
    """A channel: the bundle that it points to, and its history."""
    return json_answer(request, _own_channel(context_of(request), caller, channel))


@router.put("/channels/{channel}", response_model=Channel)
def set_channel(request: Request, caller: Operator, channel: Name, body: ChannelBody) -> Response:
    """Point a channel to another bundle, or back to the one before."""
    context = context_of(request)
    with audited(caller, "move channel", channel=channel, bundle=body.bundle) as change:
        _check_channel(context, caller, channel)
        if body.bundle is None:
            _own_channel(context, caller, channel)
            moved = roll_back_channel(context.root, channel, by=caller.name)
        else:
            digest = check_bundle(context, caller.tenant, body.bundle)
            at = datetime.now(UTC)
            moved = move_channel(context.root, channel, digest, by=caller.name, at=at)
            change.check(changed=moved.current.at == at)
        change.note(bundle=moved.bundle)
    return json_answer(request, moved)


def _store_bundle(request: Request, caller: Caller, parts: dict[str, UploadFile], expected: Digest | None) -> Response:
    context = context_of(request)
    with (
        audited(caller, "upload bundle", bundle=expected) as change,
        tempfile.TemporaryDirectory(prefix="latentmill-") as folder,
    ):
        for name, part in parts.items():
            if name not in _FILES:
                raise SpecError("body", f"the files of a bundle ({', '.join(_FILES)})", short_repr(name))
            _copy(part, Path(folder) / name)
        uploaded = open_store(folder)
        try:
            _check_whole(uploaded, set(parts), expected)
            digest = push(uploaded, context.root)
        except BundleError as wrong:
            texts = [
                text.replace(folder, "the upload") for text in (wrong.field, wrong.expected, wrong.got, wrong.hint)
            ]
            raise Problem(422, BundleError(*texts)) from wrong
        change.note(bundle=digest)
        change.check(changed=note_upload(context, caller.tenant, digest, caller.name))
    return json_answer(request, BundleName(bundle=digest), status=201)


def _check_whole(uploaded: Store, files: set[str], expected: Digest | None) -> None:
    """Raise ``BundleError`` unless every file of the bundle was uploaded, and no other: also where the root has the
    bundle already, as only who has all of it may use it."""
    info = parse_info(read_info_bytes(uploaded, expected))
    if others := files - {INFO_FILE, *info.files}:
        raise BundleError("body", f"the files that {INFO_FILE} names", ", ".join(sorted(others)))
    for name in info.files:
        read_file(uploaded, info, name)


def _copy(part: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        while block := part.file.read(_COPY_BYTES):
            file.write(block)


def _own_channel(context: ServerContext, caller: Caller, channel: str) -> Channel:
    _check_channel(context, caller, channel)
    try:
        return load_channel(context.root, channel)
    except BundleMissing as missing:  # its own text lists the channels of all tenants
        raise BundleMissing("channel", f"a channel of tenant {caller.tenant}", repr(channel)) from missing


def _check_channel(context: ServerContext, caller: Caller, channel: str) -> None:
    if not context.places.may_use_channel(caller.tenant, check_channel_name(channel)):
        raise BundleMissing("channel", f"a channel of tenant {caller.tenant}", repr(channel))
