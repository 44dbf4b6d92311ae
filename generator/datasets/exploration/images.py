"""Image files of many samples of a build, by few reads: neighbours in a shard are read together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.exploration.columns import Columns
from generator.errors import DatasetError, IntegrityError
from generator.production.images import extension
from generator.production.provenance.manifest import Manifest, Receipt
from generator.production.provenance.sample_table import read_rows
from generator.spec.canonical import digest_of, sha256_hex
from generator.spec.plan import Plan
from generator.spec.recipe import Recipe
from generator.store.base import Store

_THREADS = 6  # reads at a time, where they go over a network
_GAP = 16 * 1024  # bytes between two images that are read together
_MAX_READ = 4 * 2**20
MAX_TABLE_BYTES = 32 * 2**20  # of a shard that is looked into before its build is committed


@dataclass(frozen=True)
class ImagePlace:
    """Where the image file of a sample is: ``size`` bytes from ``offset`` on in the archive of ``shard``."""

    index: int
    shard: int
    offset: int
    size: int
    sha256: str


def image_places(columns: Columns, manifest: Manifest, indices: Sequence[int]) -> list[ImagePlace] | None:
    """The places of samples, in their order; ``None`` for a build whose tables do not say (version 1 recipes)."""
    plan = Plan(Recipe.model_validate(manifest.recipe))
    rows = np.asarray(indices, dtype=np.int64)
    if bool((columns["offset"][rows] < 0).any()):
        return None
    facts = zip(
        rows.tolist(),
        columns["offset"][rows].tolist(),
        columns["size"][rows].tolist(),
        (digest.tobytes().hex() for digest in columns["image_sha256"][rows]),
        strict=True,
    )
    return [ImagePlace(index, plan.shard_of(index), offset, size, sha256) for index, offset, size, sha256 in facts]


def first_places(reader: ArchiveReader, manifest: Manifest, count: int) -> list[ImagePlace] | None:
    """The places of the first samples of a build, from its first table alone; else as ``image_places``."""
    table = manifest.shards[0].table
    if manifest.recipe.get("recipe_version", 1) == 1:
        return None
    rows = read_rows(reader.table(0), field=table.key, columns=["index", "offset", "size", "image_sha256"])
    return [ImagePlace(row["index"], 0, row["offset"], row["size"], str(row["image_sha256"])) for row in rows[:count]]


def read_first_images(store: Store, receipt: Receipt, count: int) -> dict[int, bytes]:
    """The image files of the first ``count`` samples of a finished shard, by index; its build may be uncommitted.

    Raises ``IntegrityError``, also for builds whose tables do not say where images are (version 1 recipes);
    ``DatasetError`` for a table over ``MAX_TABLE_BYTES``; ``StoreError``.
    """
    file, field = receipt.table, f"{store.url}/{receipt.table.key}"
    if file.size > MAX_TABLE_BYTES:
        raise DatasetError(field, f"a table of at most {MAX_TABLE_BYTES} bytes", file.size)
    data = store.get(file.key, file.size)
    if (digest := digest_of(data)) != file.digest:
        raise IntegrityError(field, f"bytes with digest {file.digest}", digest)
    rows = read_rows(data, field=field, columns=["index", "offset", "size", "image_sha256"])[:count]
    places = [ImagePlace(row["index"], 0, row["offset"], row["size"], str(row["image_sha256"])) for row in rows]
    found = (_read_span(store, receipt.shard.key, span) for span in _spans(places))
    return {index: image for each in found for index, image in each.items()}


def read_images(store: Store, manifest: Manifest, places: Sequence[ImagePlace]) -> dict[int, bytes]:
    """The image files of ``places`` by index; their digests are checked. Raises ``IntegrityError``, ``StoreError``."""
    spans = _spans(places)
    if len(spans) < 2 or store.url.startswith("file://"):
        found: Iterable[dict[int, bytes]] = (_read_span(store, _archive(manifest, span), span) for span in spans)
    else:
        with ThreadPoolExecutor(min(_THREADS, len(spans))) as pool:
            found = list(pool.map(lambda span: _read_span(store, _archive(manifest, span), span), spans))
    return {index: data for each in found for index, data in each.items()}


def read_whole_samples(reader: ArchiveReader, manifest: Manifest, indices: Sequence[int]) -> dict[int, bytes]:
    """The image files of a build whose tables do not say where they are; slow. Raises as ``read_images``."""
    plan, suffix = Plan(Recipe.model_validate(manifest.recipe)), extension(manifest.image.format)
    shards = {index: plan.shard_of(index) for index in indices}
    return {index: reader.sample(shard, index - plan.start(shard))[1][suffix] for index, shard in shards.items()}


def _spans(places: Sequence[ImagePlace]) -> list[list[ImagePlace]]:
    """Places that are read together, each list in the order of the archive."""
    spans = list[list[ImagePlace]]()
    for place in sorted(places, key=lambda each: (each.shard, each.offset)):
        last = spans[-1] if spans else None
        if last is not None and _is_near(last, place):
            last.append(place)
        else:
            spans.append([place])
    return spans


def _is_near(span: list[ImagePlace], place: ImagePlace) -> bool:
    first, last = span[0], span[-1]
    gap, whole = place.offset - last.offset - last.size, place.offset + place.size - first.offset
    return place.shard == last.shard and gap <= _GAP and whole <= _MAX_READ


def _archive(manifest: Manifest, span: list[ImagePlace]) -> str:
    return manifest.shards[span[0].shard].shard.key


def _read_span(store: Store, key: str, span: list[ImagePlace]) -> dict[int, bytes]:
    begin = span[0].offset
    data = store.read(key, begin, span[-1].offset + span[-1].size - begin)
    found = {each.index: data[each.offset - begin : each.offset - begin + each.size] for each in span}
    for each in span:
        if (digest := sha256_hex(found[each.index])) != each.sha256:
            field = f"{store.url}/{key} at byte {each.offset}"
            raise IntegrityError(
                field, f"an image with sha256 {each.sha256}", digest, "latentmill verify lists all damage"
            )
    return found
