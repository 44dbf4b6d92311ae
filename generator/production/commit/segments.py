"""Segments: the receipts of a large build, gathered into objects of up to 1,000 receipts each.

A segment is a pure function of its receipts, so whoever writes it writes the same bytes. It is written while the job
runs, by the worker that finishes its last shard; the commit writes the segments that are missing. The receipts stay
authoritative until then: a segment that is damaged, or older than a receipt that says something else, is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from os.path import commonprefix
from typing import final

from generator.errors import BuildConflict, Changed, DatasetError, IntegrityError, ObjectMissing, OutsideError
from generator.production.commit.publish import BuildLocation, read_receipt
from generator.production.commit.receipts import MAX_READERS, check_planned, check_stored, first_shards, read_planned
from generator.production.commit.takeover import RESERVATION_BYTES
from generator.production.provenance.manifest import (
    MAX_SEGMENT_BYTES,
    SEGMENTS_PREFIX,
    ListedSegment,
    Receipt,
    Segment,
    parse_segment,
    receipt_key,
    segment_key,
    shard_key,
    table_key,
)
from generator.spec.plan import Plan
from generator.store.put_once import put_once

_RUN = 10  # segments whose objects are listed at once
_RUNS = 4  # of these at the same time

Environments = dict[str, int]  # digests of environments, each with the first shard that it wrote


@final
class SegmentProgress:
    """Writes the segments of a build whose shards are finished in this process. Not for several threads."""

    def __init__(self, location: BuildLocation, finished: Iterable[int]) -> None:
        self._location, self._plan = location, Plan(location.recipe)
        self._missing = {each.start: len(each) for each in self._plan.segments()}
        for number in finished:
            self._count(number)

    def finish(self, number: int) -> None:
        """Note that a shard has its receipt; with the last one of a segment, write the segment.

        Where that fails, the commit writes it.
        """
        if (shards := self._count(number)) is not None:
            with suppress(OutsideError, BuildConflict):
                gather_segment(self._location, shards)

    def _count(self, number: int) -> range | None:
        """The shards of the segment that was completed with this shard."""
        shards = self._plan.segment_of(number)
        if shards is None or number >= self._plan.shard_count:  # a receipt that is not of this plan
            return None
        self._missing[shards.start] -= 1
        return None if self._missing[shards.start] else shards


def gather_segment(location: BuildLocation, shards: range) -> None:
    """Store the segment of ``shards``, which all have receipts.

    Raises as ``read_planned``, and ``BuildConflict`` if the stored segment has other bytes: the commit decides.
    """
    with ThreadPoolExecutor(MAX_READERS) as readers:
        put_once(location.store, segment_key(shards.start), _gather(location, shards, readers).canonical())


def complete_segments(location: BuildLocation) -> tuple[tuple[ListedSegment, ...], Environments]:
    """All segments of a build whose shards all have receipts, and the environments that wrote the shards.

    Missing segments are written. Every object that a receipt names must be stored with its size. Memory is bounded by
    some tens of segments. Raises ``ObjectMissing`` if a receipt is missing, ``IntegrityError`` if receipts, plan and
    objects disagree.
    """
    segments = Plan(location.recipe).segments()
    runs = [segments[first : first + _RUN] for first in range(0, len(segments), _RUN)]
    written = {info.key: info.modified for info in location.store.list(SEGMENTS_PREFIX)}
    listed, environments = list[ListedSegment](), Environments()
    with ThreadPoolExecutor(MAX_READERS) as readers, ThreadPoolExecutor(_RUNS) as pool:
        for found in pool.map(partial(_complete_run, location, written, readers), runs):
            for segment, used in found:
                listed.append(segment)
                environments = used | environments
    return tuple(listed), environments


@dataclass(frozen=True)
class _Objects:
    """The stored objects of some shards: bytes of archives, tables and sidecars; when receipts were modified."""

    sizes: dict[str, int]
    receipts: dict[str, datetime]


def _complete_run(
    location: BuildLocation, written: dict[str, datetime], readers: ThreadPoolExecutor, run: list[range]
) -> list[tuple[ListedSegment, Environments]]:
    """The segments of ``run``, which follow one another. ``written``: when each stored segment was modified."""
    objects = _list_objects(location, run[0].start, run[-1].stop - 1)
    return [_complete(location, written, readers, objects, shards) for shards in run]


def _complete(
    location: BuildLocation,
    written: dict[str, datetime],
    readers: ThreadPoolExecutor,
    objects: _Objects,
    shards: range,
) -> tuple[ListedSegment, Environments]:
    modified = written.get(segment_key(shards.start))
    found = None if modified is None else _find_current(location, shards, modified, objects, readers)
    if found is None:
        segment = _gather(location, shards, readers)
        data = segment.canonical()
        _store(location, segment_key(shards.start), data)
    else:
        segment, data = found
    for receipt in segment.receipts:
        check_stored(location, receipt, objects.sizes)
    return segment.listed(data), first_shards(segment.receipts)


def _find_current(
    location: BuildLocation, shards: range, modified: datetime, objects: _Objects, readers: ThreadPoolExecutor
) -> tuple[Segment, bytes] | None:
    """The stored segment and its bytes; ``None`` if it is damaged or not what the receipts say.

    Receipts that are older than the segment are those that it was made of. The others are read again.
    """
    key, plan = segment_key(shards.start), Plan(location.recipe)
    try:
        data = location.store.get(key, MAX_SEGMENT_BYTES)
        segment, _ = parse_segment(data, field=key)
        if (segment.recipe, segment.first, len(segment.receipts)) != (
            location.recipe_digest,
            shards.start,
            len(shards),
        ):
            return None
        for receipt in segment.receipts:
            check_planned(location, plan, receipt)
    except (ObjectMissing, DatasetError, IntegrityError):
        return None
    newer = [
        each for each in segment.receipts if not _is_older(objects.receipts.get(receipt_key(each.number)), modified)
    ]
    again = readers.map(lambda each: read_receipt(location, each.number) == each, newer)
    return (segment, data) if all(again) else None


def _is_older(receipt: datetime | None, segment: datetime) -> bool:
    return receipt is not None and receipt < segment


def _gather(location: BuildLocation, shards: range, readers: ThreadPoolExecutor) -> Segment:
    receipts: Iterator[Receipt] = readers.map(partial(read_planned, location, Plan(location.recipe)), shards)
    return Segment(recipe=location.recipe_digest, receipts=tuple(receipts))


def _store(location: BuildLocation, key: str, data: bytes) -> None:
    """Store a segment in place of what is there. Other writers of this moment write the same bytes."""
    try:
        put_once(location.store, key, data)
    except BuildConflict:
        info = location.store.head(key)
        with suppress(Changed):
            if info is not None:
                location.store.replace(key, data, info.etag)
        put_once(location.store, key, data)


def _list_objects(location: BuildLocation, first: int, last: int) -> _Objects:
    """The objects of the shards ``first`` .. ``last``; those of some others may be among them."""

    def listed(*keys: str) -> Iterator[tuple[str, int, datetime]]:
        below = commonprefix(keys).partition(".")[0]  # noqa: RUF071 - not of whole path segments
        return ((info.key, info.size, info.modified) for info in location.store.list(below))

    name, form = location.name, location.recipe.format
    archives = listed(shard_key(name, first, form), shard_key(name, last, form))
    tables = listed(table_key(name, first), table_key(name, last))
    receipts = listed(receipt_key(first), receipt_key(last))
    return _Objects(
        sizes={key: size for found in (archives, tables) for key, size, _ in found},
        receipts={key: modified for key, size, modified in receipts if size != RESERVATION_BYTES},
    )
