"""A sequence in segments is the tuple of its items, whatever is asked for; it holds a bounded part of them."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.production.provenance import segmented_sequence
from generator.production.provenance.segmented_sequence import SegmentedSequence


@dataclass(frozen=True)
class Numbers:
    """Segments of the numbers from 0 on; ``reads``: the positions that were read."""

    lengths: tuple[int, ...]
    reads: list[int] = field(default_factory=list, compare=False)
    wait: threading.Barrier | None = field(default=None, compare=False)

    def read(self, position: int) -> tuple[bytes, ...]:
        self.reads.append(position)
        if self.wait is not None:
            self.wait.wait(5)
        start = sum(self.lengths[:position])
        return tuple(b"%d" % number for number in range(start, start + self.lengths[position]))

    def unpack(self, packed: bytes) -> int:
        return int(packed)


def sequence(lengths: Sequence[int]) -> tuple[SegmentedSequence[int], Numbers]:
    reader = Numbers(tuple(lengths))
    return SegmentedSequence(lengths, reader), reader


@given(st.lists(st.integers(1, 6), max_size=8), st.data())
def test_it_equals_the_tuple_of_its_items(lengths: list[int], data: st.DataObject) -> None:
    (lazy, _), eager = sequence(lengths), tuple(range(sum(lengths)))
    assert len(lazy) == len(eager)
    for index in data.draw(st.lists(st.integers(-len(eager) - 2, len(eager) + 1), max_size=12)):
        if -len(eager) <= index < len(eager):
            assert lazy[index] == eager[index]
        else:
            with pytest.raises(IndexError):
                lazy[index]
    cut = data.draw(st.slices(len(eager) + 3))
    assert lazy[cut] == eager[cut]
    assert tuple(lazy) == tuple(iter(lazy)) == eager
    assert tuple(reversed(lazy)) == eager[::-1]
    assert lazy == sequence(lengths)[0]
    assert bool(lazy) == bool(eager)
    assert lazy != sequence([*lengths, 1])[0]


def test_a_segment_is_read_when_an_item_of_it_is_asked_for_and_once() -> None:
    lazy, reader = sequence([3, 3, 3])
    assert (len(lazy), reader.reads) == (9, [])
    assert (lazy[4], lazy[5], lazy[3], reader.reads) == (4, 5, 3, [1])
    assert (lazy[-1], reader.reads) == (8, [1, 2])


def test_the_least_recently_used_segments_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmented_sequence, "HELD_BYTES", 20)
    monkeypatch.setattr(segmented_sequence, "_RECENT_ITEMS", 1)
    lazy, reader = sequence([10, 10, 10])  # packed 10, 20 and 20 bytes
    assert [lazy[0], lazy[10], lazy[1], lazy[11]] == [0, 10, 1, 11]
    assert reader.reads == [0, 1, 0, 1]


def test_threads_that_ask_at_the_same_time_read_a_segment_once_and_different_ones_side_by_side() -> None:
    reader = Numbers((2, 2), wait=threading.Barrier(2))  # passed only while both segments are being read
    lazy = SegmentedSequence(reader.lengths, reader)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lazy.__getitem__, [0, 2, 1, 3, 0, 2, 1, 3])) == [0, 2, 1, 3, 0, 2, 1, 3]
    assert sorted(reader.reads) == [0, 1]


def test_it_can_be_pickled_without_what_it_holds() -> None:
    lazy, _ = sequence([1000])
    lazy[5]
    data = pickle.dumps(lazy)
    assert len(data) < 1000
    assert pickle.loads(data)[999] == 999
