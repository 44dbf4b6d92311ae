"""Which dataset of a mixture, and which of its samples, stands at each position: a pure function of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from generator.spec.canonical import sha256_hex
from generator.spec.seeding import permutation

_ROUNDING = 1e-6  # samples: shares such as 0.1 + 0.2 are not exact


class Slot(NamedTuple):
    """A dataset by number, and one of its samples, counted over all passes of an epoch."""

    part: int
    row: int


@dataclass(frozen=True)
class MixPlan:
    """The slots of an epoch. The proportions hold to one or two samples in every block of positions, and in the epoch.

    The order in which the datasets take turns is drawn anew for each epoch; each dataset's samples come in ascending
    order. One block is held in memory.
    """

    fractions: tuple[float, ...]
    seed: int
    total: int
    block: int

    def before(self, position: int) -> np.ndarray:
        """int64: samples of each dataset before ``position``, the end of a block; their sum is ``position``."""
        counts, rest, share = [], position, 1.0
        for fraction in self.fractions[:-1]:  # each dataset takes its part of what the ones before it have left
            counts.append(min(int(rest * min(fraction / share, 1.0) + _ROUNDING), rest))
            rest, share = rest - counts[-1], max(share - fraction, fraction * _ROUNDING)
        return np.array([*counts, rest], dtype=np.int64)

    def slots(self, epoch: int, begin: int, end: int) -> Iterator[Slot]:
        """The slots at positions ``begin .. end - 1``."""
        for number in range(begin // self.block, -(-end // self.block)):
            first = number * self.block
            chosen = slice(max(begin - first, 0), min(end - first, self.block))
            parts_N, rows_N = self._block(epoch, number)
            yield from map(Slot, parts_N[chosen].tolist(), rows_N[chosen].tolist())

    def rows(self, part: int) -> int:
        """Samples of one dataset in an epoch."""
        return int(self.before(self.total)[part])

    def _block(self, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        if (found := self._held.get("block")) is None or found[0] != (epoch, number):
            found = self._held["block"] = (epoch, number), *self._make_block(epoch, number)
        return found[1:]

    def _make_block(self, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        begin, end = number * self.block, min((number + 1) * self.block, self.total)
        before, after = self.before(begin), self.before(end)
        order_N = permutation(self.seed, stream=stream_of("block", epoch, number), size=end - begin)
        parts_N = np.repeat(np.arange(len(before)), after - before)[order_N]
        rows_N = np.empty(end - begin, dtype=np.int64)
        for part in range(len(before)):
            rows_N[parts_N == part] = np.arange(before[part], after[part])
        return parts_N, rows_N

    @cached_property
    def _held(self) -> dict[str, Any]:
        return {}


def stream_of(*words: object) -> int:
    """A number of 60 bits for the numbers that are drawn under ``words``."""
    return int(sha256_hex("/".join(map(str, words)).encode())[:15], 16)
