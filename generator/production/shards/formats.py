"""The shard format of a recipe, and the files that are made of finished shards: sidecars, the index of a build."""

from __future__ import annotations

from generator.production.images import extension
from generator.production.shards.base import ShardFormat
from generator.production.shards.mds import MdsFormat
from generator.production.shards.parquet import ParquetFormat
from generator.production.shards.webdataset import WebdatasetFormat, dali_index
from generator.spec.recipe import Recipe, Sidecar


def shard_format(recipe: Recipe) -> ShardFormat:
    """The format of the shards of ``recipe``."""
    suffix = extension(recipe.image.format)
    if recipe.format == "parquet":
        return ParquetFormat(suffix, recipe.classes)
    return mds_format(recipe) if recipe.format == "mds" else WebdatasetFormat()


def mds_format(recipe: Recipe) -> MdsFormat:
    """MDS, for the images and labels of ``recipe``, whatever its own format is."""
    return MdsFormat(recipe.image.format, extension(recipe.image.format), recipe.labelled)


def sidecar_bytes(kind: Sidecar, archive: bytes, *, field: str) -> bytes:
    """A sidecar of the shard ``archive``. Raises ``IntegrityError`` naming ``field``."""
    assert kind == "dali"
    return dali_index(archive, field=field)
