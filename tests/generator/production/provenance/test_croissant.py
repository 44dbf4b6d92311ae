"""The Croissant file as JSON; another test reads it with mlcroissant."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from typing import Any

import pytest

from generator.production.images.xmp import SOURCE_TYPE
from generator.production.provenance.croissant import croissant_bytes
from generator.production.provenance.manifest import Manifest
from generator.spec.canonical import canonical_json
from generator.spec.publication import Creator
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


PUBLISHED = SmallBuild(published="2026-03-01")
STATED = SmallBuild(
    published="2026-03-01",
    license="CC-BY-4.0",
    creator=Creator(name="Ada Example", kind="person", url="https://example.org/ada"),
    citation="@misc{ours, title = {Ours}}",
)


def test_a_recipe_without_a_day_has_the_document_of_earlier_releases() -> None:
    document = croissant(committed())
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert not {"url", "creator", "datePublished", "citeAs", "rai:hasSyntheticData"} & document.keys()
    assert "prov" not in document["@context"]


def test_states_every_property_that_croissant_1_1_requires() -> None:
    manifest = committed(STATED)
    document = croissant(manifest)
    assert document["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    assert document["datePublished"] == "2026-03-01"
    assert document["license"] == "https://spdx.org/licenses/CC-BY-4.0.html"
    assert document["creator"] == {"@type": "sc:Person", "name": "Ada Example", "url": "https://example.org/ada"}
    assert document["citeAs"] == "@misc{ours, title = {Ours}}"
    assert document["version"] == "1.0.0"
    named = base64.urlsafe_b64encode(hashlib.sha256(canonical_json(manifest.recipe)).digest()).decode().rstrip("=")
    assert document["url"] == f"ni:///sha-256;{named}"  # RFC 6920


def test_what_the_recipe_does_not_state_is_not_made_up() -> None:
    manifest = committed(PUBLISHED)
    document = croissant(manifest)
    assert document["license"]["name"] == "No license is stated"
    assert document["creator"] == {"@type": "sc:Organization", "name": "latentmill"}
    assert document["citeAs"].startswith(f"@misc{{small-{manifest.build_id},")
    assert "unknown" not in json.dumps(document).lower()


def test_provenance_goes_back_to_the_source() -> None:
    manifest = committed(PUBLISHED)
    document = croissant(manifest)
    bundle = document["prov:wasDerivedFrom"]
    assert manifest.provenance.bundle in bundle["prov:label"]
    assert manifest.provenance.source in bundle["prov:wasDerivedFrom"]["prov:label"]
    assert manifest.recipe_digest in document["prov:wasGeneratedBy"]["prov:label"]
    assert document["prov:wasAttributedTo"]["@type"] == "prov:SoftwareAgent"
    assert croissant(committed(STATED))["prov:wasAttributedTo"] == {"@type": "prov:Person", "prov:label": "Ada Example"}


@pytest.mark.parametrize(
    ("build", "labelled"), [(PUBLISHED, True), (SmallBuild("x", (), (5,), published="2026-03-01"), False)]
)
def test_responsible_ai_says_how_the_data_came_about(build: SmallBuild, labelled: bool) -> None:
    document = croissant(committed(build))
    assert document["rai:hasSyntheticData"] is True
    assert "digits" in document["rai:dataCollection"]
    assert ("rai:dataAnnotationProtocol" in document) is labelled


def test_lists_are_arrays() -> None:
    samples = {records["@id"]: records for records in croissant(committed(PUBLISHED))["recordSet"]}["samples"]
    fields = {field["@id"]: field for field in samples["field"]}
    assert (fields["samples/likely_labels"]["isArray"], fields["samples/likely_labels"]["arrayShape"]) == (True, "-1")
    assert not any("repeated" in field for field in fields.values())


@pytest.mark.parametrize("fields", [{}, {"format": "parquet"}, {"format": "mds"}, {"sidecars": ("dali",)}], ids=str)
def test_more_than_a_thousand_shards_are_named_by_sets(fields: dict[str, Any]) -> None:
    for published, listed in (("2026-03-01", False), (None, True)):  # recipes of earlier releases keep their long lists
        manifest = committed(SmallBuild(published=published, shard_size=20, **fields))
        few, many = (manifest.model_copy(update={"shards": manifest.shards * count}) for count in (1000, 1001))
        assert any(part["@type"] == "cr:FileObject" for part in croissant(few)["distribution"])
        document = croissant(many)
        assert any(part["@type"] == "cr:FileObject" for part in document["distribution"]) == listed
        if not listed:
            suffix = fields.get("format", "tar")
            sets = {part["@id"]: part["includes"] for part in document["distribution"]}
            assert sets["tables"] == "samples/*"
            assert sets["shards"] == f"shards/*.{suffix}"
            assert len(croissant_bytes(many)) < 20_000


def test_sidecars_are_listed_with_their_sha256() -> None:
    manifest = committed(SmallBuild(published="2026-03-01", sidecars=("dali",)))
    files = {part["contentUrl"]: part["sha256"] for part in croissant(manifest)["distribution"] if "sha256" in part}
    for receipt in manifest.shards:
        (sidecar,) = receipt.sidecars
        assert files[f"../{manifest.build_id}/{sidecar.key}"] == sidecar.digest.removeprefix("sha256:")
