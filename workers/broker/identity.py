"""The identity of a pool: a random id in its store root. All keys of the pool in Redis begin with it.

A path or URL is no identity: ``/data`` exists on every host, and a bucket has several spellings. So pools that share a
Redis never touch each other's keys, whatever their roots are called.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress

from pydantic import Field

from generator.errors import AlreadyExists, ObjectMissing, SpecError, StoreUnavailable
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.store.base import Store

log = logging.getLogger(__name__)

POOL_KEY = "pool.json"
_MAX_BYTES = 4096
_TRIES = 3  # somebody may delete the object between our two steps

_known: dict[str, str] = {}  # the ids that this process has read or made, by the URL of the root


class PoolRecord(FrozenModel):
    """The content of ``<root>/pool.json``."""

    pool: str = Field(pattern=r"^[0-9a-f]{16}$")


def read_pool_id(root: Store) -> str | None:
    """The id in the store root; ``None`` if it has none yet. Raises ``StoreError``, ``SpecError`` if it is damaged."""
    try:
        data = root.get(POOL_KEY, _MAX_BYTES)
    except ObjectMissing:
        return None
    field = f"{root.url}/{POOL_KEY}"
    return validate(PoolRecord, read_json(data, field=field, error=SpecError), field=field, error=SpecError).pool


def pool_id(root: Store) -> str:
    """The id of the pool with this store root, made if there is none; it is read once in a process.

    Raises as ``read_pool_id`` does.
    """
    return _known.get(root.url) or follow_pool_id(root)


def follow_pool_id(root: Store) -> str:
    """As ``pool_id``, but read anew: the root may have been emptied or restored from a backup.

    An emptied root gets the id back that this process knows; of several processes that store one, the first decides.
    """
    known = _known.get(root.url)
    found = known or secrets.token_hex(8)
    for _ in range(_TRIES):
        if (stored := read_pool_id(root)) is not None:
            found = stored
            break
        with suppress(AlreadyExists):  # made by another process, or by this call, whose answer was lost
            root.create(POOL_KEY, PoolRecord(pool=found).canonical())
            break
    else:
        got = f"one that was deleted {_TRIES} times"
        raise StoreUnavailable(f"{root.url}/{POOL_KEY}", "an object that stays", got)
    if known not in (None, found):
        log.warning("%s is another pool now: %s instead of %s", root.url, found, known)
    _known[root.url] = found
    return found


def key_prefix(root: Store) -> str:
    """What all keys of the pool with this store root begin with. Raises as ``pool_id`` does."""
    return prefix_of(pool_id(root))


def prefix_of(pool: str) -> str:
    """What all keys of the pool with this id begin with."""
    return f"latentmill:{pool}:"


def broker_prefix(prefix: str) -> str:
    """What the broker's keys of the pool with this prefix begin with: its queues have names that users choose."""
    return f"{prefix}broker:"
