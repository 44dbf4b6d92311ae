"""Manifests in segments: the same whoever writes them and when, current at the commit, and refused when damaged."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from generator.datasets.builds import read_manifest
from generator.errors import (
    BuildConflict,
    DatasetError,
    IntegrityError,
    LatentmillError,
    ObjectMissing,
    StoreUnavailable,
)
from generator.models.bundle import load_bundle
from generator.production.commit import BuildLocation, locate_build, read_receipt
from generator.production.commit.segments import SegmentProgress, complete_segments, gather_segment
from generator.production.mill import build
from generator.production.provenance.manifest import (
    ListedManifest,
    Receipt,
    SegmentedManifest,
    parse_manifest,
    receipt_key,
    segment_key,
)
from generator.spec import plan as plan_module
from generator.spec.canonical import canonical_json, digest_of
from generator.spec.plan import Plan
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import Store, open_store
from tests.support.bundles import tiny_bundle
from tests.support.small_builds import ENVIRONMENT, SmallBuild

FIVE = SmallBuild(counts=(12, 11), shard_size=5)  # segments of shards 0 and 1, 2 and 3, 4
_spaces = itertools.count()


@pytest.fixture(autouse=True)
def segments_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "SEGMENT_SHARDS", 2)


@pytest.fixture
def destination() -> str:
    return f"memory://segments-{next(_spaces)}"


def all_receipts(location: BuildLocation) -> tuple[Receipt, ...]:
    return tuple(read_receipt(location, number) for number in range(Plan(location.recipe).shard_count))


def segment_keys(store: Store) -> list[str]:
    return sorted(info.key for info in store.list("segments/"))


def finish(build: SmallBuild, location: BuildLocation) -> SegmentedManifest:
    manifest = build.draft(location, all_receipts(location))
    assert isinstance(manifest, SegmentedManifest)
    return manifest


def test_a_manifest_lists_segments_or_shards_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = FIVE.spec("memory://none").recipe
    assert Plan(recipe).segments() == [range(2), range(2, 4), range(4, 5)]
    assert [Plan(recipe).segment_of(shard) for shard in (0, 3, 4)] == [range(2), range(2, 4), range(4, 5)]
    old = SmallBuild(counts=(12, 11), shard_size=5, recipe_version=1).spec("memory://none").recipe
    few = SmallBuild(counts=(5, 5), shard_size=5).spec("memory://none").recipe
    for listed in (old, few):
        assert (Plan(listed).segment_size, Plan(listed).segments(), Plan(listed).segment_of(0)) == (0, [], None)
    monkeypatch.setattr(plan_module, "SEGMENT_SHARDS", 1000)
    many = recipe.model_copy(update={"counts": (2000,), "classes": (), "shard_size": 1})
    assert [len(each) for each in Plan(many).segments()] == [1000, 1000]
    many = many.model_copy(update={"counts": (1,) * 1001, "classes": tuple(map(str, range(1001)))})
    assert [len(each) for each in Plan(many).segments()] == [100] * 10 + [1]


def test_the_lazy_shards_are_the_receipts(destination: str) -> None:
    location, manifest = FIVE.commit(destination)
    receipts = all_receipts(location)
    opened = read_manifest(location.store)
    assert isinstance(opened, SegmentedManifest)
    for lazy in (manifest.shards, opened.shards):
        assert tuple(lazy) == receipts
        assert (lazy[3], lazy[-1], lazy[1:4]) == (receipts[3], receipts[4], receipts[1:4])
    assert opened.shard_sizes().tolist() == [each.samples for each in receipts] == [5, 5, 5, 4, 4]
    assert opened == manifest
    assert opened.canonical() == manifest.canonical() == location.store.get("manifest.json")
    assert b'shard":' not in opened.canonical()
    assert pickle.loads(pickle.dumps(opened)).segments == opened.segments


def test_segments_are_the_same_whoever_writes_them(destination: str) -> None:
    """At the commit, by a local build as it goes, by a worker after its last shard, by two at the same time."""
    location = FIVE.begin(destination)
    manifest = finish(FIVE, location)
    stored = {key: location.store.get(key) for key in segment_keys(location.store)}
    assert list(stored) == ["segments/000000.json", "segments/000002.json", "segments/000004.json"]
    gather_segment(location, range(2, 4))  # a duplicate changes nothing
    other = FIVE.begin(f"{destination}-other")
    progress = SegmentProgress(other, finished=[4, 2, 5, 900])
    for number in (3, 0):
        progress.finish(number)
    assert segment_keys(other.store) == ["segments/000002.json"]
    progress.finish(1)
    assert segment_keys(other.store) == ["segments/000000.json", "segments/000002.json"]
    assert finish(FIVE, other).canonical() == manifest.canonical()
    assert {key: other.store.get(key) for key in segment_keys(other.store)} == stored


def test_a_local_build_writes_its_segments_as_it_goes(
    destination: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = load_bundle(open_store(str(tiny_bundle(tmp_path_factory.mktemp("b") / "tiny"))))
    fields = {"bundle": bundle.digest, "classes": bundle.info.classes, "counts": (20, 15, 15), "shard_size": 10}
    order = Order(destination=destination, name="lines")
    location = locate_build(JobSpec(recipe=Recipe.model_validate(fields), order=order))
    seen = list[int]()
    manifest = build(
        location,
        bundle,
        device="cpu",
        on_progress=lambda at: seen.append(len(segment_keys(location.store))),
    )
    assert isinstance(manifest, SegmentedManifest)
    assert 0 < max(seen) < 3 == len(segment_keys(location.store))
    assert tuple(manifest.shards) == all_receipts(location)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"kind": "latentmill.segment"}'])
def test_a_damaged_segment_is_replaced_before_the_commit(destination: str, damage: bytes) -> None:
    location = FIVE.begin(destination)
    expected = finish(FIVE, location).canonical()
    location.store.put(segment_key(2), damage)
    assert finish(FIVE, location).canonical() == expected


def test_a_segment_that_is_not_canonical_or_of_other_shards_is_replaced(destination: str) -> None:
    location = FIVE.begin(destination)
    expected = finish(FIVE, location).canonical()
    good = location.store.get(segment_key(2))
    for wrong in (good + b"\n", location.store.get(segment_key(0))):
        location.store.put(segment_key(2), wrong)
        assert finish(FIVE, location).canonical() == expected


def test_a_segment_older_than_a_receipt_that_says_something_else_is_replaced(destination: str) -> None:
    """A shard was removed and made again, in another environment, after its segment was written."""
    location = FIVE.begin(destination)
    finish(FIVE, location)
    moved = ENVIRONMENT.model_copy(update={"device": "cpu/tess"})
    again = read_receipt(location, 3).model_copy(update={"environment": moved.digest})
    location.store.put(receipt_key(3), again.canonical())
    segments, environments = complete_segments(location)
    assert environments == {ENVIRONMENT.digest: 0, moved.digest: 3}
    manifest = finish(FIVE, location)
    assert manifest.segments == segments
    assert manifest.shards[3] == again


def test_a_commit_needs_every_receipt_and_every_object(destination: str) -> None:
    """Also where the segment was written while they were there."""
    location = FIVE.begin(destination)
    finish(FIVE, location)
    receipt = location.store.get(receipt_key(3))
    location.store.delete(receipt_key(3))
    with pytest.raises(ObjectMissing, match=r"receipts/000003\.json"):
        complete_segments(location)
    location.store.put(receipt_key(3), receipt)
    table = read_receipt(location, 3).table
    location.store.delete(table.key)
    with pytest.raises(IntegrityError, match=r"samples/small-000003\.parquet.*no object"):
        complete_segments(location)
    location.store.put(table.key, b"short")
    with pytest.raises(IntegrityError, match=f"{table.size} bytes"):
        complete_segments(location)


def test_a_worker_never_replaces_a_segment(destination: str) -> None:
    location = FIVE.begin(destination)
    location.store.put(segment_key(0), b"{}")
    with pytest.raises(BuildConflict):
        gather_segment(location, range(2))
    assert location.store.get(segment_key(0)) == b"{}"


def test_a_store_that_fails_while_segments_are_written_does_not_end_the_build(
    destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = FIVE.begin(destination)

    def fail(*_: object) -> None:
        raise StoreUnavailable("store", "an answer", "none")

    progress = SegmentProgress(location, finished=[])
    with monkeypatch.context() as patch:
        patch.setattr("generator.production.commit.segments.put_once", fail)
        progress.finish(0)
        progress.finish(1)
    assert segment_keys(location.store) == []
    assert len(finish(FIVE, location).segments) == 3


def torn(location: BuildLocation) -> None:
    location.store.put(segment_key(2), location.store.get(segment_key(2))[:-20])


def missing(location: BuildLocation) -> None:
    location.store.delete(segment_key(2))


def forged(location: BuildLocation) -> None:
    data = location.store.get(segment_key(2))
    location.store.put(segment_key(2), data.replace(b'"refused":2', b'"refused":7'))


def longer(location: BuildLocation) -> None:
    location.store.put(segment_key(2), location.store.get(segment_key(2)) + b" ")


@pytest.mark.parametrize(
    ("damage", "error"),
    [(torn, IntegrityError), (missing, ObjectMissing), (forged, IntegrityError), (longer, IntegrityError)],
)
def test_a_damaged_segment_of_a_committed_build_is_refused_and_the_others_are_read(
    destination: str, damage: Callable[[BuildLocation], None], error: type[LatentmillError]
) -> None:
    location, _ = FIVE.commit(destination)
    damage(location)
    shards = read_manifest(location.store).shards
    assert [shards[number].number for number in (0, 1, 4)] == [0, 1, 4]
    for _ in range(2):  # it does not become right by asking again
        with pytest.raises(error, match=r"segments/000002\.json"):
            shards[3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segment_version": 2}, "segment_version"),
        ({"recipe": "sha256:" + "0" * 64}, "receipts"),
        ({"receipts": []}, "receipts"),
        ({"first": 2}, "first"),
    ],
)
def test_a_segment_that_a_faulty_writer_committed_is_refused(
    destination: str, change: dict[str, Any], words: str
) -> None:
    location, manifest = FIVE.commit(destination)
    assert isinstance(manifest, SegmentedManifest)
    document = segment_document(location, 2) | change
    relist(location, manifest, 1, canonical_json(document))
    with pytest.raises((DatasetError, IntegrityError), match=words):
        read_manifest(location.store).shards[2]


@pytest.mark.parametrize("swap", [False, True])
def test_receipts_that_are_not_those_of_the_plan_are_refused(destination: str, swap: bool) -> None:
    location, manifest = FIVE.commit(destination)
    assert isinstance(manifest, SegmentedManifest)
    document = segment_document(location, 2)
    if swap:
        document["receipts"].reverse()
    else:  # 5 and 4 samples, whose sum stays
        document["receipts"][0]["samples"], document["receipts"][1]["samples"] = 4, 5
    relist(location, manifest, 1, canonical_json(document))
    with pytest.raises((DatasetError, IntegrityError), match=r"segments/000002\.json"):
        read_manifest(location.store).shards[2]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("first", 3, "without a gap"),
        ("shards", 1, "without a gap"),
        ("key", "segments/000003.json", "keys of their first shards"),
        ("samples", 8, "samples of 22"),
        ("bytes", 1, "bytes of"),
        ("refused", 99, "refused of"),
    ],
)
def test_a_manifest_whose_segments_do_not_fit_is_refused(
    destination: str, field: str, value: object, words: str
) -> None:
    location, manifest = FIVE.commit(destination)
    document = manifest.model_dump(mode="json")
    document["segments"][1][field] = value
    with pytest.raises(DatasetError, match=words):
        parse_manifest(canonical_json(document), location.store)


def test_shards_of_unequal_size_are_refused(destination: str) -> None:
    location, manifest = FIVE.commit(destination)
    document = manifest.model_dump(mode="json")
    document["segments"][0]["samples"] += 1
    document["segments"][1]["samples"] -= 1
    with pytest.raises(DatasetError, match="differ by at most one sample"):
        parse_manifest(canonical_json(document), location.store)


def test_a_manifest_that_lists_shards_is_read_as_ever(destination: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier releases committed builds of more shards with every shard in the manifest."""
    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "SEGMENT_SHARDS", 1000)
        location, manifest = FIVE.commit(destination)
    assert isinstance(manifest, ListedManifest)
    opened = read_manifest(location.store)
    assert isinstance(opened, ListedManifest)
    assert opened.shards == all_receipts(location)
    assert opened.shard_sizes().tolist() == [5, 5, 5, 4, 4]


def segment_document(location: BuildLocation, first: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(location.store.get(segment_key(first)))
    return document


def relist(location: BuildLocation, manifest: SegmentedManifest, position: int, data: bytes) -> None:
    """Store ``data`` as a segment, and a manifest that states its digest."""
    listed = manifest.segments[position]
    location.store.put(listed.key, data)
    changed = listed.model_copy(update={"digest": digest_of(data), "size": len(data)})
    segments = (*manifest.segments[:position], changed, *manifest.segments[position + 1 :])
    location.store.put("manifest.json", manifest.model_copy(update={"segments": segments}).canonical())
