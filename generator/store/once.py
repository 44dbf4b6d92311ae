"""Writing an object exactly once, however often the writer is started (design, law 4)."""

from __future__ import annotations

from generator.canonical import digest_of
from generator.errors import AlreadyExists, BuildConflict
from generator.store.base import Store


def put_once(store: Store, key: str, data: bytes) -> bool:
    """Make sure that ``key`` holds ``data``: ``True`` if this call wrote it, ``False`` if it was there already.

    A store may answer "already there" to a write whose own answer was lost, so the object is read back and compared.
    Raises ``BuildConflict``, with both digests, where it holds other bytes.
    """
    try:
        store.create(key, data)
    except AlreadyExists as there:
        held = store.get(key)
        if held != data:
            hint = "another build, or another environment, wrote this object"
            raise BuildConflict(f"{store.url}/{key}", digest_of(data), digest_of(held), hint) from there
        return False
    return True
