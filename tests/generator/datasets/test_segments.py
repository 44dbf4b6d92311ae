"""Readers of a build whose manifest is in segments: they see what they see of one that lists every shard."""

from __future__ import annotations

import itertools
import json
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from generator.curation.gates.checks import check_counts
from generator.curation.gates.image_subset import read_subset
from generator.curation.gates.signed import check_signature
from generator.curation.retention import CommittedBuild, RetentionPlan, apply_retention, find_orphans
from generator.datasets.builds import read_manifest, resolve_build
from generator.datasets.exports.export import Target, export_build
from generator.datasets.lineage import trace_build, trace_image
from generator.datasets.replay import replay
from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.errors import IntegrityError, ObjectMissing
from generator.models.bundle import Bundle, load_bundle
from generator.production.commit import BuildLocation, locate_build
from generator.production.commit.segments import complete_segments
from generator.production.mill import build
from generator.production.provenance.manifest import MANIFEST_KEY, SegmentedManifest
from generator.signatures import PrivateKey, make_key, read_private_key, sign
from generator.spec import plan as plan_module
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import Store, open_store
from tests.support.bundles import tiny_bundle
from tests.support.small_builds import SmallBuild

SMALL = SmallBuild(counts=(22, 21), shard_size=5)  # nine shards
# Of an export: what names the manifest, a random number, and the digest of that.
_OWN_FILES = ("export.json", "index.uuid", "whole.json")
_spaces = itertools.count()


def commit_both(small: SmallBuild, path: Path) -> tuple[BuildLocation, BuildLocation]:
    """The same build twice: with every shard in its manifest, and in segments of two shards."""
    with pytest.MonkeyPatch.context() as patch:
        listed, _ = small.commit(str(path / "listed"))
        patch.setattr(plan_module, "SEGMENT_SHARDS", 2)
        segmented, manifest = small.commit(str(path / "segmented"))
    assert isinstance(manifest, SegmentedManifest)
    assert len(manifest.segments) == 5
    return listed, segmented


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildLocation, BuildLocation]:
    return commit_both(SMALL, tmp_path_factory.mktemp("out"))


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> BuildLocation:
    """A build of its own, in memory, to be damaged."""
    monkeypatch.setattr(plan_module, "SEGMENT_SHARDS", 2)
    return SMALL.commit(f"memory://segmented-{next(_spaces)}")[0]


def facts(samples: Any) -> list[tuple[bytes, int, str]]:
    return [(image.tobytes(), label, provenance["key"]) for image, label, provenance in samples]


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "seed": 3}, {"where": "cluster == 1"}], ids=str)
def test_the_same_samples_in_the_same_order(both: tuple[BuildLocation, BuildLocation], options: dict[str, Any]) -> None:
    listed, segmented = (open_dataset(each.url, **options) for each in both)
    assert len(listed) == len(segmented) > 0
    assert facts(listed) == facts(segmented)
    assert segmented.table().equals(listed.table())


def test_samples_by_index(both: tuple[BuildLocation, BuildLocation]) -> None:
    listed, segmented = (open_dataset(each.url, map_style=True) for each in both)
    order = [42, 0, 7, 23, 8, 42]
    assert facts(segmented[index] for index in order) == facts(listed[index] for index in order)
    copy = pickle.loads(pickle.dumps(segmented))  # as a loader's process gets it
    assert facts(copy.__getitems__(order)) == facts(listed[index] for index in order)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_epoch_goes_on_in_another_process(both: tuple[BuildLocation, BuildLocation]) -> None:
    def batches(dataset: Any, workers: int) -> list[list[int]]:
        loader = DataLoader(dataset, batch_size=None, num_workers=workers)
        return [batch.provenance["index"].tolist() for batch in loader]

    options: dict[str, Any] = {"shuffle": True, "seed": 5, "batch_size": 4}
    listed, segmented = (open_dataset(each.url, **options) for each in both)
    whole = batches(listed, 0)
    assert batches(segmented, 2) == whole
    again = open_dataset(both[1].url, **options)
    again.load_state_dict(segmented.state_dict(consumed=12))
    assert batches(again, 2) == whole[3:]


