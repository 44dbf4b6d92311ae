"""The shard format of a recipe, and the files that are made of finished shards: sidecars, the index of a build."""

from __future__ import annotations

from generator.errors import DatasetError
from generator.production.images import extension
from generator.production.shards.base import ShardFormat
from generator.production.shards.mds import MdsFormat
from generator.production.shards.parquet import ParquetFormat
from generator.production.shards.webdataset import WebdatasetFormat, dali_index
from generator.spec.recipe import Recipe, Sidecar


def shard_format(recipe: Recipe) -> ShardFormat:
    """The format of the shards of ``recipe``."""
    return named_format(recipe.format, recipe.image.format, recipe.classes)


def named_format(name: str, image_format: str, classes: tuple[str, ...]) -> ShardFormat:
    """The format that recipes call ``name``, for images in ``image_format`` (``png``, ``jpeg``) of ``classes``.

    Raises ``DatasetError`` for a format that this release does not know.
    """
    suffix = extension(image_format)
    if name == "webdataset":
        return WebdatasetFormat()
    if name == "parquet":
        return ParquetFormat(suffix, classes)
    if name == "mds":
        return MdsFormat(image_format, suffix, labelled=bool(classes))
    raise DatasetError("recipe.format", "webdataset, parquet or mds", repr(name)[:100])


def mds_format(recipe: Recipe) -> MdsFormat:
    """MDS, for the images and labels of ``recipe``, whatever its own format is."""
    return MdsFormat(recipe.image.format, extension(recipe.image.format), recipe.labelled)


def sidecar_bytes(kind: Sidecar, archive: bytes, *, field: str) -> bytes:
    """A sidecar of the shard ``archive``. Raises ``IntegrityError`` naming ``field``."""
    assert kind == "dali"
    return dali_index(archive, field=field)
