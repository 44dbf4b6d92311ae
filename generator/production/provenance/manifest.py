"""Receipts (one per finished shard), the manifest (the commit), and the keys of all objects of a build.

Both are pure functions of recipe, environment and dataset name: no time, no host, no worker.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from generator.errors import DatasetError
from generator.spec.canonical import MAX_JSON_BYTES, FrozenModel, GrowingModel, Later, read_json, validate
from generator.spec.recipe import MAX_SHARDS, ClassName, Digest, Name, Recipe, ShardFormatName, Sidecar

RECIPE_KEY = "recipe.json"
ENVIRONMENT_KEY = "environment.json"
MANIFEST_KEY: Final = "manifest.json"
CARD_KEY = "README.md"
CROISSANT_KEY = "croissant.json"
PREVIEW_KEY = "preview.jpg"
PAGE_KEY = "index.html"
CODES_PREFIX = "codes/"
INDEX_KEY = "shards/index.json"  # of builds whose shards are MDS files

MAX_RECIPE_BYTES = MAX_JSON_BYTES
MAX_RECEIPT_BYTES = 8 * 2**20  # with many classes, most of it is the counts
MAX_EXTRA_BYTES = 64 * 2**20  # of the card, the Croissant file, the preview, and the page, each
MAX_MANIFEST_BYTES = 2**30  # 999,999 receipts of few classes

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


class Manifest(FrozenModel):
    """The commit. A build exists for readers if and only if its manifest exists."""

    kind: Literal["latentmill.manifest"] = "latentmill.manifest"
    manifest_version: Literal[1] = 1
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
    shards: tuple[Receipt, ...]
    extras: tuple[StoredFile, ...]  # card, Croissant file, preview, page, index of MDS shards; codes of the recipe


def parse_manifest(data: bytes) -> Manifest:
    """Parse the stored bytes ``data`` of a manifest. Raises ``DatasetError`` naming the wrong field."""
    document = read_json(data, field=MANIFEST_KEY, error=DatasetError, limit=MAX_MANIFEST_BYTES)
    return validate(Manifest, document, field=MANIFEST_KEY, error=DatasetError)


def read_recipe(manifest: Manifest) -> Recipe:
    """The recipe in ``manifest``. Raises ``DatasetError`` naming the wrong field."""
    return validate(Recipe, manifest.recipe, field=f"{MANIFEST_KEY}.recipe", error=DatasetError)
