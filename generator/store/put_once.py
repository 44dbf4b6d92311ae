"""Writes an object exactly once, even if the writer runs several times (design, law 4)."""

from __future__ import annotations

from generator.errors import AlreadyExists, BuildConflict, IntegrityError
from generator.spec.canonical import digest_of
from generator.store.base import Store


def put_once(store: Store, key: str, data: bytes) -> bool:
    """Ensure that ``key`` holds ``data``: ``True`` if this call wrote it, ``False`` if it was there already.

    After a lost answer a store may report a write's own object as existing, so the object is read back and compared.
    Raises ``BuildConflict``, with both digests, if it holds other bytes.
    """
    try:
        store.create(key, data)
    except AlreadyExists as there:
        stored = _read_up_to(store, key, len(data))
        if stored != data:
            hint = "another build, or another environment, wrote this object"
            got = f"more than {len(data)} bytes" if stored is None else digest_of(stored)
            raise BuildConflict(f"{store.url}/{key}", digest_of(data), got, hint) from there
        return False
    return True


def _read_up_to(store: Store, key: str, size: int) -> bytes | None:
    """The object; ``None``, without reading it, if it is larger than ``size`` bytes."""
    try:
        return store.get(key, size)
    except IntegrityError:
        return None
