"""Pointers: small objects that move, each time by a conditional write (``latest.json``, a channel of bundles).

The first write is ``If-None-Match: *``, later ones are ``If-Match`` on the version that was read. A write that is
refused is read back: if our own bytes lie there, its answer was lost, and it counts. Else somebody was faster, and the
decision is taken again on what they wrote. (The store itself sends a write again that met another one in progress,
HTTP 409.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from generator.errors import AlreadyExists, Changed, ObjectMissing, StoreUnavailable
from generator.store.base import Store

# What is to stand there, from what stands there (``None``: nothing); ``None`` leaves everything as it is. May be asked
# again, so it does nothing but decide.
Decision = Callable[[bytes | None], bytes | None]

_MAX_TRIES = 15
_MAX_PAUSE_SECONDS = 0.5  # seconds


def move(store: Store, key: str, decide: Decision, limit: int) -> bytes | None:
    """Move the pointer ``key`` as ``decide`` says; the bytes that ``decide`` chose or left, ``None`` where none stand.

    Raises ``StoreUnavailable`` where others keep moving it, ``IntegrityError`` for an object of over ``limit`` bytes,
    and whatever ``decide`` raises; then nothing has moved.
    """
    for attempt in range(_MAX_TRIES):
        etag, held = _read_with_etag(store, key, limit)
        wanted = decide(held)
        if wanted is None or wanted == held:
            return held
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
        f"{store.url}/{key}", "a pointer that holds still", f"{_MAX_TRIES} moves by others while we tried"
    )


def read(store: Store, key: str, limit: int) -> bytes | None:
    """The bytes of the pointer, ``None`` where there is none. Raises ``IntegrityError`` over ``limit`` bytes."""
    try:
        return store.get(key, limit)
    except ObjectMissing:
        return None


def _read_with_etag(store: Store, key: str, limit: int) -> tuple[str | None, bytes | None]:
    """Version first, then content: who writes in between makes our own write fail, and no write of theirs is lost."""
    info = store.head(key)
    if info is None:
        return None, None
    held = read(store, key, limit)
    return (None, None) if held is None else (info.etag, held)
