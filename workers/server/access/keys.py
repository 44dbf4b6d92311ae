"""Keys in the store: ``<root>/keys/<id>.json``, which workers cannot write (docs/security.md)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, final

from pydantic import AwareDatetime, Field

from generator.errors import AccessRefused, IntegrityError, SpecError
from generator.spec.canonical import FrozenModel, read_json, short_repr, validate
from generator.spec.patterns import pattern
from generator.spec.recipe import Digest, Name
from generator.store import pointers
from generator.store.base import Store
from generator.store.put_once import put_once
from workers.server.access.roles import Role
from workers.server.access.tokens import is_token_of, key_id_of, new_token, token_digest

KEYS = "keys/"
MAX_KEY_BYTES = 16 * 1024
MAX_LIFE = timedelta(days=3650)
_REREAD_SECONDS = 4.0  # a revoked key is refused at most so much later
_HELD_KEYS = 10_000
_RELIST_SECONDS = 1.0
_NO_DIGEST = "sha256:" + "0" * 64  # compared with where there is no key, so that an answer takes as long
_HEX = set("0123456789abcdef")


class Key(FrozenModel):
    """A key as it is stored. ``digest``: of its token, which is shown once, when it is made. ``note``: for whom."""

    key_version: Literal[1] = 1
    id: str = Field(pattern=pattern(r"^[0-9a-f]{16}$", "16 digits of 0-9 and a-f"))
    tenant: Name
    role: Role
    digest: Digest
    created: AwareDatetime
    expires: AwareDatetime
    revoked: AwareDatetime | None = None
    note: str = Field(default="", max_length=200)

    def is_live(self, now: datetime) -> bool:
        return self.revoked is None and now < self.expires


def add_key(
    root: Store, tenant: str, role: Role, life: timedelta, *, note: str = "", now: datetime | None = None
) -> tuple[Key, str]:
    """Make and store a key; returns it with its token, which nothing keeps. Raises ``SpecError``, ``StoreError``."""
    now = now or datetime.now(UTC)
    if not timedelta(0) < life <= MAX_LIFE:
        raise SpecError("expires", f"more than nothing and at most {MAX_LIFE.days} days", str(life))
    key_id, token = new_token()
    fields = {
        "id": key_id,
        "tenant": tenant,
        "role": role,
        "digest": token_digest(token),
        "created": now,
        "expires": now + life,
        "note": note,
    }
    key = validate(Key, fields, field="", error=SpecError)
    put_once(root, _store_key(key_id), key.canonical())
    return key, token


def read_keys(root: Store) -> Iterator[Key]:
    """All keys, ascending by id. Raises ``SpecError`` for a damaged one."""
    for info in root.list(KEYS):
        name = info.key.removeprefix(KEYS)
        if "/" not in name and (key := read_key(root, name.removesuffix(".json"))) is not None:
            yield key


def read_key(root: Store, key_id: str) -> Key | None:
    """The key with this id; ``None`` if there is none. Raises ``SpecError`` if it is damaged."""
    return _parse(key_id, pointers.read(root, _store_key(key_id), MAX_KEY_BYTES))


def revoke_key(root: Store, key_id: str, now: datetime | None = None) -> Key:
    """Revoke a key: no server accepts it ten seconds later. Raises ``SpecError`` if there is none."""

    def decide(data: bytes | None) -> bytes | None:
        key = _parse(key_id, data)
        if key is None:
            raise SpecError("key", "the id of a key (see `latentmill keys list`)", short_repr(key_id))
        return None if key.revoked else key.model_copy(update={"revoked": now or datetime.now(UTC)}).canonical()

    revoked = _parse(key_id, pointers.move(root, _store_key(key_id), decide, MAX_KEY_BYTES))
    assert revoked is not None
    return revoked


@final
class KeyRing:
    """The keys that a server has met lately. Safe to use from several threads.

    Each is read again after 4 s, so that a revoked one is refused soon; while the store does not answer, none is
    accepted beyond that. ``sparing`` calls, for those who guess, ask the store for no key that a list of the keys does
    not name; it is made anew at most once a second, for all of them.
    """

    def __init__(self, root: Callable[[], Store], clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock, self._lock = root, clock, threading.Lock()
        self._held: OrderedDict[str, tuple[float, Key | None]] = OrderedDict()
        self._listing, self._listed_at, self._listed = threading.Lock(), float("-inf"), frozenset[str]()

    def check(self, token: str, *, sparing: bool = False) -> Key:
        """The live key of ``token``. Raises ``AccessRefused``, and ``StoreError`` if it cannot be looked up."""
        key_id = key_id_of(token)
        key = None if key_id is None else self._find(key_id, sparing=sparing)
        if not is_token_of(token, key.digest if key else _NO_DIGEST) or key is None:
            raise AccessRefused("key", "a key that this server knows", "another one", "latentmill keys add makes one")
        now = datetime.now(UTC)
        if not key.is_live(now):
            got = f"one revoked at {key.revoked:%Y-%m-%d %H:%M} UTC" if key.revoked else "one that has expired"
            raise AccessRefused("key", "a live key", got, "latentmill keys add makes one")
        return key

    def _find(self, key_id: str, *, sparing: bool) -> Key | None:
        with self._lock:
            read_at, key = self._held.get(key_id, (float("-inf"), None))
        now = self._clock()
        if now - read_at < _REREAD_SECONDS:
            return key
        if sparing and key is None and not self._is_listed(key_id):
            return None
        try:
            key = read_key(self._root(), key_id)
        except (SpecError, IntegrityError):  # a damaged key opens nothing
            key = None
        with self._lock:
            self._held[key_id] = (now, key)
            self._held.move_to_end(key_id)
            while len(self._held) > _HELD_KEYS:
                self._held.popitem(last=False)
        return key

    def _is_listed(self, key_id: str) -> bool:
        with self._listing:
            if self._clock() - self._listed_at >= _RELIST_SECONDS:
                self._listed = frozenset(info.key.removeprefix(KEYS) for info in self._root().list(KEYS))
                self._listed_at = self._clock()
            return f"{key_id}.json" in self._listed


def is_key_id(text: str) -> bool:
    """Whether ``text`` has the form of the id of a key."""
    return len(text) == 16 and set(text) <= _HEX


def _store_key(key_id: str) -> str:
    if not is_key_id(key_id):
        raise SpecError("key", "the id of a key: 16 hexadecimal digits", short_repr(key_id))
    return f"{KEYS}{key_id}.json"


def _parse(key_id: str, data: bytes | None) -> Key | None:
    if data is None:
        return None
    field = _store_key(key_id)
    key = validate(Key, read_json(data, field=field, error=SpecError), field=field, error=SpecError)
    if key.id != key_id:
        raise SpecError(field, f"the key {key_id}", f"the key {key.id}")
    return key
