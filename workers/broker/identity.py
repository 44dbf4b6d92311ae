"""The identity of a pool: a random id in its store root. All keys of the pool in Redis begin with it.

A path or URL is no identity: ``/data`` exists on every host, and a bucket has several spellings. So pools that share a
Redis never touch each other's keys, whatever their roots are called.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from dataclasses import dataclass

from pydantic import Field

from generator.errors import AlreadyExists, ObjectMissing, SpecError, StoreUnavailable
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.patterns import pattern
from generator.store.base import Store

log = logging.getLogger(__name__)

POOL_KEY = "pool.json"
_MAX_BYTES = 4096
_TRIES = 3  # somebody may delete the object between our two steps


class PoolRecord(FrozenModel):
    """The content of ``<root>/pool.json``."""

    pool: str = Field(pattern=pattern(r"^[0-9a-f]{16}$", "16 digits of 0-9 and a-f"))


def read_pool_id(root: Store) -> str | None:
    """The id in the store root; ``None`` if it has none yet. Raises ``StoreError``, ``SpecError`` if it is damaged."""
    try:
        data = root.get(POOL_KEY, _MAX_BYTES)
    except ObjectMissing:
        return None
    field = f"{root.url}/{POOL_KEY}"
    return validate(PoolRecord, read_json(data, field=field, error=SpecError), field=field, error=SpecError).pool


@dataclass
class PoolIdentity:
    """The identity of the pool with the store root ``root``, as one process knows it; it is read on first use."""

    root: Store
    _id: str | None = None

    def prefix(self) -> str:
        """What all keys of the pool begin with. Raises as ``follow`` does, if the identity is not known yet."""
        if self._id is None:
            self.follow()
        assert self._id is not None
        return prefix_of(self._id)

    def follow(self) -> None:
        """Read the identity anew: the root may have been emptied or restored from a backup.

        A root without one gets the one that is known here, or a new one; of several processes that store one at once,
        the first decides. Raises ``StoreError``, ``SpecError`` if it is damaged.
        """
        found = self._id or secrets.token_hex(8)
        for _ in range(_TRIES):
            if (stored := read_pool_id(self.root)) is not None:
                found = stored
                break
            with suppress(AlreadyExists):  # made by another process, or by this call, whose answer was lost
                self.root.create(POOL_KEY, PoolRecord(pool=found).canonical())
                break
        else:
            got = f"one that was deleted {_TRIES} times"
            raise StoreUnavailable(f"{self.root.url}/{POOL_KEY}", "an object that stays", got)
        if self._id not in (None, found):
            log.warning("%s is another pool now: %s instead of %s", self.root.url, found, self._id)
        self._id = found

    def owns_root(self) -> bool:
        """Whether the root names this pool; a root without a name gets it back. Raises as ``follow`` does."""
        stored = read_pool_id(self.root)
        if stored is None:
            self.follow()
        return stored is None or prefix_of(stored) == self.prefix()


def prefix_of(pool: str) -> str:
    """What all keys of the pool with this id begin with."""
    return f"latentmill:{pool}:"


def broker_prefix(prefix: str) -> str:
    """What the broker's keys of the pool with this prefix begin with: its queues have names that users choose."""
    return f"{prefix}broker:"
