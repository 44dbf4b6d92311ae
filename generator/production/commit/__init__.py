"""The commit protocol: how shards of many workers and environments become one build, or none. Imports no torch."""

from generator.production.commit.epochs import current_epoch, environments_of, open_epoch
from generator.production.commit.publish import (
    BuildPlace,
    MadeShard,
    begin,
    committed,
    finished_numbers,
    fix_environment,
    found_place,
    is_finished,
    place_of,
    publish_shard,
    read_receipt,
    record_run,
)

__all__ = [
    "current_epoch",
    "environments_of",
    "open_epoch",
    "BuildPlace",
    "MadeShard",
    "begin",
    "committed",
    "finished_numbers",
    "fix_environment",
    "found_place",
    "is_finished",
    "place_of",
    "publish_shard",
    "read_receipt",
    "record_run",
]
