"""Pointers: small objects that are updated by conditional writes (``latest.json``, a channel of bundles).

The first write is ``If-None-Match: *``, later ones are ``If-Match`` on the version that was read. After a refused write
the object is read back: if it holds our own bytes, the write succeeded and its answer was lost. Otherwise another
writer was faster, and the decision is made again on its bytes. (The store itself retries a write that conflicts with
another one in progress, HTTP 409.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from generator.errors import AlreadyExists, Changed, ObjectMissing, StoreUnavailable
from generator.store.base import Store

# Maps the current bytes (``None``: no object) to the new bytes (``None``: leave the object as it is). It may be called
# several times, so it must have no side effects.
Decision = Callable[[bytes | None], bytes | None]

_MAX_TRIES = 15
_MAX_PAUSE_SECONDS = 0.5


def move(store: Store, key: str, decide: Decision, limit: int) -> bytes | None:
    """Update the pointer ``key`` as ``decide`` says. Returns its bytes afterwards, ``None`` if there is no object.

    Raises ``StoreUnavailable`` if others keep changing it, ``IntegrityError`` for an object of more than ``limit``
    bytes, and the errors of ``decide``; then nothing was written.
    """
    for attempt in range(_MAX_TRIES):
        etag, current = _read_with_etag(store, key, limit)
        wanted = decide(current)
        if wanted is None or wanted == current:
            return current
        try:
            if etag is None:
                store.create(key, wanted)
            else:
                store.replace(key, wanted, etag)
        except (AlreadyExists, Changed):
            if _read_with_etag(store, key, limit)[1] == wanted:
                return wanted
            time.sleep(random.uniform(0.0, min(_MAX_PAUSE_SECONDS, 0.01 * 2**attempt)))
            continue
        return wanted
    raise StoreUnavailable(
        f"{store.url}/{key}",
        "a pointer that no other writer changes",
        f"{_MAX_TRIES} changes by others in {_MAX_TRIES} tries",
    )


def read(store: Store, key: str, limit: int) -> bytes | None:
    """The bytes of the pointer; ``None`` if there is none. Raises ``IntegrityError`` over ``limit`` bytes."""
    try:
        return store.get(key, limit)
    except ObjectMissing:
        return None


def _read_with_etag(store: Store, key: str, limit: int) -> tuple[str | None, bytes | None]:
    """Version first, then content: a write in between makes our own write fail, so it is never lost."""
    info = store.head(key)
    if info is None:
        return None, None
    current = read(store, key, limit)
    return (None, None) if current is None else (info.etag, current)
