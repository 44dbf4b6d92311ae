"""The dataset card: valid front matter, correct numbers, and no facts about the machine that wrote it."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
import yaml

from generator.production.provenance.dataset_card import card_bytes
from generator.production.provenance.manifest import Manifest, StoredFile
from generator.spec.publication import Creator
from generator.spec.recipe import JpegSettings
from tests.support.small_builds import BUNDLE, SmallBuild


def draft(build: SmallBuild = SmallBuild(), **changes: Any) -> Manifest:  # noqa: B008
    _, manifest = build.commit(f"memory://{uuid.uuid4().hex}")
    return manifest.model_copy(update={"extras": (), **changes})


def card(manifest: Manifest) -> tuple[dict[str, Any], str]:
    """Front matter and text."""
    _, front, text = card_bytes(manifest).decode().split("---\n", 2)
    return yaml.safe_load(front), text


def test_is_a_pure_function_of_the_manifest_without_its_extras() -> None:
    manifest = draft()
    extra = StoredFile(key="README.md", digest=BUNDLE, size=1)
    assert card_bytes(manifest) == card_bytes(manifest.model_copy(update={"extras": (extra,)}))


def test_front_matter_is_what_the_hub_reads() -> None:
    front, _ = card(draft())
    assert front["tags"][0] == "synthetic"
    assert front["license"] == "unknown"
    assert front["task_categories"] == ["image-classification"]
    assert front["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "shards/*.tar"}]}]
    names = {field["name"]: field for field in front["dataset_info"]["features"]}
    assert names["cls"]["dtype"] == {"class_label": {"names": {"0": "round", "1": "square"}}}
    assert names["png"]["dtype"] == "image"


@pytest.mark.parametrize(
    ("samples", "category"),
    [
        (1, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (9999, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (123_456, "100K<n<1M"),
        (10**6, "1M<n<10M"),
        (10**8, "100M<n<1B"),
        (10**9, "1B<n<10B"),
    ],
)
def test_size_categories(samples: int, category: str) -> None:
    front, _ = card(draft(samples=samples))
    assert front["size_categories"] == [category]


def test_says_that_it_is_synthetic_and_how_it_was_made() -> None:
    manifest = draft()
    _, text = card(manifest)
    provenance = manifest.provenance
    facts = (
        manifest.recipe_digest,
        provenance.bundle,
        provenance.source_fingerprint,
        provenance.source,
        provenance.model,
        manifest.build_id,
    )
    assert all(fact in text for fact in facts)
    assert "trainedAlgorithmicMedia" in text
    assert "![preview](preview.jpg)" in text
    assert "latentmill verify" in text


def test_unlabelled_jpeg_builds_have_cards_too() -> None:
    front, text = card(draft(SmallBuild(classes=(), counts=(8,), image=JpegSettings(), size=16)))
    assert front["task_categories"] == ["unconditional-image-generation"]
    assert [field["name"] for field in front["dataset_info"]["features"]][:2] == ["jpg", "json"]
    assert "## Classes" not in text
    assert '"jpg"' in text


def test_counts_every_class_and_stops_at_fifty() -> None:
    classes = tuple(f"class-{number}" for number in range(73))
    _, text = card(draft(SmallBuild(classes=classes, counts=(2,) * 73, shard_size=200)))
    rows = re.findall(r"^\| \d+ \|.*\| ([\d,]+) \|$", text, flags=re.MULTILINE)
    assert rows == ["2"] * 50
    assert "| ... | 23 more classes | 46 |" in text


@pytest.mark.parametrize("name", ["a | b", "`x`", "<script>", "_em_", "[l](u)", "--- x", ": yes #", "猫", "\\"])
def test_no_class_name_breaks_the_table_or_the_front_matter(name: str) -> None:
    front, text = card(draft(SmallBuild(classes=(name, "other"))))
    labels = next(field["dtype"] for field in front["dataset_info"]["features"] if field["name"] == "cls")
    assert labels["class_label"]["names"]["0"] == name
    (row,) = [line for line in text.splitlines() if line.startswith("| 0 |")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert not re.search(r"(?<!\\)<", row)


def test_tells_nothing_of_time_host_or_paths(tmp_path: Any) -> None:
    location, _ = SmallBuild().commit(str(tmp_path))
    text = location.store.get("README.md").decode()
    assert str(tmp_path) not in text
    assert "file://" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "the whole distribution"),
        ({"temperature": 0.7}, "the whole distribution, at temperature 0.7"),
        ({"draw": {"mode": "cluster", "cluster": 2}}, "cluster 2 of each class"),
        ({"draw": {"mode": "around", "code": (1.0,), "distance": 0.25}}, "around one code, at distance 0.25"),
        ({"draw": {"mode": "between", "start": (1.0,), "end": (2.0,)}}, "between two codes"),
    ],
)
def test_says_where_samples_were_drawn_from(changes: dict[str, Any], words: str) -> None:
    manifest = draft()
    _, text = card(manifest.model_copy(update={"recipe": {**manifest.recipe, **changes}}))
    assert f"| drawn from | {words} |" in text


def test_names_every_field_of_a_sample() -> None:
    manifest = draft(SmallBuild(published="2026-03-01"))
    features = {field["name"]: field for field in card(manifest)[0]["dataset_info"]["features"]}
    names = [field["name"] for field in features["json"]["struct"]]
    assert names == sorted(names)
    assert set(names) == {
        *("attempt", "class", "cluster", "index", "label", "label_confidence", "likely_labels"),
        *("likely_probabilities", "log_density", "recipe", "synthetic"),
    }
    kept = {field["name"]: field for field in card(draft())[0]["dataset_info"]["features"]}
    assert len(kept["json"]["struct"]) == 8  # as earlier releases wrote it


def test_a_license_is_stated_where_the_recipe_states_it() -> None:
    front, text = card(draft(SmallBuild(published="2026-03-01")))
    assert "license" not in front
    assert "unknown" not in text.lower()
    assert "No license is stated" in text
    creator = Creator(name="A | B", url="https://example.org/a|b")
    stated = SmallBuild(published="2026-03-01", license="CC-BY-4.0", creator=creator, citation="Cite\nus")
    front, text = card(draft(stated))
    assert front["license"] == "cc-by-4.0"
    assert "| published | 2026-03-01 |" in text
    assert "| license | CC-BY-4.0 |" in text
    assert "| creator | A \\| B, <https://example.org/a%7Cb> |" in text
    assert "    Cite\n    us\n" in text
    assert "No license is stated" not in text
    assert card(draft(SmallBuild(published="2026-03-01", license="unknown")))[0]["license"] == "unknown"


@pytest.mark.parametrize(
    ("fields", "path", "names"),
    [
        ({"format": "parquet"}, "shards/*.parquet", ["key", "image", "label", "index"]),
        ({"format": "parquet", "classes": (), "counts": (9,)}, "shards/*.parquet", ["key", "image", "index"]),
        ({"format": "mds"}, "samples/*.parquet", None),
        ({"sidecars": ("dali",)}, "shards/*.tar", ["png", "cls", "json", "__key__"]),
    ],
)
def test_front_matter_names_the_files_and_features_of_each_format(
    fields: dict[str, Any], path: str, names: list[str] | None
) -> None:
    front, text = card(draft(SmallBuild(published="2026-03-01", **fields)))
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": path}]
    assert front["tags"][-1] == fields.get("format", "webdataset")
    if names is None:
        assert "dataset_info" not in front
    else:
        assert [field["name"] for field in front["dataset_info"]["features"]][: len(names)] == names
    assert ("NVIDIA DALI" in text) == ("sidecars" in fields)


@pytest.mark.parametrize(
    ("shard_size", "words"),
    [(5, "most\n3 loader workers busy, over all ranks together: there are 3 shards"), (50, "there is 1 shard.")],
)
def test_says_how_many_loader_workers_its_shards_allow(shard_size: int, words: str) -> None:
    assert words in card(draft(SmallBuild(published="2026-03-01", shard_size=shard_size)))[1]
    assert "loader worker" not in card(draft(SmallBuild(shard_size=shard_size)))[1]  # cards of earlier releases
