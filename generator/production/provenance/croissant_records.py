"""The files and the records of a Croissant file.

Every shard and every table is a FileObject with its sha256; images and tables are FileSets; the record set ``samples``
joins the two by key.
"""

from __future__ import annotations

from typing import Any

from generator.production.images import extension
from generator.production.provenance.manifest import Manifest, Receipt, StoredFile
from generator.spec.recipe import Recipe

# Columns of the per-sample table with Croissant types: (name, type, description, repeated).
_COLUMNS = (
    ("index", "sc:Integer", "Position of the sample in the build.", False),
    ("attempt", "sc:Integer", "How often this index was drawn before, and refused.", False),
    ("cluster", "sc:Integer", "Component of the latent distribution that the sample came from.", False),
    ("log_density", "sc:Float", "Natural logarithm of the latent point's density, given the label.", False),
    ("label_confidence", "sc:Float", "How likely the judge found the label; null where none looked.", False),
    ("likely_labels", "sc:Integer", "The most likely labels, as the judge sees it; null where none looked.", True),
    ("likely_probabilities", "sc:Float", "How likely each of them is.", True),
    ("image_sha256", "sc:Text", "sha256 of the image file.", False),
)
_COLUMNS_OF_VERSION_2 = (
    ("offset", "sc:Integer", "Where in its shard's archive the image file begins, in bytes.", False),
    ("size", "sc:Integer", "Size of the image file in bytes.", False),
    ("map_x", "sc:Float", "First coordinate of the latent point on the bundle's fixed map; null without one.", False),
    ("map_y", "sc:Float", "Second coordinate of the latent point on the bundle's fixed map.", False),
)
_LATENT_COLUMN = ("latent", "sc:Float", "What the decoder received.", True)
_LABEL_COLUMN = ("label", "sc:Integer", "Number of the class, from 0.", False)
_CLASS_COLUMN = ("class", "sc:Text", "Name of the class.", False)


def distribution(manifest: Manifest) -> list[dict[str, Any]]:
    """The files of the build, and the sets of images and tables."""
    shards = [
        _file_object(manifest, _shard_id(receipt), receipt.shard, "application/x-tar") for receipt in manifest.shards
    ]
    tables = [
        _file_object(manifest, f"table-{receipt.number:06d}", receipt.table, "application/x-parquet")
        for receipt in manifest.shards
    ]
    images = {
        "@type": "cr:FileSet",
        "@id": "images",
        "name": "images",
        "description": "The image files inside the shards.",
        "containedIn": [{"@id": _shard_id(receipt)} for receipt in manifest.shards],
        "encodingFormat": f"image/{manifest.image.format}",
        "includes": f"*.{extension(Recipe.model_validate(manifest.recipe).image.format)}",
    }
    rows = {
        "@type": "cr:FileSet",
        "@id": "tables",
        "name": "tables",
        "description": "The per-sample tables, one for each shard.",
        "encodingFormat": "application/x-parquet",
        "includes": "samples/*",
    }
    return [*shards, *tables, images, rows]


def _file_object(manifest: Manifest, name: str, file: StoredFile, media_type: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": f"../{manifest.build_id}/{file.key}",
        "contentSize": f"{file.size} B",
        "encodingFormat": media_type,
        "sha256": file.digest.removeprefix("sha256:"),
    }


def record_sets(manifest: Manifest, has_latents: bool) -> list[dict[str, Any]]:
    """The samples, after the classes if there are some; ``has_latents``: whether tables have a column ``latent``."""
    classes = [_class_record_set(manifest)] if manifest.classes else []
    return [*classes, _sample_record_set(manifest, has_latents)]


def _class_record_set(manifest: Manifest) -> dict[str, Any]:
    names = ("classes/label", "classes/name")
    fields = zip(names, ("sc:Integer", "sc:Text"), strict=True)
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": names[0]},
        "field": [{"@type": "cr:Field", "@id": name, "name": name, "dataType": kind} for name, kind in fields],
        "data": [dict(zip(names, row, strict=True)) for row in enumerate(manifest.classes)],
    }


def _sample_record_set(manifest: Manifest, has_latents: bool) -> dict[str, Any]:
    file = {"fileSet": {"@id": "images"}}
    key = {
        **_field("key", "sc:Text", "Name of the sample inside its shard."),
        "source": {**file, "extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([^.]+)"}},
        "references": {"fileSet": {"@id": "tables"}, "extract": {"column": "key"}},
    }
    image = {
        **_field("image", "sc:ImageObject", "The image, marked as synthetic in its XMP packet."),
        "source": {**file, "extract": {"fileProperty": "content"}},
    }
    label = _column_field(_LABEL_COLUMN, {}) | {"references": {"field": {"@id": "classes/label"}}}
    labels = [label, _column_field(_CLASS_COLUMN, {})] if manifest.classes else []
    columns = [*_COLUMNS, *(_COLUMNS_OF_VERSION_2 if manifest.recipe["recipe_version"] > 1 else ())]
    columns += [_LATENT_COLUMN] if has_latents else []
    array = {"repeated": True} if manifest.recipe.get("published") is None else {"isArray": True, "arrayShape": "-1"}
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "Every image, with its label and with what is needed to make it again.",
        "key": {"@id": "samples/key"},
        "field": [key, image, *labels, *(_column_field(column, array) for column in columns)],
    }


def _column_field(column: tuple[str, str, str, bool], array: dict[str, Any]) -> dict[str, Any]:
    """The field of ``column``; ``array``: what says that it holds lists (Croissant 1.1 has another word than 1.0)."""
    name, kind, description, repeated = column
    field = _field(name, kind, description) | (array if repeated else {})
    return field | {"source": {"fileSet": {"@id": "tables"}, "extract": {"column": name}}}


def _field(name: str, kind: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"samples/{name}",
        "name": f"samples/{name}",
        "description": description,
        "dataType": kind,
    }


def _shard_id(receipt: Receipt) -> str:
    return f"shard-{receipt.number:06d}"
