"""Receipts (one per finished shard), the manifest (the commit), and the keys of all objects of a build.

The manifest lists the receipts of the shards; that of a large build lists segments, objects that hold the receipts of
some shards each. All are pure functions of recipe, environment and dataset name: no time, no host, no worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from generator.errors import DatasetError, IntegrityError
from generator.production.provenance.segmented_sequence import HELD_BYTES, SegmentedSequence
from generator.spec.canonical import (
    MAX_JSON_BYTES,
    FrozenModel,
    GrowingModel,
    Later,
    canonical_json,
    digest_of,
    read_json,
    validate,
)
from generator.spec.recipe import MAX_SHARDS, ClassName, Digest, Name, Recipe, ShardFormatName, Sidecar
from generator.store.base import Store

RECIPE_KEY = "recipe.json"
ENVIRONMENT_KEY = "environment.json"
MANIFEST_KEY: Final = "manifest.json"
CARD_KEY = "README.md"
CROISSANT_KEY = "croissant.json"
PREVIEW_KEY = "preview.jpg"
PAGE_KEY = "index.html"
CODES_PREFIX = "codes/"
SEGMENTS_PREFIX = "segments/"
INDEX_KEY = "shards/index.json"  # of builds whose shards are MDS files

MAX_RECIPE_BYTES = MAX_JSON_BYTES
MAX_RECEIPT_BYTES = 8 * 2**20  # with many classes, most of it is the counts
MAX_SEGMENT_BYTES = MAX_JSON_BYTES
MAX_EXTRA_BYTES = 64 * 2**20  # of the card, the Croissant file, the preview, and the page, each
MAX_MANIFEST_BYTES = 2**30  # 999,999 receipts of few classes
_RECEIPT_BYTES = 2600  # that a receipt of few classes takes in memory

Size = Annotated[int, Field(ge=0, lt=2**53)]
ShardNumber = Annotated[int, Field(ge=0, lt=MAX_SHARDS)]


_SUFFIXES: dict[ShardFormatName, str] = {"webdataset": "tar", "parquet": "parquet", "mds": "mds"}
_SIDECAR_SUFFIXES: dict[Sidecar, str] = {"dali": "idx"}


def shard_key(name: str, number: int, shard_format: ShardFormatName = "webdataset") -> str:
    return f"shards/{name}-{number:06d}.{_SUFFIXES[shard_format]}"


def sidecar_keys(name: str, number: int, sidecars: tuple[Sidecar, ...]) -> dict[Sidecar, str]:
    """The key of each sidecar of a shard, in the order of ``sidecars``."""
    return {sidecar: f"shards/{name}-{number:06d}.{_SIDECAR_SUFFIXES[sidecar]}" for sidecar in sidecars}


def table_key(name: str, number: int) -> str:
    return f"samples/{name}-{number:06d}.parquet"


def shard_keys(name: str, number: int, recipe: Recipe) -> tuple[str, ...]:
    """The keys of the files of a shard that its receipt names: archive, table, sidecars."""
    archive, sidecars = shard_key(name, number, recipe.format), sidecar_keys(name, number, recipe.sidecars)
    return archive, table_key(name, number), *sidecars.values()


def extra_keys(recipe: Recipe) -> tuple[str, ...]:
    """The keys of the files that the manifest of a build lists beside its shards."""
    index = (INDEX_KEY,) if recipe.format == "mds" else ()
    page = (PAGE_KEY,) if recipe.page else ()
    return CARD_KEY, CROISSANT_KEY, PREVIEW_KEY, *page, *index, *map(code_key, recipe.stored_codes)


def receipt_key(number: int) -> str:
    return f"receipts/{number:06d}.json"


def segment_key(first: int) -> str:
    """The key of the segment that begins with shard ``first``."""
    return f"{SEGMENTS_PREFIX}{first:06d}.json"


def code_key(digest: str) -> str:
    """The key of a code that the recipe names by ``digest``."""
    return f"{CODES_PREFIX}{digest.removeprefix('sha256:')}.safetensors"


class StoredFile(FrozenModel):
    """An object of a build: its key below the build's prefix, its digest, its size in bytes."""

    key: str = Field(min_length=1, max_length=400)
    digest: Digest
    size: Size


