"""The Croissant file as JSON; another test reads it with mlcroissant."""

from __future__ import annotations

import json
import uuid
from typing import Any

from generator.production.images.xmp import SOURCE_TYPE
from generator.production.provenance.croissant import croissant_bytes
from generator.production.provenance.manifest import Manifest
from generator.spec.canonical import canonical_json
from tests.support.small_builds import SmallBuild


def committed(build: SmallBuild = SmallBuild()) -> Manifest:  # noqa: B008
    return build.commit(f"memory://{uuid.uuid4().hex}")[1]


def croissant(manifest: Manifest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(croissant_bytes(manifest))
    return document


def test_is_canonical_and_does_not_look_at_the_extras() -> None:
    manifest = committed()
    data = croissant_bytes(manifest)
    assert data == canonical_json(json.loads(data))
    assert data == croissant_bytes(manifest.model_copy(update={"extras": ()}))


def test_lists_every_shard_and_table_with_its_sha256() -> None:
    manifest = committed()
    stated = {receipt.shard.digest for receipt in manifest.shards} | {r.table.digest for r in manifest.shards}
    files = [part for part in croissant(manifest)["distribution"] if part["@type"] == "cr:FileObject"]
    assert {f"sha256:{file['sha256']}" for file in files} == stated
    assert len(files) == 2 * len(manifest.shards)


def test_says_that_it_is_synthetic() -> None:
    document = croissant(committed())
    assert "synthetic" in document["description"]
    assert SOURCE_TYPE in document["description"]
    assert document["digitalSourceType"] == SOURCE_TYPE
    assert document["isLiveDataset"] is False
    assert "citeAs" not in document


def test_enumerates_the_classes_only_where_there_are_some() -> None:
    sets = {records["@id"]: records for records in croissant(committed())["recordSet"]}
    assert sets["classes"]["data"] == [
        {"classes/label": 0, "classes/name": "round"},
        {"classes/label": 1, "classes/name": "square"},
    ]
    unlabelled = croissant(committed(SmallBuild(classes=(), counts=(5,))))["recordSet"]
    assert [records["@id"] for records in unlabelled] == ["samples"]
    assert not {"samples/label", "samples/class"} & {field["@id"] for field in unlabelled[0]["field"]}


def test_no_two_builds_name_a_shard_alike() -> None:
    """mlcroissant caches unpacked archives by that name: with equal names it would mix up images of two builds."""
    names = [
        {part["contentUrl"] for part in croissant(committed(SmallBuild(seed=seed)))["distribution"] if "sha256" in part}
        for seed in range(2)
    ]
    assert not names[0] & names[1]
