"""Export to MDS: shards for MosaicML Streaming and litdata, with their ``index.json``. MDS shards are copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from generator.datasets.exports.directory import ShardFiles, ShardMark
from generator.datasets.exports.target import ExportTarget, SourceShard, shard_stem
from generator.production.shards import ListedShard, Member, mds_format
from generator.spec.canonical import sha256_hex


@final
class MdsTarget(ExportTarget):
    """``<name>-000123.mds`` and ``index.json``."""

    def write_shard(self, shard: SourceShard, files: ShardFiles) -> None:
        data = shard.data if self.recipe.format == "mds" else self._pack(shard)
        name = f"{shard_stem(shard.receipt)}.mds"
        files.write(name, data)
        files.facts |= {"name": name, "size": len(data), "sha256": sha256_hex(data)}

    def finish(self, marks: Sequence[ShardMark], files: ShardFiles) -> None:
        listed = [
            ListedShard(mark.facts["name"], mark.samples, mark.facts["size"], mark.facts["sha256"]) for mark in marks
        ]
        files.write("index.json", mds_format(self.recipe).index(listed))

    def _pack(self, shard: SourceShard) -> bytes:
        form = mds_format(self.recipe)
        writer = form.writer()
        for key, files in shard.samples:
            writer.append(form.pack(key, [Member(name, data) for name, data in files.items()]))
        return writer.finish().data
