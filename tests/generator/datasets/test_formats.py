"""Everything that reads a build, on every shard format: the same samples, found, replayed, measured, removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.curation.gates.image_subset import read_subset
from generator.curation.quality.subject import Images, _read_images
from generator.curation.retention import find_orphans
from generator.datasets.builds import resolve_build
from generator.datasets.lineage import trace_image
from generator.datasets.mix import mix
from generator.datasets.replay import replay
from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.errors import DatasetError
from generator.models.bundle import Bundle, load_bundle
from generator.production.commit import BuildLocation, locate_build
from generator.production.mill import build
from generator.production.shards import shard_format
from generator.spec.plan import Plan
from generator.spec.recipe import JobSpec, Order, Recipe, ShardFormatName
from generator.store import S3Settings, open_store
from tests.support.bundles import screened_bundle
from tests.support.small_builds import SmallBuild

FORMATS: tuple[ShardFormatName, ...] = ("webdataset", "parquet", "mds")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(screened_bundle(tmp_path_factory.mktemp("b") / "bundle"))))


@pytest.fixture(scope="module")
def built(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[ShardFormatName, BuildLocation]:
    """One build for each format, of recipes that differ by it alone, with a judge's soft labels."""
    home, found = tmp_path_factory.mktemp("home"), {}
    for name in FORMATS:
        recipe = Recipe(
            bundle=bundle.digest,
            classes=bundle.info.classes,
            counts=(20, 17, 15),
            shard_size=20,
            batch=16,
            label_floor=0.2,
            format=name,
        )
        location = locate_build(JobSpec(recipe=recipe, order=Order(destination=str(home), name=name)))
        build(location, bundle, device="cpu")
        found[name] = location
    return found


def facts(provenance: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in provenance.items() if name != "recipe"}


@pytest.mark.parametrize("name", FORMATS[1:])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"map_style": True},
        {"where": "label == 1 and log_density < 0"},
        {"shuffle": True, "seed": 3},
        {"soft_labels": True},
    ],
    ids=str,
)
def test_readers_give_the_same_samples_of_every_format(
    built: dict[ShardFormatName, BuildLocation], name: ShardFormatName, options: dict[str, Any], tmp_path: Path
) -> None:
    wanted = list(open_dataset(built["webdataset"].url, **options))
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        found = list(open_dataset(built[name].url, cache=cache, **options))
        assert len(found) == len(wanted) > 10
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(ours.image, theirs.image)
            np.testing.assert_array_equal(ours.label, theirs.label)
            assert facts(ours.provenance) == facts(theirs.provenance)
            assert ours.provenance["recipe"] == built[name].recipe_digest


@pytest.mark.parametrize("name", FORMATS)
def test_a_sample_by_index_has_the_files_of_its_shard(
    built: dict[ShardFormatName, BuildLocation], name: ShardFormatName
) -> None:
    """Also where facts come from the table: they are the same JSON, byte for byte."""
    dataset = open_dataset(built[name].url, map_style=True)
    reader, plan = dataset._reader, Plan(built[name].recipe)
    for number in range(plan.shard_count):
        whole = reader.shard(number)
        assert [reader.sample(number, row) for row in range(plan.size(number))] == whole


def test_a_build_of_a_later_release_is_read_unless_its_format_is_unknown(tmp_path: Path) -> None:
    """Its recipe may have fields that this release does not know."""
    location, manifest = SmallBuild(format="parquet").commit(str(tmp_path))
    for added, known in (({"tone": 3}, True), ({"format": "zip"}, False), ({"format": ["mds"]}, False)):
        later = manifest.model_copy(update={"recipe": manifest.recipe | added})
        location.store.put("manifest.json", later.canonical())
        if known:
            assert len(list(open_dataset(location.url))) == len(open_dataset(location.url, map_style=True)) == 13
        else:
            with pytest.raises(DatasetError, match=r"recipe\.format"):
                open_dataset(location.url)


@pytest.mark.parametrize("name", FORMATS)
def test_the_store_is_asked_for_the_bytes_of_a_sample_alone(
    built: dict[ShardFormatName, BuildLocation], name: ShardFormatName, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(built[name].url, map_style=True)
    store, asked = dataset._reader._store, list[int]()
    read, get = store.read, store.get

    def read_part(key: str, start: int, length: int) -> bytes:
        asked.append(length)
        return read(key, start, length)

    def get_table(key: str, *limit: int) -> bytes:
        assert key.startswith("samples/")
        return get(key, *limit)

    monkeypatch.setattr(store, "part_reader", lambda key: partial(read_part, key))
    monkeypatch.setattr(store, "get", get_table)
    dataset[7]
    assert len(asked) == 1
    assert 0 < sum(asked) < dataset.manifest.shards[0].shard.size / 5


@pytest.mark.parametrize("name", FORMATS)
def test_a_build_of_every_format_is_verified_replayed_and_traced(
    built: dict[ShardFormatName, BuildLocation], name: ShardFormatName, bundle: Bundle
) -> None:
    url = built[name].url
    assert verify_dataset(url, deep=True).problems == ()
    assert all(replay(url, index, bundle, device="cpu").identical for index in (0, 30, 51))
    store, manifest = resolve_build(url)
    data = store.get(manifest.shards[1].shard.key)
    key, files = list(shard_format(built[name].recipe).read_samples(data, field="shard"))[3]
    found = trace_image(files["png"], (url,))
    assert (found.shard, found.sample and found.sample["key"]) == (manifest.shards[1].shard.key, key)


def test_measures_and_gates_see_the_same_images_of_every_format(built: dict[ShardFormatName, BuildLocation]) -> None:
    def subset(name: ShardFormatName) -> tuple[np.ndarray, ...]:
        found = read_subset(*resolve_build(built[name].url), 30)
        return found.images_NHWC, found.labels_N, found.confidence_M, found.labels_M, found.digests_M

    def images(name: ShardFormatName) -> Images:
        return _read_images(open_dataset(built[name].url))

    for name in FORMATS[1:]:
        for ours, theirs in zip(subset(name), subset("webdataset"), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(images(name).images_NHWC, images("webdataset").images_NHWC)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_mixed_and_read_from_s3(
    built: dict[ShardFormatName, BuildLocation], name: ShardFormatName, bucket: str, s3_settings: S3Settings
) -> None:
    remote = open_store(f"{bucket}/{name}/builds/{built[name].build_id}", s3_settings)
    for info in built[name].store.list():
        remote.put(info.key, built[name].store.get(info.key))
    there = open_dataset(f"{bucket}/{name}", s3=s3_settings, map_style=True)
    here = open_dataset(built["webdataset"].url, map_style=True)
    for index, sample in enumerate(there.__getitems__([51, 0, 20])):
        np.testing.assert_array_equal(sample.image, here[[51, 0, 20][index]].image)
    assert len(list(mix([(there, 0.5), (here, 0.5)], length=20))) == 20
    assert verify_dataset(f"{bucket}/{name}", s3_settings, deep=True).ok


@pytest.mark.parametrize("name", FORMATS)
def test_what_an_abandoned_build_left_is_found(name: ShardFormatName, tmp_path: Path) -> None:
    sidecars: Any = ("dali",) if name == "webdataset" else ()
    location = SmallBuild(format=name, sidecars=sidecars).begin(str(tmp_path))
    store = open_store(str(tmp_path))
    (orphan,) = find_orphans(store, datetime.now(UTC) + timedelta(hours=1), lambda _: None)
    assert orphan.objects == sum(1 for _ in location.store.list())
    assert orphan.remove() == orphan.objects
    assert list(location.store.list()) == []
