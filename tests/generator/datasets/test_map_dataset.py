"""Samples by index: ranged reads, digests, samplers, filters and columns."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch.utils.data import DataLoader, WeightedRandomSampler

from generator.datasets.builds import resolve_build
from generator.datasets.torch_dataset import MapDataset, open_dataset
from generator.errors import DatasetError, IntegrityError, SpecError
from generator.production.shards import sample_places
from generator.spec.canonical import canonical_json, digest_of
from generator.store import S3Settings
from tests.support.small_builds import SmallBuild

SMALL = SmallBuild(counts=(7, 6), shard_size=5)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(params=[(1, "webdataset"), (2, "webdataset"), (2, "parquet"), (2, "mds")], ids=str)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    version, form = request.param
    SmallBuild(counts=(7, 6), shard_size=5, recipe_version=version, format=form).commit(str(tmp_path))
    return f"{tmp_path}/small"


def bytes_of_a_sample(dataset: MapDataset, shard: bytes, row: int) -> tuple[int, int]:
    """Where in the first shard the bytes lie that are read of a sample: all of it, or its image in Parquet."""
    suffix = dataset.manifest.shards[0].shard.key.rpartition(".")[2]
    if suffix == "tar":
        return sample_places(shard, field="shard")[row]
    offsets, sizes = (column.to_pylist() for column in dataset.table(["offset", "size"]).columns)
    if suffix == "parquet":
        return offsets[row], offsets[row] + sizes[row]
    return offsets[row] - 12, offsets[row + 1] - 12  # three sizes of four bytes


def mapped(url: str, **options: Any) -> MapDataset:
    return open_dataset(url, map_style=True, **options)


def test_every_sample_by_its_index(url: str) -> None:
    dataset = mapped(url)
    wanted = list(open_dataset(url))
    assert len(dataset) == len(wanted) == 13
    for index in (0, 4, 5, 12, -1, -13, np.int64(7)):
        found = dataset[index]  # type: ignore[index]
        np.testing.assert_array_equal(found.image, wanted[index].image)
        assert (found.label, found.provenance) == (wanted[index].label, wanted[index].provenance)
    for wrong in (13, -14):
        with pytest.raises(IndexError):
            dataset[wrong]
    with pytest.raises(SpecError):
        dataset["0"]  # type: ignore[index]
    assert [sample.provenance["index"] for sample in dataset.__getitems__([3, 3, 11])] == [3, 3, 11]


def test_only_the_bytes_of_a_sample_are_read(url: str) -> None:
    """All else of the shard may be damaged once its places are known."""
    dataset = mapped(url)
    wanted = dataset[2]
    path = Path(dataset.url.removeprefix("file://")) / dataset.manifest.shards[0].shard.key
    data = path.read_bytes()
    begin, end = bytes_of_a_sample(dataset, data, 2)
    path.write_bytes(b"x" * begin + data[begin:end] + b"x" * (len(data) - end))
    np.testing.assert_array_equal(dataset[2].image, wanted.image)
    with pytest.raises(IntegrityError):
        dataset[3]


def test_samplers_loaders_and_threads(url: str) -> None:
    dataset = mapped(url, transform=lambda image: torch.from_numpy(np.array(image)))
    sampler = WeightedRandomSampler(torch.ones(len(dataset)), 20, generator=torch.Generator().manual_seed(0))
    batches = list(DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=2))
    assert sum(len(batch.label) for batch in batches) == 20
    whole = list(DataLoader(dataset, batch_size=None, shuffle=True))
    assert sorted(sample.provenance["index"] for sample in whole) == list(range(13))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: dataset[index % 13].provenance["index"], range(200)))
    assert found == [index % 13 for index in range(200)]
    assert pickle.loads(pickle.dumps(mapped(url)))[3].provenance["index"] == 3


def test_columns_and_filters_without_an_image(url: str) -> None:
    whole = open_dataset(url)
    wanted = [sample.provenance["index"] for sample in whole if sample.provenance["class"] == "round"]
    shutil.rmtree(Path(whole.url.removeprefix("file://")) / "shards")
    dataset = mapped(url, where="class == 'round'")
    table = dataset.table(["index", "class"])
    assert table.column("index").to_pylist() == wanted
    assert set(table.column("class").to_pylist()) == {"round"}
    assert "latent" not in mapped(url).table().column_names
    assert len(mapped(url).table()) == 13
    with pytest.raises(SpecError, match="columns"):
        dataset.table(["colour"])
    with pytest.raises(DatasetError, match="a filter that selects samples"):
        mapped(url, where="class == 'green'")
    with pytest.raises(SpecError, match="where"):
        mapped(url, where="colour == 'green'")
    with pytest.raises(SpecError, match="text in quotes to compare class with"):
        mapped(url, where="class > 3")


def test_filtered_samples_by_index_and_in_order(url: str) -> None:
    wanted = [sample.provenance["index"] for sample in open_dataset(url) if sample.label == 1]
    dataset = mapped(url, where="label == 1 and index >= 0")
    assert [dataset[row].provenance["index"] for row in range(len(dataset))] == wanted
    assert [sample.provenance["index"] for sample in open_dataset(url, where="label == 1")] == wanted
    shuffled = open_dataset(url, where="label == 1", shuffle=True, seed=3)
    assert sorted(sample.provenance["index"] for sample in shuffled) == sorted(wanted)


def test_damaged_images_are_found(url: str) -> None:
    store, manifest = resolve_build(url)
    path = Path(store.url.removeprefix("file://")) / manifest.shards[1].shard.key
    data = bytearray(path.read_bytes())
    data[700] ^= 1  # in the first image of the second shard
    path.write_bytes(bytes(data))
    dataset = mapped(url)
    assert dataset[4].provenance["index"] == 4
    with pytest.raises(IntegrityError):
        dataset[5]


def rewrite_table(url: str, change: Any) -> None:
    """Change the table of the first shard, and the digests above it."""
    store, manifest = resolve_build(url)
    root = Path(store.url.removeprefix("file://"))
    path = root / manifest.shards[0].table.key
    table = change(parquet.read_table(path))
    parquet.write_table(table, path)
    document = manifest.model_dump(mode="json")
    document["shards"][0]["table"].update(size=path.stat().st_size, digest=digest_of(path.read_bytes()))
    (root / "manifest.json").write_bytes(canonical_json(document))


@pytest.mark.parametrize("shift", [1, 512, -512, 10**9, -(10**9)])
def test_a_table_whose_offsets_lie(tmp_path: Path, shift: int) -> None:
    SMALL.commit(str(tmp_path))
    url = f"{tmp_path}/small"

    def moved(table: pa.Table) -> pa.Table:
        offsets = pa.array([offset + shift for offset in table.column("offset").to_pylist()], pa.int64())
        return table.set_column(table.column_names.index("offset"), "offset", offsets)

    rewrite_table(url, moved)
    with pytest.raises(IntegrityError):
        mapped(url)[0]


def test_a_table_that_names_another_image(tmp_path: Path) -> None:
    SMALL.commit(str(tmp_path))
    url = f"{tmp_path}/small"

    def swapped(table: pa.Table) -> pa.Table:
        hashes = table.column("image_sha256").to_pylist()
        return table.set_column(
            table.column_names.index("image_sha256"), "image_sha256", pa.array([hashes[1], hashes[0], *hashes[2:]])
        )

    rewrite_table(url, swapped)
    with pytest.raises(IntegrityError, match="sha256"):
        mapped(url)[0]


def test_from_an_object_store(bucket: str, s3_settings: S3Settings, tmp_path: Path) -> None:
    from tests.support.source_forms import put_files

    SMALL.commit(str(tmp_path / "out"))
    put_files(tmp_path / "out", bucket, s3_settings)
    dataset = mapped(f"{bucket}/small", s3=s3_settings, cache=tmp_path / "cache")
    assert [sample.provenance["index"] for sample in dataset.__getitems__(list(range(13)))] == list(range(13))
    assert len(list((tmp_path / "cache" / "shards").iterdir())) == 3


@pytest.mark.parametrize("form", ["webdataset", "mds"])
def test_no_flipped_byte_of_a_sample_changes_what_is_read(tmp_path: Path, form: str) -> None:
    """Label, key and facts beside the image are compared with the table: a sample is as it was, or is refused."""
    SmallBuild(counts=(7, 6), shard_size=5, recipe_version=2, format=form).commit(str(tmp_path))  # type: ignore[arg-type]
    dataset = mapped(f"{tmp_path}/small")
    wanted, refused = dataset[2], 0
    path = Path(dataset.url.removeprefix("file://")) / dataset.manifest.shards[0].shard.key
    data = path.read_bytes()
    begin, end = bytes_of_a_sample(dataset, data, 2)
    for at in range(begin, end):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            found = dataset[2]
        except IntegrityError:
            refused += 1
            continue
        np.testing.assert_array_equal(found.image, wanted.image)
        assert (found.label, found.provenance) == (wanted.label, wanted.provenance)
    assert refused > 200
