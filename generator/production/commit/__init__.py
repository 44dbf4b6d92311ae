"""The commit protocol: many workers and environments write one build, which is committed whole. Imports no torch."""

from generator.production.commit.epochs import current_epoch, open_epoch, read_environments
from generator.production.commit.publish import (
    BuildLocation,
    FinishedShard,
    begin_build,
    find_manifest,
    finished_shards,
    fix_environment,
    is_shard_finished,
    locate_build,
    publish_shard,
    read_build_location,
    read_receipt,
    write_run_record,
)

__all__ = [
    "current_epoch",
    "read_environments",
    "open_epoch",
    "BuildLocation",
    "FinishedShard",
    "begin_build",
    "find_manifest",
    "finished_shards",
    "fix_environment",
    "read_build_location",
    "is_shard_finished",
    "locate_build",
    "publish_shard",
    "read_receipt",
    "write_run_record",
]
