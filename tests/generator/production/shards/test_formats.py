"""Shard formats: what a writer stores, its reader gives back; places of images; damage is refused; bytes repeat."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from generator.errors import IntegrityError, InvalidOutput
from generator.production.shards import (
    FinishedArchive,
    Member,
    PackedSample,
    ShardFormat,
    mds_format,
    shard_format,
    sidecar_bytes,
)
from generator.spec.canonical import canonical_json, digest_of, sha256_hex
from generator.spec.recipe import MAX_MDS_BYTES, Recipe, ShardFormatName

FORMATS: tuple[ShardFormatName, ...] = ("webdataset", "parquet", "mds")
CLASSES = ("cat", 'a "strange", ünicode name')


def recipe(name: ShardFormatName, classes: tuple[str, ...] = CLASSES) -> Recipe:
    counts = (500,) * max(1, len(classes))
    return Recipe(bundle=digest_of(b"bundle"), classes=classes, counts=counts, format=name)


def facts(index: int, classes: tuple[str, ...] = CLASSES, **other: Any) -> dict[str, Any]:
    label = index % len(classes) if classes else None
    judged = {"label_confidence": float(np.float32(0.1)), "likely_labels": [1, 0], "likely_probabilities": [0.9, 0.1]}
    unjudged = dict.fromkeys(judged)
    return {
        "attempt": index % 3,
        "class": None if label is None else classes[label],
        "cluster": index % 5,
        "index": index,
        "label": label,
        "log_density": -1.5 / (index + 1),
        "recipe": digest_of(b"recipe"),
        "synthetic": True,
        **(judged if classes and index % 2 else unjudged),
        **other,
    }


def files_of(index: int, classes: tuple[str, ...] = CLASSES) -> dict[str, bytes]:
    rng = np.random.default_rng(index)
    label = {"cls": b"%d" % (index % len(classes))} if classes else {}
    image = rng.integers(0, 256, int(rng.integers(1, 5000)), np.uint8).tobytes()
    return {"png": image, **label, "json": canonical_json(facts(index, classes))}


def pack(form: ShardFormat, count: int, classes: tuple[str, ...] = CLASSES) -> list[PackedSample]:
    samples = [files_of(index, classes).items() for index in range(count)]
    return [
        form.pack(f"{index:09d}", [Member(name, data) for name, data in files]) for index, files in enumerate(samples)
    ]


def write(form: ShardFormat, count: int = 250, classes: tuple[str, ...] = CLASSES) -> FinishedArchive:
    writer = form.writer()
    for sample in pack(form, count, classes):
        writer.append(sample)
    return writer.finish()


@pytest.mark.parametrize("classes", [CLASSES, ()], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read(name: ShardFormatName, classes: tuple[str, ...]) -> None:
    form = shard_format(recipe(name, classes))
    made = write(form, classes=classes)
    found = list(form.read_samples(made.data, field="shard"))
    assert [key for key, _ in found] == [f"{index:09d}" for index in range(250)]
    assert [files for _, files in found] == [files_of(index, classes) for index in range(250)]
    assert made.sha256 == sha256_hex(made.data)


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_repeat_and_images_lie_where_the_places_say(name: ShardFormatName) -> None:
    form = shard_format(recipe(name))
    made = write(form)
    assert made.data == write(shard_format(recipe(name))).data
    spans = zip(made.offsets_N.tolist(), made.sizes_N.tolist(), strict=True)
    assert [made.data[at : at + size] for at, size in spans] == [files_of(index)["png"] for index in range(250)]


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("webdataset", "a88374b67f1d5d1474982be80c4b56babcbf108d02b8edac08a499e72eb238ac"),
        ("mds", "2e2c88a4ecfe6476c322010789ce5618b2825c79652544540a4e4a429ab578ed"),
    ],
)
def test_bytes_stay_from_release_to_release(name: ShardFormatName, digest: str) -> None:
    """Those of Parquet shards may change with the release of pyarrow, which the environment of a build names."""
    assert write(shard_format(recipe(name)), 30).sha256 == digest


@pytest.mark.parametrize("name", ["webdataset", "mds"])
def test_a_sample_is_read_from_its_own_bytes(name: ShardFormatName) -> None:
    form = shard_format(recipe(name))
    made = write(form, 20)
    assert form.lead is not None
    ends = [*(made.offsets_N[1:] - form.lead).tolist(), len(made.data)]
    for index, (offset, end) in enumerate(zip(made.offsets_N.tolist(), ends, strict=True)):
        assert form.read_sample(made.data[offset - form.lead : end], field="s") == (f"{index:09d}", files_of(index))


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_an_integrity_error_or_changes_what_is_read(name: ShardFormatName) -> None:
    """Any byte may be changed, and the shard cut anywhere: no other error, and nothing endless."""
    form, rng = shard_format(recipe(name)), np.random.default_rng(0)
    data = write(form, 12).data
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] ^= int(rng.integers(1, 256))
        cut = int(rng.integers(0, len(data)))
        for bad in (bytes(damaged), data[:cut], bytes(damaged[:cut])):
            try:
                found = list(form.read_samples(bad, field="shard"))
            except IntegrityError:
                continue
            assert len(found) <= 12


def test_mds_has_the_layout_that_streaming_documents() -> None:
    data = write(shard_format(recipe("mds")), 3).data
    count, *offsets = np.frombuffer(data, "<u4", 5).tolist()
    assert count == 3
    assert offsets[-1] == len(data)
    config = json.loads(data[20 : offsets[0]])
    assert config["column_names"] == sorted(config["column_names"]) == ["image", "json", "key", "label"]
    assert config["column_encodings"] == ["png", "json", "str", "int"]
    assert config["column_sizes"] == [None, None, None, 8]


def test_an_mds_shard_over_4_gib_is_a_typed_error() -> None:
    form = mds_format(recipe("mds"))
    writer, block = form.writer(), bytes(2**20)
    sample = PackedSample("000000000", block, 12, 1)
    for _ in range(MAX_MDS_BYTES // len(block) + 1):
        writer.append(sample)  # the same bytes, held once
    with pytest.raises(InvalidOutput, match="shard_size"):
        writer.finish()


def test_parquet_rows_lie_in_groups_with_an_index_of_pages() -> None:
    data = write(shard_format(recipe("parquet"))).data
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [100, 100, 50]
    columns = {metadata.row_group(0).column(at).path_in_schema: metadata.row_group(0).column(at) for at in range(14)}
    image = columns["image.bytes"]
    assert image.compression == "UNCOMPRESSED"
    assert "PLAIN" in image.encodings
    assert not image.has_dictionary_page
    assert all(column.has_offset_index for column in columns.values())


def test_the_index_for_dali_names_every_file_at_its_place() -> None:
    """Against ``tarfile`` and GNU tar, the tools that DALI's own wds2idx uses."""
    data = write(shard_format(recipe("webdataset")), 7).data
    version, *lines = sidecar_bytes("dali", data, field="shard").decode().splitlines()
    assert version == "v1.2 7"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(each.name.partition(".")[2], each.offset_data, each.size, each.name) for each in archive]
    words = [line.split(" ") for line in lines]
    found = [tuple(each[at : at + 4]) for each in words for at in range(0, len(each), 4)]
    assert found == [tuple(map(str, member)) for member in members]
    assert [len(each) for each in words] == [12] * 7


def test_gnu_tar_lists_a_shard(tmp_path: Path) -> None:
    (tmp_path / "shard.tar").write_bytes(write(shard_format(recipe("webdataset")), 3).data)
    listed = subprocess.run(["tar", "--list", "--file", tmp_path / "shard.tar"], capture_output=True, check=True)
    assert len(listed.stdout.splitlines()) == 9