class Receipt(GrowingModel):
    """One finished shard. If it exists, archive and table are stored completely, with these digests."""

    receipt_version: Literal[1] = 1
    recipe: Digest
    environment: Digest
    number: ShardNumber
    samples: Annotated[int, Field(ge=0, le=100_000, strict=True)]  # the maximum of a shard
    counts: tuple[Size, ...]  # per class; a single count when unlabelled
    refused: Size  # draws that the filters refused before these samples
    shard: StoredFile
    table: StoredFile
    sidecars: Annotated[tuple[StoredFile, ...], Later()] = ()  # as many as the recipe asks for

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files of the shard: archive, table, sidecars."""
        return self.shard, self.table, *self.sidecars

    @property
    def bytes(self) -> int:
        """The size of these files together."""
        return sum(file.size for file in self.files)


class Provenance(FrozenModel):
    """The origin of the decoder and the latent distribution."""

    bundle: Digest
    model: str
    sampler: str
    source: str
    source_fingerprint: Digest


class ImageFacts(FrozenModel):
    """The format of all images of the build: height and width in pixels, 1 (grey) or 3 (RGB) channels, file format."""

    height: int
    width: int
    channels: Literal[1, 3]
    format: Literal["png", "jpeg"]


class _BuildFacts(FrozenModel):
    """What manifests of all versions hold."""

    kind: Literal["latentmill.manifest"] = "latentmill.manifest"
    name: Name
    build_id: str
    recipe_digest: Digest
    recipe: dict[str, Any]
    environments: dict[Digest, dict[str, Any]]
    provenance: Provenance
    image: ImageFacts
    classes: tuple[ClassName, ...]
    counts: tuple[Size, ...]
    samples: Size
    bytes: Size
    refused: Size
    extras: tuple[StoredFile, ...]  # card, Croissant file, preview, page, index of MDS shards; codes of the recipe


class ListedManifest(_BuildFacts):
    """A manifest that lists the receipts of all shards."""

    manifest_version: Literal[1] = 1
    shards: tuple[Receipt, ...]

    @property
    def segments(self) -> tuple[ListedSegment, ...]:
        return ()

    def shard_sizes(self) -> np.ndarray:
        """The number of samples of each of S shards: int64 of shape (S,)."""
        return np.array([receipt.samples for receipt in self.shards], dtype=np.int64)

    @property
    def held_bytes(self) -> int:
        """About how much memory the receipts take at most."""
        return _RECEIPT_BYTES * len(self.shards)


class ListedSegment(StoredFile):
    """A segment as a manifest lists it: the ``shards`` shards from ``first`` on, and the totals of their receipts."""

    first: ShardNumber
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)]
    samples: Size
    bytes: Size
    refused: Size


class Segment(FrozenModel):
    """The receipts of consecutive shards as one object: a pure function of them."""

    kind: Literal["latentmill.segment"] = "latentmill.segment"
    segment_version: Literal[1] = 1
    recipe: Digest
    receipts: Annotated[tuple[Receipt, ...], Field(min_length=1)]

    @property
    def first(self) -> int:
        """The number of the first shard."""
        return self.receipts[0].number

    def listed(self, data: bytes) -> ListedSegment:
        """This segment, stored as ``data``, as the manifest lists it."""
        return ListedSegment(
            key=segment_key(self.first),
            digest=digest_of(data),
            size=len(data),
            first=self.first,
            shards=len(self.receipts),
            samples=sum(receipt.samples for receipt in self.receipts),
            bytes=sum(receipt.bytes for receipt in self.receipts),
            refused=sum(receipt.refused for receipt in self.receipts),
        )


class SegmentedManifest(_BuildFacts):
    """A manifest that lists segments. ``shards`` reads them from the store when a receipt is asked for.

    As the plan makes shards equal in size but for one sample, it knows their sizes without their receipts.
    """

    manifest_version: Literal[2] = 2
    segments: Annotated[tuple[ListedSegment, ...], Field(min_length=1)]
    _shards: SegmentedSequence[Receipt] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check_segments(self) -> Self:
        ends = list(accumulate(each.shards for each in self.segments))
        if [each.first for each in self.segments] != [0, *ends[:-1]] or ends[-1] > MAX_SHARDS:
            raise ValueError("segments that follow one another from shard 0 on, without a gap")
        if [each.key for each in self.segments] != [segment_key(each.first) for each in self.segments]:
            raise ValueError("segments with the keys of their first shards")
        for name in ("samples", "bytes", "refused"):
            if (stated := sum(getattr(each, name) for each in self.segments)) != getattr(self, name):
                raise ValueError(f"{name} of {stated}, as its segments have")
        planned = np.add.reduceat(self.shard_sizes(), [each.first for each in self.segments])
        if planned.tolist() != [each.samples for each in self.segments]:
            raise ValueError("segments whose shards differ by at most one sample, the larger ones first")
        return self

    @property
    def shards(self) -> SegmentedSequence[Receipt]:
        """The receipts of all shards; an access raises ``ObjectMissing``, ``IntegrityError``, ``DatasetError``."""
        assert self._shards is not None, "parse_manifest and bound_to give a manifest its store"
        return self._shards

    def shard_sizes(self) -> np.ndarray:
        """The number of samples of each of S shards: int64 of shape (S,)."""
        count = self.segments[-1].first + self.segments[-1].shards
        size, larger = divmod(self.samples, count)
        return size + (np.arange(count) < larger).astype(np.int64)

    @property
    def held_bytes(self) -> int:
        """About how much memory the receipts take at most."""
        return min(HELD_BYTES, sum(each.size for each in self.segments))

    def bound_to(self, store: Store) -> SegmentedManifest:
        """This manifest, reading its segments from ``store``, which is rooted at the build's prefix."""
        self._shards = SegmentedSequence(
            [each.shards for each in self.segments], _ReceiptReader(store, self.recipe_digest, self.segments)
        )
        return self


