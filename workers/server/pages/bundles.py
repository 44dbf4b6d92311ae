"""Pages of bundles: those of the tenant, the newest first, and what is known of one."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.curation.diagnosis.report import PICTURES, DiagnosisReport, PictureName, read_picture, read_report
from generator.drafts import parse_draft
from generator.errors import BrokerUnavailable, BundleError, LatentmillError, StoreError
from generator.models.bundle import BundleInfo, bundle_store, read_info
from generator.models.bundle.listing import BundleSummary, newest_first, summary_of
from generator.spec.patterns import pattern
from generator.spec.recipe import Digest
from workers.jobs.queries import ask_diagnosis, preview
from workers.server.audited import audited
from workers.server.bundle_uses import find_uses, uses_of
from workers.server.bundles import (
    bundle_dates_of,
    check_bundle,
    created_at,
    summary_of_bundle,
    tenant_channels,
)
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.diagnoses import take_and_keep
from workers.server.pages.bundle_pictures import Pair, SheetShelf, pairs_of
from workers.server.pages.curves import draw_curves
from workers.server.pages.explore import is_part
from workers.server.pages.inline_errors import shown_error
from workers.server.pages.pictures import data_url
from workers.server.pages.rendering import render
from workers.server.problems import Problem

_PAGE = 24
_SAMPLES, _MAX_SAMPLES, _SAMPLE_SECONDS = 30, 60, 20.0
_DIAGNOSIS_SECONDS = 900  # after which a page no longer asks for the answer
_SHOWN_CLASSES = 500
_STOP_POLLING = 286  # htmx asks no more
_IMMUTABLE = "private, max-age=31536000, immutable"

Reader = Annotated[Caller, Depends(require("reader"))]
Submitter = Annotated[Caller, Depends(require("submitter"))]
QueryId = Annotated[str, Query(pattern=pattern(r"^([0-9a-f]{32})?$", "32 digits of 0-9 and a-f, or nothing"))]
Until = Annotated[int, Query(ge=0, le=2**53)]

router = APIRouter(include_in_schema=False)
_sheets = SheetShelf()


@router.get("/bundles")
def list_bundles(request: Request, caller: Reader, after: Annotated[str, Query(max_length=80)] = "") -> Response:
    """The tenant's channels and bundles, the newest first."""
    context = context_of(request)
    dates, channels = bundle_dates_of(context, caller.tenant), list(tenant_channels(context, caller.tenant))
    digests = newest_first(dates)
    begin = digests.index(after) + 1 if after in dates else 0
    part = digests[begin : begin + _PAGE]
    summaries = [summary_of_bundle(context, digest, dates[digest], channels) for digest in part]
    return render(
        request,
        "bundles.html",
        channels=channels if not begin else [],
        bundles=summaries,
        uses=find_uses(context, caller),
        first=begin + 1,
        total=len(digests),
        following=part[-1] if begin + _PAGE < len(digests) else "",
        names={each.bundle: each.source for each in summaries},
    )


@router.get("/bundles/{digest}")
def show_bundle(request: Request, caller: Reader, digest: Digest, query: QueryId = "", until: Until = 0) -> Response:
    """One bundle: what it was made of, how well it does, what uses it."""
    context = context_of(request)
    info, summary = _find(context, caller, digest)
    pairs, no_pairs = _pairs(context, digest, info)
    return render(
        request,
        "bundle.html",
        digest=digest,
        info=info,
        summary=summary,
        facts=_facts(info, summary),
        rates=_rates(info),
        curves=draw_curves(info.training.history) if info.training else None,
        pairs=pairs,
        no_pairs=no_pairs,
        uses=uses_of(context, caller, digest),
        may_submit=caller.may("submitter"),
        shown_classes=_SHOWN_CLASSES,
        **_verdict(request, context, caller, digest, query, until),
    )


@router.get("/bundles/{digest}/picture")
def show_sheet(request: Request, caller: Reader, digest: Digest) -> Response:
    """A few of the real images that the bundle keeps, as one JPEG file."""
    context = context_of(request)
    store = bundle_store(context.root, check_bundle(context, caller.tenant, digest))
    sheet = _sheets.get(store, digest, read_info(store, digest)[1])
    return Response(sheet, media_type="image/jpeg", headers={"Cache-Control": _IMMUTABLE})


@router.get("/bundles/{digest}/samples")
def show_samples(request: Request, caller: Submitter, digest: Digest) -> Response:
    """Samples of the bundle, made by a worker at once; nothing of them is stored."""
    context = context_of(request)
    info, summary = _find(context, caller, digest)
    values: dict[str, Any] = {
        "digest": digest,
        "info": info,
        "summary": summary,
        "images": [],
        "refused": 0,
        "wrong": "",
    }
    status = 200
    try:
        with audited(caller, "preview", bundle=digest):
            made = preview(
                context.pool, _sample_spec(context, caller, digest, info), _samples_of(info), _SAMPLE_SECONDS
            )
        values["images"] = [
            {"src": data_url(image.data, f"image/{made.format}"), "name": image.class_name or "", "index": image.index}
            for image in sorted(made.images, key=lambda image: (image.label or 0, image.index))
        ]
        values["refused"] = made.refused
    except (LatentmillError, Problem) as wrong:
        status, error = shown_error(request, caller, wrong)
        values["wrong"] = str(error)
    if is_part(request):
        return render(request, "bundle_samples.html", **values)  # 200: htmx shows no other answer in its place
    return render(request, "bundle_samples_page.html", status=status, **values)


