"""The plan: assigns samples to shards, as a pure function of the recipe that can be computed for any shard alone.

Samples are assigned round-robin. All samples are ordered by class (``counts[0]`` of class 0, then class 1, ...) and the
sample at position ``p`` goes to shard ``p mod S``. So any two shards differ by at most one sample, and by at most one
sample of each class. Inside a shard the samples are permuted by the seed. Indices run through the shards in order:
shard 0 holds indices 0 .. size(0) - 1, and so on, without gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from generator.spec.recipe import Recipe
from generator.spec.seeding import permutation

SEGMENT_SHARDS = 1000  # the manifest of a build of more shards lists segments in place of shards
_MANY_CLASSES = 1000  # with more, receipts are long, and a segment holds a tenth as many


@dataclass(frozen=True)
class ShardPlan:
    """One shard: its number, and index and label of each of its samples, in the order in which they are written."""

    number: int
    indices_N: np.ndarray  # int64, ascending, contiguous
    labels_N: np.ndarray  # int64, 0 .. classes - 1; all zero when unlabelled

    def __len__(self) -> int:
        return len(self.indices_N)

    @property
    def padded_number(self) -> str:
        """The shard's number with six digits, as used in keys and file names."""
        return f"{self.number:06d}"


@dataclass(frozen=True)
class Plan:
    """All shards of a recipe. Each is computed on demand, so a plan of a billion samples needs no memory."""

    recipe: Recipe

    @cached_property
    def shard_count(self) -> int:
        """The smallest number of shards that hold all samples with at most ``shard_size`` in each."""
        return -(-self.recipe.total // self.recipe.shard_size)

    @cached_property
    def _class_ends(self) -> np.ndarray:
        return np.cumsum(np.asarray(self.recipe.counts, dtype=np.int64))

    def size(self, shard: int) -> int:
        """Number of samples in ``shard``."""
        base, extra = divmod(self.recipe.total, self.shard_count)
        return base + (shard < extra)

    def start(self, shard: int) -> int:
        """Index of the first sample of ``shard``."""
        base, extra = divmod(self.recipe.total, self.shard_count)
        return shard * base + min(shard, extra)

    def shard_of(self, index: int) -> int:
        """The shard that holds sample ``index``."""
        base, extra = divmod(self.recipe.total, self.shard_count)
        in_larger = extra * (base + 1)
        return index // (base + 1) if index < in_larger else extra + (index - in_larger) // base

    def shard(self, number: int) -> ShardPlan:
        """The samples of one shard. Raises ``IndexError`` outside ``0 .. shard_count - 1``."""
        if not 0 <= number < self.shard_count:
            raise IndexError(f"shard {number} of a plan with {self.shard_count} shards")
        size, start = self.size(number), self.start(number)
        positions_N = number + self.shard_count * permutation(self.recipe.seed, stream=number, size=size)
        labels_N = np.searchsorted(self._class_ends, positions_N, side="right")
        return ShardPlan(number, np.arange(start, start + size, dtype=np.int64), labels_N.astype(np.int64))

    @cached_property
    def segment_size(self) -> int:
        """Shards of each segment of the manifest; the last may have fewer. 0 if the manifest lists every shard."""
        if self.recipe.recipe_version < 2 or self.shard_count <= SEGMENT_SHARDS:
            return 0
        return SEGMENT_SHARDS if len(self.recipe.counts) <= _MANY_CLASSES else max(1, SEGMENT_SHARDS // 10)

    def segments(self) -> list[range]:
        """The shards of each segment; empty if the manifest lists every shard."""
        if not self.segment_size:
            return []
        return [
            range(first, min(first + self.segment_size, self.shard_count))
            for first in range(0, self.shard_count, self.segment_size)
        ]

    def segment_of(self, shard: int) -> range | None:
        """The shards of the segment that ``shard`` belongs to; ``None`` if the manifest lists every shard."""
        if not self.segment_size:
            return None
        first = shard - shard % self.segment_size
        return range(first, min(first + self.segment_size, self.shard_count))

    def __iter__(self) -> Iterator[ShardPlan]:
        return (self.shard(number) for number in range(self.shard_count))
