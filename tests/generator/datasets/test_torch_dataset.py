"""``open_dataset``: resolving a URL to a build, and every sample exactly once for any number of ranks and workers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from generator.datasets.builds import LATEST_KEY, resolve_build
from generator.datasets.torch_dataset import NO_LABEL, Dataset, Sample, open_dataset
from generator.errors import DatasetError, IntegrityError, SpecError
from generator.spec.canonical import canonical_json
from generator.spec.plan import Plan
from generator.spec.recipe import JpegSettings
from generator.store import open_store
from tests.support.small_builds import SmallBuild

pytestmark = [
    # These tests use more workers than cores on purpose.
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # Python 3.12 and later warn if a process with threads forks. DataLoader forks on Linux.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

LABELLED = SmallBuild(counts=(7, 6), shard_size=5)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A destination with one committed build of 13 samples in 3 shards."""
    path = tmp_path_factory.mktemp("out")
    LABELLED.commit(str(path))
    return path


@pytest.fixture
def url(home: Path) -> str:
    return f"{home}/small"


def indices(samples: Iterable[Any]) -> list[int]:
    return [sample.provenance["index"] for sample in samples]


def load_all(dataset: Dataset, **settings: Any) -> Iterator[Sample]:
    """The samples, one by one, as a DataLoader yields them."""
    yield from DataLoader(dataset, batch_size=None, **settings)


def test_gives_every_image_with_its_label_and_provenance(url: str) -> None:
    samples = list(open_dataset(url))
    labels = np.concatenate([shard.labels_N for shard in Plan(LABELLED.spec(url).recipe)])
    assert indices(samples) == list(range(13))
    for index, (image, label, provenance) in enumerate(samples):
        np.testing.assert_array_equal(image, LABELLED.pixels(index))
        assert image.dtype == np.uint8
        assert label == labels[index] == provenance["label"]
        assert provenance["class"] == LABELLED.classes[label]
        assert provenance["key"] == f"{index:09d}"
        assert provenance["recipe"] == LABELLED.spec(url).recipe.digest
        assert {"attempt", "cluster", "log_density"} <= provenance.keys()


def test_knows_its_size_classes_and_place(url: str) -> None:
    dataset = open_dataset(url)
    assert (len(dataset), dataset.classes) == (13, LABELLED.classes)
    assert dataset.manifest.samples == 13
    assert dataset.url.endswith(f"small/builds/{dataset.manifest.build_id}")


def test_an_unlabelled_dataset_has_the_label_minus_one_and_collates(tmp_path: Path) -> None:
    SmallBuild(classes=(), counts=(9,), channels=3).commit(str(tmp_path))
    (batch,) = DataLoader(open_dataset(f"{tmp_path}/small"), batch_size=9)
    assert batch.label.tolist() == [NO_LABEL] * 9
    assert batch.image.shape == (9, 8, 8, 3)
    assert "class" not in batch.provenance


def test_soft_labels_need_a_judge(url: str) -> None:
    with pytest.raises(DatasetError, match=r"soft_labels: .*labels a judge checked"):
        open_dataset(url, soft_labels=True)


def test_jpeg_builds_are_read(tmp_path: Path) -> None:
    build = SmallBuild(image=JpegSettings(quality=100), size=16)
    build.commit(str(tmp_path))
    for index, sample in enumerate(open_dataset(f"{tmp_path}/small")):
        assert sample.image.shape == (16, 16, 1)
        assert np.abs(sample.image.astype(int) - build.pixels(index)).max() < 40  # JPEG, at its best quality


def test_default_collate_makes_batches(url: str) -> None:
    batch = next(iter(DataLoader(open_dataset(url), batch_size=4)))
    assert isinstance(batch, Sample)
    assert (batch.image.shape, batch.image.dtype) == ((4, 8, 8, 1), torch.uint8)
    assert batch.label.dtype == torch.int64
    assert batch.provenance["index"].tolist() == [0, 1, 2, 3]
    assert len(batch.provenance["key"]) == 4


def test_a_transform_is_called_with_the_image(url: str) -> None:
    assert [sample.image for sample in open_dataset(url, transform=lambda image: image.shape)] == [(8, 8, 1)] * 13


@pytest.mark.parametrize("workers", [1, 2, 5])  # 5: more than shards
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_sample_exactly_once_under_any_number_of_workers(url: str, workers: int, shuffle: bool) -> None:
    dataset = open_dataset(url, shuffle=shuffle)
    assert sorted(indices(load_all(dataset, num_workers=workers))) == list(range(13))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_persistent_workers_repeat_and_see_the_epoch(url: str, method: str) -> None:
    dataset = open_dataset(url, shuffle=True, seed=3)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context=method
    )
    epochs = []
    for epoch in (0, 1, 1):
        dataset.set_epoch(epoch)
        epochs.append([indices([sample])[0] for sample in loader])
    first, second, again = epochs
    assert sorted(first) == sorted(second) == list(range(13))
    assert second == again
    assert first != second


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 20])
def test_ranks_share_an_epoch_and_differ_by_at_most_one_sample(url: str, world_size: int) -> None:
    shares = [open_dataset(url, rank=rank, world_size=world_size, shuffle=True, seed=1) for rank in range(world_size)]
    seen = [indices(share) for share in shares]
    assert sorted(chain(*seen)) == list(range(13))
    assert [len(share) for share in shares] == [len(part) for part in seen]
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


