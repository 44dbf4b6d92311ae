"""A temporary prefix for tests in a store that may hold other objects."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from generator.errors import ObjectMissing, SpecError, StoreError, StoreUnavailable
from generator.store import Store
from generator.store.partial_writes import HasPartialWrites, prune_directories
from generator.store.url import parse_url

PREFIX = "latentmill-test-"
_DELETERS = 8  # deletions at once
_MAX_ROUNDS = 20


@contextmanager
def temporary_prefix(store: Store) -> Iterator[Store]:
    """``store`` below a new random prefix; everything below it is removed at the end, also after an error.

    First one object is written, listed, read and deleted, unconditionally. Raises ``StoreError`` if that fails (no such
    store, a missing right). Raises ``StoreUnavailable`` at the end if objects cannot be deleted.
    """
    missing = _missing_directories(store)
    below = store.at(f"{PREFIX}{secrets.token_hex(8)}")
    try:
        _use_once(below)
        try:
            yield below
        except BaseException:
            with suppress(StoreError):  # the first error matters more
                remove_all(below)
            raise
        remove_all(below)
    finally:
        for directory in missing:
            with suppress(OSError):
                directory.rmdir()


def remove_all(store: Store) -> None:
    """Remove all objects of ``store``, its unfinished writes, and its empty directories. Raises ``StoreError``."""
    left: list[str] = []
    for _ in range(_MAX_ROUNDS):
        before, left = left, [info.key for info in store.list()]
        if not left or left == before:
            break
        with ThreadPoolExecutor(_DELETERS) as pool:
            list(pool.map(store.delete, left))
    remove_partial_writes(store)
    prune_directories(store)
    if left:
        raise StoreUnavailable(store.url, "objects that can be deleted", f"{len(left)} object(s) that remain")


def remove_partial_writes(store: Store) -> int:
    """Remove the unfinished writes of a store that reports them; their number."""
    found = list(store.partial_writes()) if isinstance(store, HasPartialWrites) else []
    for each in found:
        with suppress(ObjectMissing):
            each.remove()
    return len(found)


def _use_once(store: Store) -> None:
    store.put("reachable", b"x")
    try:
        list(store.list())
        store.get("reachable")
    finally:
        store.delete("reachable")
        prune_directories(store)


def _missing_directories(store: Store) -> list[Path]:
    """The directories that the first write to a local store will create, innermost first."""
    try:
        location = parse_url(store.url)
    except SpecError:  # a store of another package
        return []
    place = Path(location.root)
    return [each for each in (place, *place.parents) if not each.exists()] if location.scheme == "file" else []
