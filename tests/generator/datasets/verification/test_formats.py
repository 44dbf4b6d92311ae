"""``verify_dataset`` on every shard format and on sidecars: damage is found, and none where there is none."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest

from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.errors import DatasetError, IntegrityError
from generator.production.provenance.manifest import INDEX_KEY, ListedManifest, StoredFile, receipt_key
from generator.production.shards import Member, shard_format
from generator.spec.canonical import canonical_json, digest_of, read_json
from generator.spec.recipe import JpegSettings
from generator.store import Store
from tests.support.small_builds import SmallBuild

VARIANTS: dict[str, dict[str, Any]] = {
    "parquet": {"format": "parquet"},
    "mds": {"format": "mds"},
    "dali": {"sidecars": ("dali",)},
}


@pytest.fixture(params=list(VARIANTS))
def fields(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


def commit_build(**fields: Any) -> tuple[str, Store]:
    place, _ = SmallBuild(**fields).commit(f"memory://{uuid.uuid4().hex}")
    return place.url, place.store


def checks(url: str, where: str) -> set[str]:
    return {problem.check for problem in verify_dataset(url, deep=True).problems if problem.where == where}


def reseal(store: Store, number: int, **files: bytes) -> None:
    """Store other bytes of a shard's archive or first sidecar, with a receipt and a manifest that name them."""
    manifest = ListedManifest.model_validate_json(store.get("manifest.json"))
    receipt = manifest.shards[number]
    changes: dict[str, Any] = {}
    for name, data in files.items():
        old = receipt.shard if name == "shard" else receipt.sidecars[0]
        new = StoredFile(key=old.key, digest=digest_of(data), size=len(data))
        changes |= {"shard": new} if name == "shard" else {"sidecars": (new,)}
        store.put(old.key, data)
    resealed = receipt.model_copy(update=changes)
    shards = (*manifest.shards[:number], resealed, *manifest.shards[number + 1 :])
    store.put(receipt_key(number), resealed.canonical())
    size = manifest.bytes + resealed.bytes - receipt.bytes
    store.put("manifest.json", manifest.model_copy(update={"shards": shards, "bytes": size}).canonical())


@pytest.mark.parametrize(
    "other",
    [{}, {"classes": (), "counts": (11,), "channels": 3}, {"image": JpegSettings(), "size": 16}, {"shard_size": 1}],
    ids=["labelled", "unlabelled", "jpeg", "one a shard"],
)
def test_an_intact_build_has_no_problems(fields: dict[str, Any], other: dict[str, Any]) -> None:
    url, store = commit_build(**fields, **other)
    found = verify_dataset(url, deep=True)
    assert found.problems == ()
    assert found.bytes == sum(info.size for info in store.list())


@pytest.mark.slow
def test_every_changed_byte_of_every_object_is_found(fields: dict[str, Any]) -> None:
    url, store = commit_build(**fields)
    rng = random.Random(0)
    for info in list(store.list()):
        data = store.get(info.key)
        for _ in range(6):
            damaged = bytearray(data)
            damaged[rng.randrange(len(data))] ^= rng.randrange(1, 256)
            store.put(info.key, bytes(damaged))
            assert not verify_dataset(url, deep=True).ok, info.key
        store.delete(info.key)
        if info.key != "manifest.json":  # without it, there is no build
            assert not verify_dataset(url, deep=True).ok, info.key
        store.put(info.key, data)
    assert verify_dataset(url, deep=True).ok


@pytest.mark.parametrize("name", ["parquet", "mds"])
def test_samples_that_disagree_with_plan_and_table_are_found_behind_right_digests(name: Any) -> None:
    url, store = commit_build(format=name)
    manifest = ListedManifest.model_validate_json(store.get("manifest.json"))
    recipe = SmallBuild(format=name).spec("memory://x").recipe
    key, form = manifest.shards[1].shard.key, shard_format(recipe)
    samples = list(form.read_samples(store.get(key), field=key))
    writer = form.writer()
    for at, (sample_key, files) in enumerate(samples):
        facts = read_json(files["json"], field="facts", error=DatasetError)
        changed = {**facts, "label": 1 - facts["label"], "cluster": 99} if at == 2 else facts
        image = samples[0][1]["png"] if at == 3 else files["png"]
        label = b"%d" % changed["label"]
        members = [Member("png", image), Member("cls", label), Member("json", canonical_json(changed))]
        writer.append(form.pack(sample_key, members))
    reseal(store, 1, shard=writer.finish().data)
    assert checks(url, key) >= {
        "label of a sample",
        "label of a sample, as in the table",
        "cluster of a sample, as in the table",
        "image sha256, as in the table",
    }
    dataset = open_dataset(url, map_style=True)
    with pytest.raises(IntegrityError):
        dataset[8]


def test_a_sidecar_of_another_archive_is_found_behind_its_right_digest() -> None:
    url, store = commit_build(sidecars=("dali",))
    reseal(store, 1, sidecar=store.get("shards/small-000000.idx"))
    assert checks(url, "shards/small-000001.idx") == {"dali sidecar of its archive"}


def test_an_index_that_lists_other_shards_is_found_behind_its_right_digest() -> None:
    url, store = commit_build(format="mds")
    manifest = ListedManifest.model_validate_json(store.get("manifest.json"))
    document = read_json(store.get(INDEX_KEY), field="index", error=DatasetError)
    document["shards"][0]["samples"] += 1
    data = canonical_json(document)
    listed = [
        StoredFile(key=INDEX_KEY, digest=digest_of(data), size=len(data)) if file.key == INDEX_KEY else file
        for file in manifest.extras
    ]
    store.put(INDEX_KEY, data)
    store.put("manifest.json", manifest.model_copy(update={"extras": tuple(listed)}).canonical())
    assert checks(url, INDEX_KEY) == {"digest, as the receipts say"}


def test_files_that_the_recipe_does_not_ask_for_are_found() -> None:
    url, store = commit_build()
    store.put("shards/small-000000.idx", b"v1.2 0\n")
    store.put(INDEX_KEY, b"{}")
    assert checks(url, "shards/small-000000.idx") == checks(url, INDEX_KEY) == {"object"}
