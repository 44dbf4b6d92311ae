"""The page of one sample: its image and row, the nearest real images, where it comes from, and what was refused."""

from __future__ import annotations

import shlex
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from generator.datasets.exploration.columns import Columns
from generator.datasets.exploration.neighbours import RealCodes, read_latent, read_real_codes
from generator.errors import BundleError, BundleMissing, IntegrityError
from generator.models.bundle import bundle_store, read_info
from generator.production.provenance.sample_table import read_rows
from generator.store import is_remote
from workers.jobs.queries import MAX_EXPLAINED, RefusalReason, explain
from workers.server.builds import CommittedBuild
from workers.server.callers import Caller
from workers.server.context import ServerContext, context_of
from workers.server.headers import is_loopback
from workers.server.pages.explore import BUILD, Reader, base_of, is_part
from workers.server.pages.pictures import MEDIA_TYPES, data_url, image_of, sample_address
from workers.server.pages.rendering import render

_IMMUTABLE = "private, max-age=31536000, immutable"
_SAMPLE = BUILD + "/samples/{index:int}"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Neighbour:
    """A real image beside a sample; ``src``: its picture, if the bundle has one."""

    src: str | None
    distance: float
    class_name: str | None


class _RealCodesShelf:
    """The codes of the bundle that was looked at last: they may take a hundred megabytes."""

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), OrderedDict[str, RealCodes | None]()

    def get(self, context: ServerContext, digest: str) -> RealCodes | None:
        key = f"{context.root.url} {digest}"
        with self._lock:
            if key not in self._held:
                self._held.clear()
                self._held[key] = _read(context, digest)
            return self._held[key]


def _read(context: ServerContext, digest: str) -> RealCodes | None:
    store = bundle_store(context.root, digest)
    return read_real_codes(store, read_info(store, digest)[1])


_shelf = _RealCodesShelf()


@router.get(_SAMPLE)
def show_sample(request: Request, caller: Reader, dataset: str, build: str, index: int) -> Response:
    """One sample."""
    context, base = context_of(request), base_of(dataset, build)
    found = context.build(caller.tenant, dataset, build)
    shard, place = found.place_of(index)
    table = found.reader.table(shard)
    row = _row(found, table, shard, place, index)
    neighbours, why_none = _neighbours(context, found, table, shard, place)
    return render(
        request,
        "sample.html",
        dataset=dataset,
        base=base,
        build=found,
        index=index,
        row=row,
        src=data_url(image_of(found, _columns(context, found), index), MEDIA_TYPES[found.manifest.image.format]),
        likely=_likely(found, row),
        neighbours=neighbours,
        why_none=why_none,
        url=_shown_url(context, caller, found.store.url),
        place=dataset.partition("/")[0],
        build_path=f"{dataset.partition('/')[2]}/builds/{build}",
        shard_key=found.manifest.shards[shard].shard.key,
        environment=found.manifest.shards[shard].environment,
        before=sample_address(base, index - 1) if index else None,
        after=sample_address(base, index + 1) if index + 1 < found.recipe.total else None,
    )


@router.get(_SAMPLE + "/image")
def show_image(request: Request, caller: Reader, dataset: str, build: str, index: int) -> Response:
    """The image file of one sample, as it lies in its shard; its digest is checked."""
    context = context_of(request)
    found = context.build(caller.tenant, dataset, build)
    data = image_of(found, _columns(context, found), index)
    return Response(data, media_type=MEDIA_TYPES[found.manifest.image.format], headers={"Cache-Control": _IMMUTABLE})


@router.get(_SAMPLE + "/refused")
def show_refused(request: Request, caller: Reader, dataset: str, build: str, index: int) -> Response:
    """The draws of a sample that were refused, made again by a worker."""
    context, base = context_of(request), base_of(dataset, build)
    found = context.build(caller.tenant, dataset, build)
    shard, place = found.place_of(index)
    row = _row(found, found.reader.table(shard), shard, place, index)
    attempts = list(range(row["attempt"]))[-MAX_EXPLAINED:]
    draws = (
        explain(
            context.pool,
            found.store.url,
            found.manifest.name,
            index=index,
            attempts=attempts,
            label=row.get("label") or 0,
        )
        if attempts
        else []
    )
    media_type = MEDIA_TYPES[found.manifest.image.format]
    shown = [
        {
            "attempt": draw.attempt,
            "src": data_url(draw.data, media_type),
            "reasons": [_words(each) for each in draw.reasons],
        }
        for draw in draws
    ]
    values = {"draws": shown, "left_out": row["attempt"] - len(attempts), "index": index}
    if is_part(request):
        return render(request, "refused.html", **values)
    return render(request, "refused_page.html", dataset=dataset, base=base, build=found, **values)


def _shown_url(context: ServerContext, caller: Caller, url: str) -> str:
    """The URL of a build for a command line; empty where this caller does not learn paths of the server."""
    is_own = is_loopback(context.settings.server_host) and context.places.are_local(caller.tenant)
    return shlex.quote(url) if is_own or is_remote(url) else ""


def _columns(context: ServerContext, found: CommittedBuild) -> Columns | None:
    """The columns of a build if they are there: one sample is no reason to gather them."""
    return context.columns.find_open(found)


def _row(found: CommittedBuild, table: bytes, shard: int, place: int, index: int) -> dict[str, Any]:
    key = found.manifest.shards[shard].table.key
    rows = read_rows(table, field=key)
    if place >= len(rows) or rows[place].get("index") != index:
        raise IntegrityError(key, f"sample {index} in row {place}", "another one")
    return rows[place]


def _likely(found: CommittedBuild, row: dict[str, Any]) -> list[tuple[str, float]]:
    """The judge's most likely classes, by name."""
    labels, shares = row.get("likely_labels") or [], row.get("likely_probabilities") or []
    classes = found.manifest.classes
    return [
        (classes[label], float(share))
        for label, share in zip(labels[:5], shares[:5], strict=False)
        if 0 <= label < len(classes)
    ]


def _neighbours(
    context: ServerContext, found: CommittedBuild, table: bytes, shard: int, place: int
) -> tuple[list[Neighbour], str]:
    """The nearest real images, or why there are none."""
    point_D = read_latent(table, place, field=found.manifest.shards[shard].table.key)
    if point_D is None:
        return [], "The tables of this build hold no latent points (latents: true in the spec)."
    try:
        codes = _shelf.get(context, found.recipe.bundle)
    except BundleMissing:
        return [], "The bundle of this build is not in the store root."
    except BundleError as broken:
        return [], f"The bundle of this build cannot be read: {broken}"
    if codes is None or codes.codes_ND.shape[1] != len(point_D):
        return [], "The bundle of this build keeps no codes of real images."
    nearest, names = codes.nearest(point_D), codes.classes
    pictures = [codes.thumbnails.find(each.row) if codes.thumbnails else None for each in nearest]
    return [
        Neighbour(
            None if picture is None else data_url(picture, "image/jpeg"),
            each.distance,
            None if each.label is None else names[each.label],
        )
        for each, picture in zip(nearest, pictures, strict=True)
    ], ("" if codes.thumbnails else "The bundle keeps no pictures of them (latentmill train --keep-thumbnails).")


def _words(reason: RefusalReason) -> str:
    words = {
        "density floor": "less likely than the density floor",
        "label floor": "not enough of its class for the judge",
        "novelty floor": "too near to a training image",
        "one value everywhere": "the same value in every pixel",
    }.get(reason.check, reason.check)
    if reason.got is None or reason.floor is None:
        return words
    return f"{words}: {reason.got:.4g}, at least {reason.floor:.4g} needed"
