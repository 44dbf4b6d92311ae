"""Routes of samples: rows of the tables by filter and page, one row, one image."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from generator.datasets.sample_columns import filter_shard
from generator.datasets.sample_filter import MAX_LENGTH
from generator.errors import IntegrityError, SpecError
from generator.production.images import extension
from generator.production.provenance.sample_table import read_rows
from generator.spec.canonical import short_repr
from workers.server.api.datasets import BUILD
from workers.server.api.routing import (
    IMMUTABLE,
    After,
    Limit,
    Page,
    Reader,
    bytes_answer,
    json_answer,
    new_router,
    page_answer,
)
from workers.server.builds import CommittedBuild
from workers.server.context import context_of

_MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg"}
_SHARDS_OF_A_PAGE = 20  # tables that are read for one page at most

router = new_router("samples")


class Row(BaseModel):
    """A row of a table, by column: ``index``, ``attempt``, ``label``, ``class``, ``cluster``, ``log_density``, ..."""

    model_config = {"extra": "allow"}
    index: int


@router.get(BUILD + "/samples", response_model=Page[Row])
def list_samples(
    request: Request,
    caller: Reader,
    dataset: str,
    build: str,
    limit: Limit = 100,
    after: After = None,
    where: Annotated[str | None, Query(max_length=MAX_LENGTH, description="label_confidence > 0.9")] = None,
) -> Response:
    """Rows of the samples that ``where`` selects, in the order of the build. A page may hold fewer than ``limit`` rows,
    even none, and still have a next one: it ends after 20 shards."""
    found = context_of(request).build(caller.tenant, dataset, build)
    shard, row = _parse_place(after)
    rows, last = list[dict[str, Any]](), min(len(found.manifest.shards), shard + _SHARDS_OF_A_PAGE)
    while shard < last:
        for place, each in _selected(found, shard, where):
            if place < row:
                continue
            if len(rows) == limit:
                return page_answer(request, rows, f"{shard}.{place}")
            rows.append(each)
        shard, row = shard + 1, 0
    following = f"{shard}.0" if shard < len(found.manifest.shards) else None
    return page_answer(request, rows, following)


@router.get(BUILD + "/samples/{index}", response_model=Row)
def show_sample(request: Request, caller: Reader, dataset: str, build: str, index: int) -> Response:
    """The row of one sample."""
    found = context_of(request).build(caller.tenant, dataset, build)
    shard, row = found.place_of(index)
    rows = read_rows(found.reader.table(shard), field=found.manifest.shards[shard].table.key)
    if row >= len(rows) or rows[row].get("index") != index:
        raise IntegrityError(found.manifest.shards[shard].table.key, f"sample {index} in row {row}", "another one")
    return json_answer(request, _finite(rows[row]), caching=IMMUTABLE)


@router.get(BUILD + "/samples/{index}/image", response_class=Response)
def show_image(request: Request, caller: Reader, dataset: str, build: str, index: int) -> Response:
    """The image file of one sample, as it lies in its shard; its digest is checked."""
    found = context_of(request).build(caller.tenant, dataset, build)
    shard, row = found.place_of(index)
    name = extension(found.manifest.image.format)
    key, files = found.reader.sample(shard, row)
    if name not in files:
        raise IntegrityError(key, f"an image of type {name}", ", ".join(sorted(files)))
    return bytes_answer(request, files[name], _MEDIA_TYPES[found.manifest.image.format], caching=IMMUTABLE)


def _selected(found: CommittedBuild, shard: int, where: str | None) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a shard that ``where`` selects, with their places in it."""
    return [(place, _finite(row)) for place, row in filter_shard(found.reader, found.manifest, shard, where)]


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """``row`` with ``None`` for what JSON has no number for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _parse_place(after: str | None) -> tuple[int, int]:
    shard, _, row = (after or "0.0").partition(".")
    if not (shard.isdecimal() and row.isdecimal() and len(shard) < 10 and len(row) < 10):
        raise SpecError("after", "the next of the page before", short_repr(after))
    return int(shard), int(row)
