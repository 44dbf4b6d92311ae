"""Export for Megatron Energon: WebDataset tars with an index beside each, and the folder ``.nv-meta``.

Format: https://github.com/NVIDIA/Megatron-Energon, "Dataset Preparation"; what ``energon prepare`` would write.
WebDataset shards are copied; those of other formats become tars with the same files.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import final

import yaml

from generator.datasets.exports.directory import ShardFiles, ShardMark
from generator.datasets.exports.target import ExportTarget, SourceShard, shard_stem
from generator.production.shards import Member, TarWriter, file_places, sample_places

_META = ".nv-meta"
_TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
    byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER,
    content_byte_size INTEGER);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset,
    content_byte_size);
"""


@final
class EnergonTarget(ExportTarget):
    """``<name>-000123.tar``, ``<name>-000123.tar.idx``, ``.nv-meta/``: one split, ``train``."""

    def write_shard(self, shard: SourceShard, files: ShardFiles) -> None:
        data = shard.data if self.recipe.format == "webdataset" else _pack(shard)
        name = f"{shard_stem(shard.receipt)}.tar"
        places = sample_places(data, field=name)
        ends = [*(begin for begin, _ in places), places[-1][1]]
        files.write(name, data)
        files.write(f"{name}.idx", struct.pack(f"<{len(ends)}Q", *ends))
        files.facts |= {"name": name}

    def finish(self, marks: Sequence[ShardMark], files: ShardFiles) -> None:
        names = [mark.facts["name"] for mark in marks]
        counts = {mark.facts["name"]: mark.samples for mark in marks}
        info = json.dumps({"energon_version": None, "shard_counts": counts}, indent=2)
        label = {"label": "cls"} if self.recipe.labelled else {}
        sample_type = {"__module__": "megatron.energon", "__class__": "ImageClassificationSample"}
        dataset = {"sample_type": sample_type, "field_map": {"image": self.extension, **label}}
        split = {"split_parts": {"train": names, "val": [], "test": []}, "exclude": []}
        files.write(f"{_META}/.info.json", info.encode())
        files.write(f"{_META}/dataset.yaml", yaml.safe_dump(dataset, sort_keys=False).encode())
        files.write(f"{_META}/split.yaml", yaml.safe_dump(split, sort_keys=False).encode())
        files.write(f"{_META}/index.uuid", str(uuid.uuid4()).encode())
        _write_database(files.root / _META / "index.sqlite", files.root, names)
        files.add(f"{_META}/index.sqlite")


def _pack(shard: SourceShard) -> bytes:
    writer = TarWriter()
    for key, files in shard.samples:
        writer.add(key, [Member(name, data) for name, data in files.items()])
    return writer.finish()


def _write_database(path: Path, root: Path, names: Sequence[str]) -> None:
    """The database by which energon finds a sample or a file by its name; one shard is read at a time."""
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    try:
        database.executescript(_TABLES)
        for number, name in enumerate(names):
            data = (root / name).read_bytes()
            samples, files = sample_places(data, field=name), file_places(data, field=name)
            keys = list(dict.fromkeys(stem for stem, *_ in files))
            numbers = {key: row for row, key in enumerate(keys)}
            database.executemany(
                "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
                [
                    (number, key, row, begin, end - begin)
                    for row, (key, (begin, end)) in enumerate(zip(keys, samples, strict=True))
                ],
            )
            database.executemany(
                "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
                [(number, numbers[stem], suffix, offset, size) for stem, suffix, offset, size in files],
            )
        database.executescript(_INDEXES)
        database.commit()
    finally:
        database.close()
