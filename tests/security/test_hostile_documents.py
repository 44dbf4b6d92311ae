"""Malicious recipes, receipts, manifests, markers and pointers: each is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.errors import (
    BuildError,
    InputError,
    LatentmillError,
    SpecError,
)
from generator.production.commit import BuildLocation, current_epoch, read_build_location, read_receipt
from generator.production.commit.finish import finish_build
from generator.spec.canonical import canonical_json
from generator.store import open_store
from tests.support.hostile_inputs import BROKEN_DOCUMENTS, DIGEST, committed_build
from tests.support.small_builds import SmallBuild
from workers.jobs.markers import read_marker

READERS: dict[str, tuple[str, Callable[[BuildLocation], object]]] = {
    "recipe": ("recipe.json", lambda location: read_build_location(location.store, "small")),
    "environment": ("environment.json", lambda location: current_epoch(location.store)),
    "opening": ("epochs/001.json", lambda location: _begin_next(location)),
    "receipt": ("receipts/000001.json", lambda location: read_receipt(location, 1)),
    "manifest": ("manifest.json", lambda location: open_dataset(location.url)),
    "pointer": ("latest.json", lambda location: open_dataset(location.url.partition("/builds/")[0])),
    "marker": ("open/job-1.json", lambda location: read_marker(location.store, "job-1")),
}


def _begin_next(location: BuildLocation) -> None:
    from generator.production.commit.epochs import fix_environment
    from tests.support.small_builds import ENVIRONMENT

    location.store.delete("environments/001.json")
    fix_environment(location.store, ENVIRONMENT)


@pytest.mark.parametrize("document", READERS.keys())
@pytest.mark.parametrize("data", BROKEN_DOCUMENTS.values(), ids=BROKEN_DOCUMENTS.keys())
def test_documents(document: str, data: bytes) -> None:
    location = committed_build()
    key, read = READERS[document]
    store = open_store(location.url.partition("/builds/")[0]) if document == "pointer" else location.store
    store.put(key, data)
    with pytest.raises((InputError, BuildError)) as refused:
        read(location)
    assert len(str(refused.value)) < 2000
    assert verify_dataset(location.url, deep=True).problems or document in ("pointer",)


@pytest.mark.parametrize("document", READERS.keys())
def test_documents_of_many_bytes_are_refused_unread(document: str, tmp_path: Path) -> None:
    location = SmallBuild().commit(str(tmp_path))[0]
    key, read = READERS[document]
    folder = tmp_path / "small" if document == "pointer" else Path(location.url.removeprefix("file://"))
    (folder / key).parent.mkdir(exist_ok=True)
    with (folder / key).open("wb") as file:
        file.truncate(2**40)  # a sparse file, which takes no space
    with pytest.raises(LatentmillError, match=str(2**40)):
        read(location)


def rewritten(location: BuildLocation, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(location.store.get("manifest.json"))
    change(document)
    location.store.put("manifest.json", json.dumps(document).encode())


def _shard(document: dict[str, Any], **changes: Any) -> None:
    document["shards"][0]["shard"] |= changes


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a shard outside of the build": lambda doc: _shard(doc, key="../../../escaped"),
    "an absolute shard": lambda doc: _shard(doc, key="/etc/passwd"),
    "a shard of many bytes": lambda doc: _shard(doc, size=10**30),
    "a shard of negative bytes": lambda doc: _shard(doc, size=-1),
    "another shard's bytes": lambda doc: _shard(doc, key="shards/small-000001.tar"),
    "a digest that is none": lambda doc: _shard(doc, digest="sha256:" + "Z" * 64),
    "a digest of another kind": lambda doc: _shard(doc, digest="md5:" + "0" * 32),
    "more samples than there are": lambda doc: doc["shards"][0].update(samples=10**6),
    "samples beyond any integer": lambda doc: doc["shards"][0].update(samples=10**40),
    "a shard number beyond any": lambda doc: doc["shards"][0].update(number=10**40),
    "more samples in total": lambda doc: doc.update(samples=10**9),
    "no shards": lambda doc: doc.update(shards=[]),
    "a class with a control letter": lambda doc: doc.update(classes=["a\x1b[2J", "b"]),
    "an environment under another digest": lambda doc: doc.update(environments={DIGEST: {}}),
    "an image format that runs": lambda doc: doc["image"].update(format="svg"),
    "another kind of document": lambda doc: doc.update(kind="latentmill.bundle"),
    "a version of tomorrow": lambda doc: doc.update(manifest_version=2),
}


@pytest.mark.parametrize("name", MANIFESTS.keys())
def test_manifests(name: str) -> None:
    location = committed_build()
    rewritten(location, MANIFESTS[name])
    assert verify_dataset(location.url, deep=True).problems
    if "environment" not in name:  # a reader does not use the environments
        with pytest.raises(LatentmillError):
            list(open_dataset(location.url))


RECEIPTS: dict[str, dict[str, Any]] = {
    "files outside of the build": {"shard": {"key": "../../x", "digest": DIGEST, "size": 0}},
    "another shard's archive": {"shard": {"key": "shards/small-000000.tar", "digest": DIGEST, "size": 10240}},
    "a table in place of an archive": {"shard": {"key": "samples/small-000001.parquet", "digest": DIGEST, "size": 1}},
    "another number": {"number": 2},
    "another recipe": {"recipe": DIGEST},
    "an environment that never was": {"environment": DIGEST},
    "more samples than planned": {"samples": 6, "counts": [6, 0]},
    "counts of no class": {"counts": []},
    "counts beyond any integer": {"counts": [10**40, 0]},
    "a boolean count": {"samples": True},
    "a float number": {"number": 1.5},
    "refused below zero": {"refused": -1},
}


@pytest.mark.parametrize("change", RECEIPTS.values(), ids=RECEIPTS.keys())
def test_receipts(change: dict[str, Any]) -> None:
    """A commit checks every receipt."""
    location = SmallBuild().begin(f"memory://{uuid.uuid4().hex}")
    key = "receipts/000001.json"
    location.store.put(key, canonical_json(json.loads(location.store.get(key)) | change))
    with pytest.raises(LatentmillError):
        finish_build(location, None)  # type: ignore[arg-type]
    assert location.store.head("manifest.json") is None


MARKER = {
    "job": "job-1",
    "destination": "/x",
    "name": "tiny",
    "tenant": "default",
    "recipe": DIGEST,
    "build_id": "0" * 20,
    "shards": 1,
    "samples": 1,
    "submitted": 0.0,
}
MARKERS: dict[str, dict[str, Any]] = {
    "a job that climbs": {"job": "../x"},
    "a name that climbs": {"name": ".."},
    "a build that climbs": {"build_id": "../../../../../../x"},
    "an intent of one's own": {"intent": "deleted"},
    "more shards than any build": {"shards": 10**12},
    "more samples than any build": {"samples": 10**15},
    "a shard given up beyond any": {"dead": [{"shard": 10**9, "faults": 1, "error": ""}]},
    "a long error": {"error": "x" * 100_000},
    "a destination of many letters": {"destination": "/" + "x" * 10_000},
    "a time before all": {"submitted": -1},
}


@pytest.mark.parametrize("change", MARKERS.values(), ids=MARKERS.keys())
def test_markers(change: dict[str, Any]) -> None:
    root = open_store(f"memory://{uuid.uuid4().hex}")
    root.put("open/job-1.json", canonical_json(MARKER))
    assert read_marker(root, "job-1") is not None
    root.put("open/job-1.json", canonical_json(MARKER | change))
    with pytest.raises(SpecError):
        read_marker(root, "job-1")