Manifest = ListedManifest | SegmentedManifest
"""The commit. A build exists for readers if and only if its manifest exists."""


@dataclass(frozen=True)
class _ReceiptReader:
    """Reads the receipts of segments, whose digests are checked; packed, a receipt is its canonical JSON."""

    store: Store
    recipe: str
    segments: Sequence[ListedSegment]

    def read(self, position: int) -> tuple[bytes, ...]:
        return read_segment(self.store, self.recipe, self.segments[position])[1]

    def unpack(self, packed: bytes) -> Receipt:
        return Receipt.model_validate_json(packed)


def read_segment(store: Store, recipe: str, listed: ListedSegment) -> tuple[Segment, tuple[bytes, ...]]:
    """A segment of a build of the recipe with digest ``recipe``, checked against what the manifest says of it.

    Beside it each receipt as canonical JSON. Raises ``ObjectMissing``, ``IntegrityError``, ``DatasetError``.
    """
    data, field = store.get(listed.key, listed.size), f"{store.url}/{listed.key}"
    if (digest := digest_of(data)) != listed.digest:
        raise IntegrityError(field, f"bytes with digest {listed.digest}", digest, "latentmill verify lists all damage")
    return check_segment(data, recipe, listed, field=field)


def check_segment(data: bytes, recipe: str, listed: ListedSegment, *, field: str) -> tuple[Segment, tuple[bytes, ...]]:
    """Like ``read_segment``, for bytes that have the right digest."""
    segment, packed = parse_segment(data, field=field)
    expected = listed.first, listed.shards, listed.samples, listed.bytes, listed.refused
    found = segment.listed(data)
    if (got := (found.first, found.shards, found.samples, found.bytes, found.refused)) != expected:
        words = "first shard, shards, samples, bytes and draws refused"
        raise IntegrityError(field, f"{words} {expected}, as in the manifest", got)
    size, larger = divmod(listed.samples, listed.shards)
    for position, receipt in enumerate(segment.receipts):
        if receipt.samples != (planned := size + (position < larger)):
            raise IntegrityError(field, f"{planned} samples in shard {receipt.number}", receipt.samples)
    if segment.recipe != recipe:
        raise IntegrityError(field, f"a segment of recipe {recipe}", segment.recipe)
    return segment, packed


def parse_segment(data: bytes, *, field: str) -> tuple[Segment, tuple[bytes, ...]]:
    """Parse the stored bytes of a segment: canonical JSON, with the receipts of consecutive shards of one recipe.

    Returns it, and each receipt as canonical JSON. Raises ``DatasetError`` naming the wrong field.
    """
    document = read_json(data, field=field, error=DatasetError)
    segment = validate(Segment, document, field=field, error=DatasetError)
    packed = tuple(map(canonical_json, document["receipts"]))
    facts = canonical_json(document | {"receipts": []}).split(b"[]")
    if data != b"".join((facts[0], b"[", b",".join(packed), b"]", *facts[1:])):
        raise DatasetError(field, "canonical JSON", "JSON in another form")
    for number, receipt in enumerate(segment.receipts, start=segment.first):
        if (receipt.number, receipt.recipe) != (number, segment.recipe):
            expected, got = f"shard {number} of {segment.recipe}", f"shard {receipt.number} of {receipt.recipe}"
            raise DatasetError(f"{field}.receipts", expected, got)
    return segment, packed


def parse_manifest(data: bytes, store: Store) -> Manifest:
    """Parse the stored bytes ``data`` of the manifest of the build at ``store``, from which segments are read later.

    Raises ``DatasetError`` naming the wrong field.
    """
    document = read_json(data, field=MANIFEST_KEY, error=DatasetError, limit=MAX_MANIFEST_BYTES)
    if isinstance(document, dict) and document.get("manifest_version") == 2:
        return validate(SegmentedManifest, document, field=MANIFEST_KEY, error=DatasetError).bound_to(store)
    return validate(ListedManifest, document, field=MANIFEST_KEY, error=DatasetError)


def read_recipe(manifest: Manifest) -> Recipe:
    """The recipe in ``manifest``. Raises ``DatasetError`` naming the wrong field."""
    return validate(Recipe, manifest.recipe, field=f"{MANIFEST_KEY}.recipe", error=DatasetError)
