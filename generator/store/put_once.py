"""Writing an object exactly once, however often the writer is started (design, law 4)."""

from __future__ import annotations

from generator.errors import AlreadyExists, BuildConflict, IntegrityError
from generator.spec.canonical import digest_of
from generator.store.base import Store


def put_once(store: Store, key: str, data: bytes) -> bool:
    """Make sure that ``key`` holds ``data``: ``True`` if this call wrote it, ``False`` if it was there already.

    A store may answer "already there" to a write whose own answer was lost, so the object is read back and compared.
    Raises ``BuildConflict``, with both digests, where it holds other bytes.
    """
    try:
        store.create(key, data)
    except AlreadyExists as there:
        held = _read_up_to(store, key, len(data))
        if held != data:
            hint = "another build, or another environment, wrote this object"
            got = f"more than {len(data)} bytes" if held is None else digest_of(held)
            raise BuildConflict(f"{store.url}/{key}", digest_of(data), got, hint) from there
        return False
    return True


def _read_up_to(store: Store, key: str, size: int) -> bytes | None:
    """The object; ``None``, unread, where it is larger than ``size`` bytes."""
    try:
        return store.get(key, size)
    except IntegrityError:
        return None
