"""The in-memory store is as strict as the other stores, even with very frequent thread switches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from generator.errors import AlreadyExists, Changed
from generator.store import open_store

WRITERS, ROUNDS = 8, 120


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_thread_switches")
def test_a_check_and_its_write_are_one_step() -> None:
    store = open_store("memory://hasty")
    start = Barrier(WRITERS)

    def write(number: int) -> list[bool]:
        wins = []
        for turn in range(ROUNDS):
            start.wait()
            try:
                store.create(f"new/{turn}", b"%d" % number)
                wins.append(True)
            except AlreadyExists:
                wins.append(False)
            start.wait()
            info = store.head(f"new/{turn}")
            assert info is not None
            start.wait()
            try:
                store.replace(f"new/{turn}", b"%d" % number, info.etag)
                wins.append(True)
            except Changed:
                wins.append(False)
        return wins

    with ThreadPoolExecutor(WRITERS) as pool:
        wins = list(pool.map(write, range(WRITERS)))
    assert [sum(turn) for turn in zip(*wins, strict=True)] == [1] * (2 * ROUNDS)
