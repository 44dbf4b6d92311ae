"""Lineage: from a build, or from an image found anywhere, back to shard, recipe, bundle and source.

An image is found in a build by the sha256 of its file, which the tables hold; the mark in its XMP packet says which
build to look in. Where a file was changed, the mark alone still names the build, if it was left in. Imports no torch.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from PIL import Image

from generator.datasets.builds import build_store, find_build, is_committed, list_builds, read_manifest
from generator.errors import DatasetError
from generator.production.images import is_marked_synthetic, marked_build
from generator.production.provenance.manifest import RECIPE_KEY, Manifest, Receipt
from generator.production.provenance.sample_table import read_rows
from generator.signatures import SIGNATURES_PREFIX
from generator.spec.canonical import sha256_hex
from generator.spec.recipe import Recipe
from generator.store import S3Settings, open_store
from generator.store.base import Store

MAX_IMAGE_BYTES = 2**28
_READERS = 8  # tables that are read at a time
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF")


@dataclass(frozen=True)
class BuildLineage:
    """What a build was made of, as its manifest says. ``signatures``: how many lie beside it; none is checked here."""

    url: str
    build: str
    recipe: str
    published: str | None
    bundle: str
    model: str
    sampler: str
    source: str
    source_fingerprint: str
    signatures: int


@dataclass(frozen=True)
class ImageLineage:
    """Where an image comes from.

    ``marked``: whether its file says that it is synthetic; ``marked_build``: the build that it names. ``sample``: its
    row in the table of ``shard``, in the build ``build``; all ``None`` if no table that was searched holds the sha256
    of the file. ``searched``: the URLs of the builds that were searched.
    """

    sha256: str
    marked: bool
    marked_build: str | None
    build: BuildLineage | None = None
    shard: str | None = None
    sample: dict[str, Any] | None = None
    searched: tuple[str, ...] = field(default=())


def trace_build(url: str, s3: S3Settings | None = None) -> BuildLineage:
    """The lineage of the committed build at ``url`` (as for ``resolve_build``). Raises ``DatasetError``."""
    store = find_build(url, s3)
    return _build_lineage(store, read_manifest(store))


def trace_image(data: bytes, places: tuple[str, ...] = (), s3: S3Settings | None = None) -> ImageLineage:
    """The lineage of the image file ``data``, searched for in ``places``: URLs of datasets or builds.

    Of a dataset, the build that the mark names is searched, or every committed build if the mark names none of its
    builds. Raises ``DatasetError`` for bytes that are no image and for places without a build, ``IntegrityError`` for a
    table that is damaged.
    """
    found = _read_mark(data)
    searched = list[str]()
    for store in (store for place in places for store in _builds_at(place, found.marked_build, s3)):
        searched.append(store.url)
        manifest = read_manifest(store)
        if (place := _find_row(store, manifest, found.sha256)) is not None:
            receipt, row = place
            build = _build_lineage(store, manifest)
            return ImageLineage(
                found.sha256, found.marked, found.marked_build, build, receipt.shard.key, row, tuple(searched)
            )
    return ImageLineage(found.sha256, found.marked, found.marked_build, searched=tuple(searched))


def _read_mark(data: bytes) -> ImageLineage:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS):
            return ImageLineage(sha256_hex(data), is_marked_synthetic(data), marked_build(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as broken:
        raise DatasetError("image", "an image file", f"{len(data)} bytes that do not parse ({broken})") from broken


def _builds_at(url: str, marked: str | None, s3: S3Settings | None) -> Iterator[Store]:
    store = open_store(url, s3)
    builds = [] if store.head(RECIPE_KEY) is not None else list_builds(store)
    if not builds:
        yield find_build(url, s3)
        return
    for build in [marked] if marked in builds else builds:
        if build is not None and is_committed(build_store(store, build)):
            yield build_store(store, build)


def _find_row(store: Store, manifest: Manifest, sha256: str) -> tuple[Receipt, dict[str, Any]] | None:
    """The shard and the row of the sample with this sha256; tables are read a few at a time."""

    def look(receipt: Receipt) -> bytes | None:
        table = store.get(receipt.table.key, receipt.table.size)
        hashes = read_rows(table, field=receipt.table.key, columns=["image_sha256"])
        return table if any(row["image_sha256"] == sha256 for row in hashes) else None

    left = iter(manifest.shards)
    with ThreadPoolExecutor(_READERS) as pool:
        while receipts := list(islice(left, _READERS)):
            for receipt, table in zip(receipts, pool.map(look, receipts), strict=True):
                if table is not None:
                    rows = read_rows(table, field=receipt.table.key)
                    return receipt, next(row for row in rows if row["image_sha256"] == sha256)
    return None


def _build_lineage(store: Store, manifest: Manifest) -> BuildLineage:
    facts = manifest.provenance
    return BuildLineage(
        url=store.url,
        build=manifest.build_id,
        recipe=manifest.recipe_digest,
        published=Recipe.model_validate(manifest.recipe).published,
        bundle=facts.bundle,
        model=facts.model,
        sampler=facts.sampler,
        source=facts.source,
        source_fingerprint=facts.source_fingerprint,
        signatures=sum(1 for _ in store.list(SIGNATURES_PREFIX)),
    )