def test_opening_reads_the_manifest_alone(segmented: BuildLocation, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()
    get = type(segmented.store).get

    def counted(store: Store, key: str, *limit: int) -> bytes:
        read.append(key)
        return get(store, key, *limit)

    monkeypatch.setattr(type(segmented.store), "get", counted)
    dataset = open_dataset(segmented.url, map_style=True)
    assert [key for key in read if "latest" not in key] == [MANIFEST_KEY]
    _ = dataset[40]
    assert [key for key in read if key.startswith("segments/")] == ["segments/000008.json"]


def test_an_intact_build_is_verified(both: tuple[BuildLocation, BuildLocation]) -> None:
    for deep in (False, True):
        found = verify_dataset(both[1].url, deep=deep)
        assert (found.problems, found.shards, found.samples) == ((), 9, 43)


@pytest.mark.parametrize("deep", [False, True])
def test_damage_of_a_segment_is_found_and_names_it(segmented: BuildLocation, deep: bool) -> None:
    store, key = segmented.store, "segments/000002.json"
    intact = store.get(key)
    store.put(key, intact[:-20])
    assert {problem.where for problem in verify_dataset(segmented.url, deep=deep).problems} == {key}
    store.put(key, intact.replace(b'"refused":2', b'"refused":7'))
    assert {problem.where for problem in verify_dataset(segmented.url, deep=deep).problems} == {key}
    store.delete(key)
    found = verify_dataset(segmented.url, deep=deep)
    assert [(problem.where, problem.check) for problem in found.problems] == [(key, "object")]
    store.put(key, intact)
    assert verify_dataset(segmented.url, deep=deep).ok


def test_other_damage_is_found_as_ever(segmented: BuildLocation) -> None:
    store = segmented.store
    for key in ("receipts/000003.json", "shards/small-000007.tar"):
        store.delete(key)
    store.put("shards/small-000009.tar", b"one more")
    store.put("segments/000003.json", b"{}")
    assert {problem.where for problem in verify_dataset(segmented.url).problems} == {
        "receipts/000003.json",
        "shards/small-000007.tar",
        "shards/small-000009.tar",
        "segments/000003.json",
    }


def test_a_faulty_total_of_the_manifest_is_found(segmented: BuildLocation) -> None:
    document = json.loads(segmented.store.get(MANIFEST_KEY))
    document["refused"] += 1
    segmented.store.put(MANIFEST_KEY, json.dumps(document).encode())
    assert {problem.where for problem in verify_dataset(segmented.url).problems} == {MANIFEST_KEY}


@pytest.fixture
def key(tmp_path: Path) -> PrivateKey:
    make_key(tmp_path / "key")
    return read_private_key(tmp_path / "key")


def test_a_signature_covers_segments_by_their_digests(segmented: BuildLocation, key: PrivateKey) -> None:
    store = segmented.store
    sign(store, MANIFEST_KEY, store.get(MANIFEST_KEY), key)
    assert verify_dataset(segmented.url, trusted=[key.public]).ok
    forged = json.loads(store.get("segments/000002.json"))
    forged["receipts"][0]["shard"]["digest"] = "sha256:" + "0" * 64
    store.put("segments/000002.json", json.dumps(forged, sort_keys=True, separators=(",", ":")).encode())
    found = verify_dataset(segmented.url, trusted=[key.public])
    assert ("segments/000002.json", "digest") in {(problem.where, problem.check) for problem in found.problems}
    document = json.loads(store.get(MANIFEST_KEY))
    document["segments"][1]["digest"] = "sha256:" + "0" * 64
    store.put(MANIFEST_KEY, json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    with pytest.raises(IntegrityError, match="not the one that was signed"):
        verify_dataset(segmented.url, trusted=[key.public])


def test_a_reader_stops_at_a_damaged_segment(segmented: BuildLocation) -> None:
    segmented.store.delete("segments/000002.json")
    samples, steps = [], iter(open_dataset(segmented.url))
    with pytest.raises(ObjectMissing, match=r"segments/000002\.json"):
        samples.extend(steps)
    dataset = open_dataset(segmented.url, map_style=True)
    assert dataset[0].provenance["index"] == 0
    with pytest.raises(ObjectMissing):
        dataset[10]
    assert dataset[42].provenance["index"] == 42


@pytest.mark.parametrize("target", ["hf-folder", "mds", "energon"])
def test_exports_are_the_same(both: tuple[BuildLocation, BuildLocation], target: Target, tmp_path: Path) -> None:
    found = []
    for place in both:
        out = tmp_path / place.url.split("/")[-4]
        assert export_build(place.url, target, out).shards == 9
        found.append(
            {
                path.relative_to(out).as_posix(): path.read_bytes()
                for path in out.rglob("*")
                if path.is_file() and path.name not in _OWN_FILES
            }
        )
    assert found[0] == found[1]


def test_an_image_is_traced(both: tuple[BuildLocation, BuildLocation]) -> None:
    for place in both:
        data = open_dataset(place.url, map_style=True)._reader.sample(5, 2)[1]["png"]
        found = trace_image(data, (place.url,))
        assert found.shard == "shards/small-000005.tar"
        assert trace_build(place.url).recipe == place.recipe_digest


def test_gates_read_it(both: tuple[BuildLocation, BuildLocation]) -> None:
    manifests = [read_manifest(each.store) for each in both]
    assert [check_counts(each).holds for each in manifests] == [True, True]
    assert check_counts(manifests[0]) == check_counts(manifests[1])
    listed, segmented = (read_subset(*resolve_build(each.url), 20) for each in both)
    assert (listed.images_NHWC == segmented.images_NHWC).all()


def test_the_gate_of_signatures_reads_it(segmented: BuildLocation, key: PrivateKey) -> None:
    store = segmented.store
    sign(store, MANIFEST_KEY, store.get(MANIFEST_KEY), key)
    manifest = read_manifest(store)
    assert check_signature(store, manifest, [key.public]).holds
    changed = manifest.model_copy(update={"segments": manifest.segments[:1]})
    assert "changed while it was judged" in check_signature(store, changed, [key.public]).words


@pytest.mark.parametrize("form", ["mds", "parquet"])
def test_other_formats(form: Any, tmp_path: Path) -> None:
    small = SmallBuild(counts=(22, 21), shard_size=5, format=form, published="2026-11-30")
    listed, segmented = commit_both(small, tmp_path)
    assert verify_dataset(segmented.url, deep=True).ok
    for key in ("README.md", "croissant.json", *(["shards/index.json"] if form == "mds" else [])):
        assert segmented.store.get(key) == listed.store.get(key)
    assert facts(open_dataset(segmented.url)) == facts(open_dataset(listed.url))


def test_sidecars_belong_to_their_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "SEGMENT_SHARDS", 2)
    small = SmallBuild(counts=(22, 21), shard_size=5, sidecars=("dali",))
    location = small.begin(f"memory://segmented-{next(_spaces)}")
    location.store.delete("shards/small-000003.idx")
    with pytest.raises(IntegrityError, match=r"small-000003\.idx.*no object"):
        complete_segments(location)
    again = small.commit(f"memory://segmented-{next(_spaces)}")[0]
    assert verify_dataset(again.url, deep=True).ok


def test_a_build_is_deleted_with_its_segments(segmented: BuildLocation) -> None:
    """Segments leave before the receipts that they copy."""
    dataset = open_store(segmented.url.partition("/builds/")[0])
    gone, at = CommittedBuild(segmented.build_id, datetime.now(UTC)), datetime.now(UTC) + timedelta(seconds=1)
    deleted, delete = list[str](), type(segmented.store).delete
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(segmented.store), "delete", lambda store, key: (deleted.append(key), delete(store, key)))
        result = apply_retention(dataset, RetentionPlan(keep=(), delete=(gone,)), at=at)
    assert result.deleted == (segmented.build_id,)
    assert list(segmented.store.list()) == []
    folders = [name for name, _ in itertools.groupby(key.split("/")[0] for key in deleted)]
    assert folders[:4] == ["manifest.json", "segments", "receipts", "shards"]


