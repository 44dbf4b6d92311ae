"""Shard formats, each with a writer and a reader. WebDataset tar is the default."""

from generator.production.shards.base import (
    ContiguousFormat,
    Files,
    FinishedArchive,
    Member,
    PackedSample,
    ShardFormat,
    ShardWriter,
)
from generator.production.shards.formats import mds_format, named_format, shard_format, sidecar_bytes
from generator.production.shards.mds import ListedShard, MdsFormat
from generator.production.shards.parquet import facts_schema, hugging_face_features
from generator.production.shards.webdataset import (
    TarWriter,
    file_places,
    read_sample,
    read_samples,
    sample_places,
)

__all__ = [
    "ContiguousFormat",
    "Files",
    "FinishedArchive",
    "ListedShard",
    "MdsFormat",
    "Member",
    "PackedSample",
    "ShardFormat",
    "ShardWriter",
    "TarWriter",
    "facts_schema",
    "file_places",
    "hugging_face_features",
    "mds_format",
    "named_format",
    "read_sample",
    "read_samples",
    "sample_places",
    "shard_format",
    "sidecar_bytes",
]
