"""The files and the records of a Croissant file.

Every shard and every table is a FileObject with its sha256; images and tables are FileSets; the record set ``samples``
joins the two by key.
"""

from __future__ import annotations

from typing import Any

from generator.production.images import extension
from generator.production.provenance.manifest import Manifest, Receipt, StoredFile
from generator.spec.recipe import Recipe, ShardFormatName

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


MAX_LISTED_SHARDS = 1000  # a build of more shards names sets of files instead of every file
_MEDIA_TYPES: dict[ShardFormatName, str] = {
    "webdataset": "application/x-tar",
    "parquet": "application/x-parquet",
    "mds": "application/octet-stream",
}
_TABLES_TYPE = "application/x-parquet"


def distribution(manifest: Manifest) -> list[dict[str, Any]]:
    """The files of the build with their digests, or sets of files if there are many; the sets of images and tables."""
    recipe, by_set = Recipe.model_validate(manifest.recipe), _names_sets(manifest)
    rows = _file_set("tables", "The per-sample tables, one for each shard.", _TABLES_TYPE, "samples/*")
    return [*([] if by_set else _listed_files(manifest, recipe)), *_shard_sets(manifest, recipe, by_set), rows]


def _names_sets(manifest: Manifest) -> bool:
    """Whether sets of files are named in place of every shard. Recipes of earlier releases keep their long lists."""
    return len(manifest.shards) > MAX_LISTED_SHARDS and manifest.recipe.get("published") is not None


def _listed_files(manifest: Manifest, recipe: Recipe) -> list[dict[str, Any]]:
    media_type = _MEDIA_TYPES[recipe.format]
    shards = [_file_object(manifest, _shard_id(receipt), receipt.shard, media_type) for receipt in manifest.shards]
    tables = [
        _file_object(manifest, f"table-{receipt.number:06d}", receipt.table, _TABLES_TYPE)
        for receipt in manifest.shards
    ]
    sidecars = [
        _file_object(manifest, f"{kind}-{receipt.number:06d}", file, "text/plain")
        for receipt in manifest.shards
        for kind, file in zip(recipe.sidecars, receipt.sidecars, strict=True)
    ]
    return [*shards, *tables, *sidecars]


def _shard_sets(manifest: Manifest, recipe: Recipe, by_set: bool) -> list[dict[str, Any]]:
    """The set of images that readers find in the shards, after what it needs."""
    suffix, media_type = manifest.shards[0].shard.key.rpartition(".")[2], _MEDIA_TYPES[recipe.format]
    shards = _file_set("shards", "The shards.", media_type, f"shards/*.{suffix}")
    if recipe.format == "parquet":
        return [shards]
    if recipe.format == "mds":
        index = _file_set("index", "The list of the shards, for MDS readers.", "application/json", "shards/index.json")
        return [*([shards] if by_set else []), index]
    sidecars = [
        _file_set(kind, "An index of the files in each shard.", "text/plain", "shards/*.idx")
        for kind in recipe.sidecars
        if by_set
    ]
    images = {
        "@type": "cr:FileSet",
        "@id": "images",
        "name": "images",
        "description": "The image files inside the shards.",
        "containedIn": [{"@id": "shards"}] if by_set else [{"@id": _shard_id(receipt)} for receipt in manifest.shards],
        "encodingFormat": f"image/{manifest.image.format}",
        "includes": f"*.{extension(recipe.image.format)}",
    }
    return [*([shards, *sidecars] if by_set else []), images]


def _file_set(name: str, description: str, media_type: str, includes: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": description,
        "encodingFormat": media_type,
        "includes": includes,
    }


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
    key_and_image = _key_and_image(manifest)
    label = _column_field(_LABEL_COLUMN, {}) | {"references": {"field": {"@id": "classes/label"}}}
    labels = [label, _column_field(_CLASS_COLUMN, {})] if manifest.classes else []
    columns = [*_COLUMNS, *(_COLUMNS_OF_VERSION_2 if manifest.recipe["recipe_version"] > 1 else ())]
    columns += [_LATENT_COLUMN] if has_latents else []
    array = {"repeated": True} if manifest.recipe.get("published") is None else {"isArray": True, "arrayShape": "-1"}
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": _RECORDS if len(key_and_image) == 2 else _RECORDS_WITHOUT_IMAGES,
        "key": {"@id": "samples/key"},
        "field": [*key_and_image, *labels, *(_column_field(column, array) for column in columns)],
    }


_RECORDS = "Every image, with its label and with what is needed to make it again."
_RECORDS_WITHOUT_IMAGES = (
    "What is needed to make every image again, with its label. The images are in the shards: their readers stand on the"
    " card, README.md."
)


def _key_and_image(manifest: Manifest) -> list[dict[str, Any]]:
    """The key of a sample, by which shards and tables are joined, and its image, where readers of Croissant get at it.

    They know no MDS files, and unpack tars that are listed, but not a set of them.
    """
    shard_format = Recipe.model_validate(manifest.recipe).format
    key = _field("key", "sc:Text", "Name of the sample inside its shard.")
    image = _field("image", "sc:ImageObject", "The image, marked as synthetic in its XMP packet.")
    table = {"fileSet": {"@id": "tables"}, "extract": {"column": "key"}}
    if shard_format == "mds" or (shard_format == "webdataset" and _names_sets(manifest)):
        return [key | {"source": table}]
    if shard_format == "parquet":
        shards = {"fileSet": {"@id": "shards"}}
        content = {"extract": {"column": "image"}, "transform": {"jsonPath": "bytes"}}
        return [
            key | {"source": {**shards, "extract": {"column": "key"}}, "references": table},
            image | {"source": {**shards, **content}},
        ]
    file = {"fileSet": {"@id": "images"}}
    name = {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([^.]+)"}}
    return [
        key | {"source": {**file, **name}, "references": table},
        image | {"source": {**file, "extract": {"fileProperty": "content"}}},
    ]


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