def test_an_abandoned_build_loses_its_segments_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "SEGMENT_SHARDS", 2)
    location = SMALL.begin(f"memory://segmented-{next(_spaces)}")
    complete_segments(location)
    later = datetime.now(UTC) + timedelta(seconds=1)
    deleted, delete = list[str](), type(location.store).delete
    with monkeypatch.context() as patch:
        patch.setattr(type(location.store), "delete", lambda store, key: (deleted.append(key), delete(store, key)))
        (orphan,) = find_orphans(location.store, later, lambda _: "cancelled")
        orphan.remove()
    assert [key.split("/")[0] for key in deleted[:6]] == ["segments"] * 5 + ["receipts"]
    assert [info.key for info in location.store.list()] == ["recipe.json"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))))


def test_a_local_build_is_replayed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "SEGMENT_SHARDS", 2)
    fields = {"bundle": bundle.digest, "classes": bundle.info.classes, "counts": (20, 15, 15), "shard_size": 10}
    recipe = Recipe.model_validate(
        fields | {"batch": 16, "density_floor": 0.2, "published": "2026-11-30", "page": True}
    )
    spec = JobSpec(recipe=recipe, order=Order(destination=f"memory://segmented-{next(_spaces)}", name="lines"))
    location = locate_build(spec)
    manifest = build(location, bundle, device="cpu")
    assert isinstance(manifest, SegmentedManifest)
    assert verify_dataset(location.url, deep=True).ok
    assert b"5 shards" in location.store.get("index.html")
    assert all(replay(location.url, index, bundle, device="cpu").identical for index in (0, 23, 49))
    assert build(location, bundle, device="cpu") == manifest