@pytest.mark.server
def test_ranks_and_workers_together(url: str) -> None:
    shares = [open_dataset(url, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(chain(*(indices(load_all(share, num_workers=3)) for share in shares))) == list(range(13))


def test_shuffling_is_a_function_of_seed_and_epoch(url: str) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        dataset = open_dataset(url, shuffle=True, seed=seed)
        dataset.set_epoch(epoch)
        return indices(dataset)

    assert order(0, 0) == order(0, 0)
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len(set(map(tuple, orders))) == len(orders)
    assert all(sorted(one) == list(range(13)) != one for one in orders)


def test_shuffling_moves_shards_and_samples(tmp_path: Path) -> None:
    SmallBuild(counts=(50, 50), shard_size=10).commit(str(tmp_path))
    order = np.array(indices(open_dataset(f"{tmp_path}/small", shuffle=True)))
    shards = order.reshape(10, 10) // 10
    assert (shards == shards[:, :1]).all()  # one shard in memory at a time
    assert shards[:, 0].tolist() != sorted(shards[:, 0])
    assert all(row.tolist() != sorted(row) for row in order.reshape(10, 10))


def test_survives_pickling(url: str) -> None:
    dataset = open_dataset(url, shuffle=True, seed=5)
    assert indices(pickle.loads(pickle.dumps(dataset))) == indices(dataset)


def test_a_damaged_shard_is_an_error_and_gives_nothing(tmp_path: Path) -> None:
    place, manifest = LABELLED.commit(str(tmp_path))
    key = manifest.shards[1].shard.key
    data = bytearray(place.store.get(key))
    data[600] ^= 1
    place.store.put(key, bytes(data))
    samples = iter(open_dataset(f"{tmp_path}/small"))
    assert indices(next(samples) for _ in range(5)) == list(range(5))
    with pytest.raises(IntegrityError, match=r"small-000001\.tar"):
        next(samples)


def test_damage_met_in_a_worker_is_the_same_error(tmp_path: Path) -> None:
    place, manifest = LABELLED.commit(str(tmp_path))
    place.store.put(manifest.shards[1].shard.key, b"")
    loader = DataLoader(open_dataset(f"{tmp_path}/small"), batch_size=None, num_workers=1)
    with pytest.raises(IntegrityError, match=r"small-000001\.tar"):
        indices(loader)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "world_size"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(url: str, rank: int, world_size: int) -> None:
    with pytest.raises(SpecError, match="rank"):
        open_dataset(url, rank=rank, world_size=world_size)


@pytest.mark.parametrize("epoch", [-1, 2**31])
def test_an_epoch_out_of_range_is_refused(url: str, epoch: int) -> None:
    with pytest.raises(SpecError, match="epoch"):
        open_dataset(url).set_epoch(epoch)


def test_a_build_opens_by_its_own_url(home: Path) -> None:
    (build,) = (home / "small" / "builds").iterdir()
    assert open_dataset(str(build)).url == open_dataset(f"{home}/small").url


def test_reads_other_stores(bucket: str, s3_settings: Any) -> None:
    LABELLED.commit("memory://datasets-unit")
    source, target = open_store("memory://datasets-unit"), open_store(bucket, s3_settings)
    for info in source.list():
        target.put(info.key, source.get(info.key))
    dataset = open_dataset(f"{bucket}/small", s3=s3_settings)
    assert sorted(indices(load_all(dataset, num_workers=2))) == list(range(13))


def test_several_builds_need_a_choice(tmp_path: Path) -> None:
    builds = [SmallBuild(seed=seed).commit(str(tmp_path))[1].build_id for seed in range(2)]
    with pytest.raises(DatasetError) as several:
        open_dataset(f"{tmp_path}/small")
    assert all(build in str(several.value) for build in builds)
    store = open_store(f"{tmp_path}/small")
    for build in builds:
        store.put(LATEST_KEY, canonical_json({"build": build, "promoted": "by hand"}))
        assert open_dataset(f"{tmp_path}/small").manifest.build_id == build


@pytest.mark.parametrize("latest", [b"{}", b"not json", b'{"build":"../../x"}', b'{"build":"00000000000000000000"}'])
def test_a_bad_pointer_is_refused(tmp_path: Path, latest: bytes) -> None:
    LABELLED.commit(str(tmp_path))
    open_store(f"{tmp_path}/small").put(LATEST_KEY, latest)
    with pytest.raises(DatasetError, match=LATEST_KEY):
        open_dataset(f"{tmp_path}/small")


def test_an_unfinished_build_is_no_dataset(tmp_path: Path) -> None:
    place = LABELLED.begin(str(tmp_path))
    with pytest.raises(DatasetError, match="not finished"):
        open_dataset(place.url)
    with pytest.raises(DatasetError, match=place.build_id):
        open_dataset(f"{tmp_path}/small")


def test_an_unfinished_build_beside_a_committed_one_does_not_matter(tmp_path: Path) -> None:
    _, manifest = LABELLED.commit(str(tmp_path))
    SmallBuild(seed=9).begin(str(tmp_path))
    assert open_dataset(f"{tmp_path}/small").manifest == manifest


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"kind":"latentmill.manifest"}', b"\xff"])
def test_a_broken_manifest_is_no_dataset(tmp_path: Path, manifest: bytes) -> None:
    place, _ = LABELLED.commit(str(tmp_path))
    place.store.put("manifest.json", manifest)
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        open_dataset(place.url)


def test_nothing_there_names_what_lies_below(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="small"):
        open_dataset(str(home))
    with pytest.raises(DatasetError, match="neither"):
        open_dataset(str(tmp_path / "absent"))


def test_resolving_a_build_needs_no_torch(url: str) -> None:
    code = (
        "import sys, generator.datasets.verification; from generator.datasets.builds import resolve_build\n"
        f"resolve_build({url!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_resolve_build_gives_the_store_of_the_build(url: str) -> None:
    store, manifest = resolve_build(url)
    assert store.get("recipe.json") == LABELLED.spec(url).recipe.canonical()
    assert manifest.recipe_digest == LABELLED.spec(url).recipe.digest
