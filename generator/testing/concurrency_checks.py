"""Checks with many threads: one writer wins, and readers see whole versions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier, Event

from generator.errors import AlreadyExists, Changed
from generator.store import Store
from generator.testing.contents import content_of
from generator.testing.expectations import describe, expect, expect_equal

_WRITERS = 16
_READERS = 2
_VERSIONS = 16
_VERSION_BYTES = 512 * 1024


class ConcurrencyChecks:
    """What the contract says of concurrent clients."""

    def test_one_of_many_creators_wins(self, store: Store) -> None:
        for key in ("race/a", "race/b", "race/c"):
            winners = _race(partial(store.create, key), AlreadyExists)
            expect_equal(f"create by {_WRITERS} writers at once: the number of winners", len(winners), 1)
            expect_equal("get after the race", store.get(key), winners[0])

    def test_one_of_many_replacers_wins(self, store: Store) -> None:
        for key in ("race/a", "race/b", "race/c"):
            winners = _race(partial(store.replace, key, etag=store.create(key, b"start")), Changed)
            expect_equal(f"replace by {_WRITERS} writers of one version: the number of winners", len(winners), 1)
            expect_equal("get after the race", store.get(key), winners[0])

    def test_concurrent_creates_of_many_objects_all_succeed(self, store: Store) -> None:
        contents = {f"many/{number % 4}/{number}": content_of(number, 10_000 + number) for number in range(32)}
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(store.create, contents.keys(), contents.values()))
        expect_equal("list after 32 creates at once", sorted(info.key for info in store.list()), sorted(contents))
        for key, data in contents.items():
            expect(store.get(key) == data, f"get({key!r}) gave other bytes than those created, beside 31 other creates")

    def test_readers_see_whole_versions(self, store: Store) -> None:
        versions = [content_of(number, _VERSION_BYTES) for number in range(2)]
        store.put("a", versions[0])
        done = Event()

        def write() -> None:
            try:
                for number in range(1, _VERSIONS):
                    store.put("a", versions[number % 2])
            finally:
                done.set()

        def read() -> None:
            while not done.is_set():
                held = store.get("a")
                expect(held in versions, f"get during a put gave {describe(held)} of no single version")
                sizes = [info.size for info in store.list()]
                expect_equal("list during a put: the sizes", sizes, [_VERSION_BYTES])

        with ThreadPoolExecutor(_READERS + 1) as pool:
            tasks = [pool.submit(task) for task in (write, *[read] * _READERS)]
        for task in tasks:
            task.result()


def _race(write: Callable[[bytes], object], refusal: type[Exception]) -> list[bytes]:
    """The data of the writers that succeeded, of many that start together."""
    start = Barrier(_WRITERS)

    def attempt(number: int) -> bytes | None:
        data = b"%d" % number * 1000
        start.wait()
        try:
            write(data)
        except refusal:
            return None
        return data

    with ThreadPoolExecutor(_WRITERS) as pool:
        return [data for data in pool.map(attempt, range(_WRITERS)) if data is not None]
