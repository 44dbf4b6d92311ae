"""Images of many samples by few reads: the bytes of the shards in every format, checked, neighbours read together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.exploration import images
from generator.datasets.exploration.columns import open_columns
from generator.datasets.exploration.gather import gather_columns
from generator.datasets.exploration.images import (
    first_places,
    image_places,
    read_first_images,
    read_images,
    read_whole_samples,
)
from generator.errors import DatasetError, IntegrityError
from generator.production.commit import read_receipt
from generator.store.base import Store
from tests.support.small_builds import SmallBuild


@pytest.mark.parametrize("shard_format", ["webdataset", "parquet", "mds"])
def test_are_those_of_the_shards(shard_format: Any, tmp_path: Path) -> None:
    build = SmallBuild(format=shard_format)
    location, manifest = build.commit(str(tmp_path / "out"))
    reader = ArchiveReader(location.store, manifest, "png", None)
    (tmp_path / "c").mkdir()
    gather_columns(reader, manifest, tmp_path / "c")
    indices = [12, 0, 3, 7]
    places = image_places(open_columns(tmp_path / "c"), manifest, indices)
    assert places is not None
    found = read_images(location.store, manifest, places)
    assert found == read_whole_samples(reader, manifest, indices)
    first = first_places(reader, manifest, 3)
    assert first is not None
    assert [place.index for place in first] == [0, 1, 2]
    assert read_images(location.store, manifest, first)[0] == found[0]


def test_neighbours_in_a_shard_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location, manifest = SmallBuild(counts=(50, 50), shard_size=50).commit(str(tmp_path / "out"))
    reader = ArchiveReader(location.store, manifest, "png", None)
    places = first_places(reader, manifest, 40)
    assert places is not None
    reads, read = list[str](), type(location.store).read

    def counted(self: Store, key: str, start: int, length: int) -> bytes:
        reads.append(key)
        return read(self, key, start, length)

    monkeypatch.setattr(type(location.store), "read", counted)
    assert len(read_images(location.store, manifest, places)) == 40
    assert len(reads) == 1


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    location, manifest = SmallBuild().commit(str(tmp_path / "out"))
    places = first_places(ArchiveReader(location.store, manifest, "png", None), manifest, 2)
    assert places is not None
    path = Path(location.url.removeprefix("file://")) / manifest.shards[0].shard.key
    data = bytearray(path.read_bytes())
    data[places[1].offset + 5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=f"at byte {places[1].offset}"):
        read_images(location.store, manifest, places)


def test_a_version_1_build_says_nothing_of_places(tmp_path: Path) -> None:
    location, manifest = SmallBuild(recipe_version=1).commit(str(tmp_path / "out"))
    reader = ArchiveReader(location.store, manifest, "png", None)
    assert first_places(reader, manifest, 2) is None
    assert read_whole_samples(reader, manifest, [4])[4].startswith(b"\x89PNG")


@pytest.mark.parametrize("shard_format", ["webdataset", "parquet", "mds"])
def test_the_first_images_of_a_shard_are_read_before_the_commit(shard_format: Any, tmp_path: Path) -> None:
    build = SmallBuild(format=shard_format)
    location = build.begin(str(tmp_path / "out"))
    receipt = read_receipt(location, 1)
    found = read_first_images(location.store, receipt, 3)
    _, manifest = build.commit(str(tmp_path / "out"))
    reader = ArchiveReader(location.store, manifest, "png", None)
    assert found == read_whole_samples(reader, manifest, [5, 6, 7])
    assert len(read_first_images(location.store, receipt, 100)) == receipt.samples


def test_damage_before_the_commit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = SmallBuild().begin(str(tmp_path / "out"))
    receipt = read_receipt(location, 0)
    for file, field in ((receipt.shard, "at byte"), (receipt.table, receipt.table.key)):
        data = location.store.get(file.key)
        location.store.put(file.key, bytes(len(data)))
        with pytest.raises(IntegrityError, match=field):
            read_first_images(location.store, receipt, 2)
        location.store.put(file.key, data)
    monkeypatch.setattr(images, "MAX_TABLE_BYTES", 10)
    with pytest.raises(DatasetError, match="at most 10 bytes"):
        read_first_images(location.store, receipt, 2)


def test_a_version_1_shard_has_no_places(tmp_path: Path) -> None:
    location = SmallBuild(recipe_version=1).begin(str(tmp_path / "out"))
    with pytest.raises(IntegrityError):
        read_first_images(location.store, read_receipt(location, 0), 2)
