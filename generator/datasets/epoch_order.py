"""The order of samples in an epoch: a pure function of (seed, epoch, position), and how it is dealt to processes.

It does not depend on the number of ranks and workers, so a position is a place in the epoch for all of them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from generator.spec.seeding import permutation

Uneven = Literal["drop", "pad", "keep"]


class ShardRows(NamedTuple):
    """Rows (int64) of one shard, in the order in which they are read."""

    shard: int
    rows: np.ndarray


@dataclass(frozen=True)
class EpochOrder:
    """The order of the samples of S shards. ``seed`` ``None``: the order of the build.

    ``selected``: for each shard the rows that are read; ``None`` for all of them. With a seed, the shards and the rows
    of each shard are permuted by seed and epoch.
    """

    sizes_S: np.ndarray  # int64: samples that are read, by shard
    seed: int | None
    selected: tuple[np.ndarray, ...] | None = None

    @cached_property
    def total(self) -> int:
        """Samples of an epoch."""
        return int(self.sizes_S.sum())

    def slices(self, epoch: int, start: int, end: int) -> Iterator[ShardRows]:
        """Positions ``start .. end - 1`` of the epoch."""
        if start >= end:
            return
        shards_S, ends_S = self._shards(epoch)
        for position in range(int(np.searchsorted(ends_S, start, side="right")), len(shards_S)):
            shard, stop = int(shards_S[position]), int(ends_S[position])
            size = int(self.sizes_S[shard])
            first = stop - size
            if first >= end:
                return
            if not size:
                continue
            yield ShardRows(shard, self._rows(epoch, shard, size)[max(start - first, 0) : end - first])

    def _shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards in the order of the epoch, and the position at which each ends."""
        if (found := self._held.get("shards")) is None or found[0] != epoch:
            shards_S = self._permutation(epoch, 0, len(self.sizes_S))
            found = self._held["shards"] = epoch, shards_S, np.cumsum(self.sizes_S[shards_S])
        return found[1:]

    def _rows(self, epoch: int, shard: int, size: int) -> np.ndarray:
        if (found := self._held.get("rows")) is None or found[0] != (epoch, shard):
            rows_N = self._permutation(epoch, 1 + shard, size)
            found = self._held["rows"] = (
                (epoch, shard),
                rows_N if self.selected is None else self.selected[shard][rows_N],
            )
        rows: np.ndarray = found[1]
        return rows

    @cached_property
    def _held(self) -> dict[str, Any]:
        """The orders that were used last: batches are short, and orders are long."""
        return {}

    def _permutation(self, epoch: int, stream_offset: int, size: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(size)
        return permutation(
            self.seed, stream=(1 + epoch) << 32 | stream_offset, size=size
        )  # differs from the streams of the plan


@dataclass(frozen=True)
class BatchPlan:
    """Deals batches of ``size`` positions to ``world_size`` ranks: batch ``j`` of the rest of an epoch to rank ``j``
    modulo ``world_size``.

    ``drop``: the last batches, which some ranks would lack or which would be short, are left out. ``pad``: the epoch is
    filled up with samples from its beginning. ``keep``: the last batch may be short, and some ranks may have one more.
    """

    size: int
    rank: int
    world_size: int
    uneven: Uneven

    def count(self, remaining: int) -> int:
        """Batches of this rank for ``remaining`` positions."""
        step = self.size * self.world_size
        if self.uneven == "drop":
            return remaining // step
        if self.uneven == "pad":
            return -(-remaining // step)
        batches = -(-remaining // self.size)
        return max(0, -(-(batches - self.rank) // self.world_size))

    def spans(self, start: int, total: int, part: int, parts: int) -> Iterator[list[tuple[int, int]]]:
        """The batches of this rank from position ``start`` on that reader ``part`` of ``parts`` makes, in order.

        Each is a list of spans of positions: one, or several where the epoch is filled up from its beginning.
        """
        for number in range(part, self.count(total - start), parts):
            first = start + (number * self.world_size + self.rank) * self.size
            last = first + self.size
            if last <= total:
                yield [(first, last)]
            elif self.uneven == "keep":
                yield [(first, total)]
            else:
                yield list(_wrapped(first, last, total))


def _wrapped(first: int, last: int, total: int) -> Iterator[tuple[int, int]]:
    """Positions ``first .. last - 1`` modulo ``total``."""
    while first < last:
        begin = first % total
        length = min(last - first, total - begin)
        yield begin, begin + length
        first += length


def even_part(span: tuple[int, int], part: int, parts: int) -> tuple[int, int]:
    """Part number ``part`` of the positions ``span[0] .. span[1] - 1``, divided into ``parts`` almost equal parts."""
    start, end = span
    return start + (end - start) * part // parts, start + (end - start) * (part + 1) // parts