@router.post("/bundles/{digest}/diagnosis")
def diagnose(request: Request, caller: Submitter, digest: Digest, whole: Annotated[bool, Form()] = False) -> Response:
    """Have a worker diagnose the bundle; its page shows the verdict when it is there."""
    context = context_of(request)
    with audited(caller, "diagnose bundle", bundle=digest):
        check_bundle(context, caller.tenant, digest)
        query = ask_diagnosis(context.pool, digest, quick=not whole)
    until = int(time.time()) + _DIAGNOSIS_SECONDS
    return RedirectResponse(f"/bundles/{digest}?query={query}&until={until}#verdict", 303)


@router.get("/bundles/{digest}/verdict")
def show_verdict(request: Request, caller: Reader, digest: Digest, query: QueryId = "", until: Until = 0) -> Response:
    """The verdict alone, for a page that waits for it."""
    context = context_of(request)
    check_bundle(context, caller.tenant, digest)
    values = _verdict(request, context, caller, digest, query, until)
    status = 200 if values["waiting"] else _STOP_POLLING
    may_submit = caller.may("submitter")
    return render(request, "bundle_verdict.html", status=status, digest=digest, may_submit=may_submit, **values)


@router.get("/bundles/{digest}/verdict/{picture}.png")
def show_picture(request: Request, caller: Reader, digest: Digest, picture: PictureName) -> Response:
    """A picture of the diagnosis."""
    context = context_of(request)
    data = read_picture(bundle_store(context.root, check_bundle(context, caller.tenant, digest)), picture)
    return Response(data, media_type="image/png", headers={"Cache-Control": "private, no-cache"})


def _find(context: ServerContext, caller: Caller, digest: Digest) -> tuple[BundleInfo, BundleSummary]:
    """Raises ``BundleMissing``, ``BundleError``, ``StoreError``."""
    info = read_info(bundle_store(context.root, check_bundle(context, caller.tenant, digest)), digest)[1]
    created = created_at(context, digest)
    assert created is not None
    lines = tuple(each.line for each in tenant_channels(context, caller.tenant) if each.bundle == digest)
    return info, summary_of(digest, info, created, lines)


def _pairs(context: ServerContext, digest: Digest, info: BundleInfo) -> tuple[list[Pair], str]:
    """Held-out images beside their reconstructions, or why there are none."""
    try:
        found = pairs_of(bundle_store(context.root, digest), info)
    except (BundleError, StoreError) as broken:
        field = broken.field if isinstance(broken, BundleError) else "the store"
        return [], f"They cannot be read: {field} is missing or damaged."
    return found, "" if found else "The bundle keeps no pictures of them (latentmill train --keep-thumbnails)."


def _verdict(
    request: Request, context: ServerContext, caller: Caller, digest: Digest, query: str, until: int
) -> dict[str, Any]:
    """What the template of the verdict knows: the report, whether a worker is at it, and what went wrong."""
    wrong, taken = "", False
    if query:
        try:
            taken = take_and_keep(context, digest, query)
        except LatentmillError as error:
            taken = not isinstance(error, BrokerUnavailable | StoreError)  # else it is asked again
            wrong = str(shown_error(request, caller, error)[1])
    waiting = bool(query) and not taken and time.time() < until
    report = _report(context, digest)
    if query and not taken and not waiting:
        wrong = "" if report else "No worker has answered in time."
    return {"report": report, "waiting": waiting, "wrong": wrong, "query": query, "until": until, "titles": PICTURES}


def _report(context: ServerContext, digest: Digest) -> DiagnosisReport | None:
    try:
        return read_report(bundle_store(context.root, digest), digest)
    except StoreError:
        return None


def _samples_of(info: BundleInfo) -> int:
    classes = max(1, len(info.classes))
    return min(_MAX_SAMPLES, max(_SAMPLES, classes * max(1, _SAMPLES // classes)))


def _sample_spec(context: ServerContext, caller: Caller, digest: Digest, info: BundleInfo) -> Any:
    """A job spec that is only looked at."""
    place = min(context.places.places(caller.tenant).values())
    fields = {
        "bundle": digest,
        "count": _samples_of(info),
        "destination": place,
        "name": "preview",
        "tenant": caller.tenant,
        "published": None,  # nothing is published, so the place is not looked at
    }
    return context.client.resolve(parse_draft(fields))[0]


def _facts(info: BundleInfo, summary: BundleSummary) -> dict[str, str]:
    """What a table shows, by name."""
    last = info.training.history[-1] if info.training and info.training.history else None
    training = f"{len(info.training.history)} epochs" if info.training and last else "none: an imported network"
    colours = "grey" if info.image.channels == 1 else "colour"
    return {
        "Images": f"{info.image.width} x {info.image.height} pixels, {colours}",
        "Source": f"{info.source.name}: {info.source.images:,} images, and {info.source.holdout:,} held out",
        "Classes": f"{len(info.classes):,}" if info.classes else "none: unlabelled",
        "Autoencoder": f"{info.autoencoder.family}, {training}",
        "Code": f"{info.latent_dim:,} numbers",
        "Latent distribution": _latents(info),
        "Judge": "yes" if info.judge else "no",
        "Copy index": "yes" if info.passing.novelty is not None else "no",
        "Pictures of real images": "yes" if summary.thumbnails else "no",
        "Created (UTC)": summary.created.strftime("%Y-%m-%d %H:%M"),
        "Channels": ", ".join(summary.channels) or "none points to it",
    }


def _latents(info: BundleInfo) -> str:
    clusters = info.latents.get("clusters")
    count = sum(each for each in clusters if isinstance(each, int)) if isinstance(clusters, list) else 0
    return str(info.latents.get("family", "")) + (f", {count:,} clusters" if count else "")


def _rates(info: BundleInfo) -> list[tuple[str, float, float | None]]:
    """Class, share of its samples that pass the judge, and the floor that jobs have by default."""
    floors = info.passing.label_floors
    return list(zip(info.classes, info.passing.label, floors, strict=True)) if info.passing.label else []
