"""A sequence whose items are stored in segments, which are read when their items are asked for."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar, final, overload

HELD_BYTES = 64 * 2**20  # of packed items that a sequence holds
_RECENT_ITEMS = 1024  # unpacked items that it holds

Item = TypeVar("Item", covariant=True)


class SegmentReader(Protocol[Item]):
    """Reads segments; two readers are equal if they read the same ones. It can be pickled."""

    def read(self, position: int) -> tuple[bytes, ...]:
        """The items of the segment at ``position``, each packed."""

    def unpack(self, packed: bytes) -> Item:
        """An item from its packed form."""


@final
class SegmentedSequence(Sequence[Item], Generic[Item]):
    """The items of segments of ``lengths``, one after the other, as ``reader`` reads them.

    It holds the segments that were used last, of at most 64 MiB. Safe to use from several threads, and to pickle.
    Every access may raise what ``reader`` raises.
    """

    def __init__(self, lengths: Sequence[int], reader: SegmentReader[Item]) -> None:
        self._ends, self._reader = list(accumulate(lengths)), reader
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_ends": self._ends, "_reader": self._reader}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...

    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        if number in self._recent:
            return self._recent[number]
        position = bisect_right(self._ends, number)
        item: Item = self._reader.unpack(self._segment(position)[number - self._start(position)])
        if len(self._recent) >= _RECENT_ITEMS:
            self._recent.clear()
        self._recent[number] = item
        return item

    def __iter__(self) -> Iterator[Item]:
        for position in range(len(self._ends)):
            yield from map(self._reader.unpack, self._segment(position))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SegmentedSequence) and self._ends == other._ends and bool(self._reader == other._reader)
        )

    __hash__ = None  # type: ignore[assignment]

    def _start(self, position: int) -> int:
        return self._ends[position - 1] if position else 0

    def _segment(self, position: int) -> tuple[bytes, ...]:
        """The packed items of a segment, read once even if several threads ask for it at the same time."""
        with self._lock:
            if (found := self._find(position)) is not None:
                return found
            reading = self._reading.setdefault(position, threading.Lock())
        with reading:
            with self._lock:
                if (found := self._find(position)) is not None:
                    return found
            segment = self._reader.read(position)
            with self._lock:
                self._hold(position, segment)
                self._reading.pop(position, None)
        return segment

    def _find(self, position: int) -> tuple[bytes, ...] | None:
        if position in self._held:
            self._held.move_to_end(position)
        return self._held.get(position)

    def _hold(self, position: int, segment: tuple[bytes, ...]) -> None:
        self._held[position] = segment
        self._bytes += _size(segment)
        while self._bytes > HELD_BYTES and len(self._held) > 1:
            _, left = self._held.popitem(last=False)
            self._bytes -= _size(left)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._held = OrderedDict[int, tuple[bytes, ...]]()
        self._reading = dict[int, threading.Lock]()
        self._recent = dict[int, Item]()
        self._bytes = 0


def _size(segment: tuple[bytes, ...]) -> int:
    return sum(map(len, segment))
