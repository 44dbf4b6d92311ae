"""A store that fails in chosen ways, around a real one."""

from __future__ import annotations

from collections.abc import Iterator

from generator.errors import AlreadyExists, Changed
from generator.store.base import ObjectInfo, Store


class Killed(BaseException):
    """Stands for a SIGKILL: no handler of ``Exception`` catches it."""


class FaultyStore(Store):
    """A store that raises ``Killed`` after this many ``writes``.

    ``repeat``: conditional writes are sent twice, and the second response counts. ``always_changed``: every conditional
    write is refused. ``gets`` counts the reads of whole objects.
    """

    def __init__(
        self, inner: Store, writes: int = 10**9, *, repeat: bool = False, always_changed: bool = False
    ) -> None:
        self.url, self._inner = inner.url, inner
        self._left, self._repeat, self._always_changed = [writes], repeat, always_changed
        self.gets = 0

    def create(self, key: str, data: bytes) -> str:
        self._count()
        if self._always_changed:
            raise AlreadyExists(key)
        etag = self._inner.create(key, data)
        return self._inner.create(key, data) if self._repeat else etag

    def replace(self, key: str, data: bytes, etag: str) -> str:
        self._count()
        if self._always_changed:
            raise Changed(key)
        fresh = self._inner.replace(key, data, etag)
        return self._inner.replace(key, data, etag) if self._repeat else fresh

    def put(self, key: str, data: bytes) -> str:
        self._count()
        return self._inner.put(key, data)

    def delete(self, key: str) -> None:
        self._count()
        self._inner.delete(key)

    def get(self, key: str, limit: int = 5 * 10**9) -> bytes:
        self.gets += 1
        return self._inner.get(key, limit)

    def read(self, key: str, start: int, length: int) -> bytes:
        return self._inner.read(key, start, length)

    def head(self, key: str) -> ObjectInfo | None:
        return self._inner.head(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def children(self, prefix: str = "") -> Iterator[str]:
        return self._inner.children(prefix)

    def check_writable(self) -> None:
        self._inner.check_writable()

    def at(self, prefix: str) -> FaultyStore:
        below = FaultyStore(self._inner.at(prefix), repeat=self._repeat, always_changed=self._always_changed)
        below._left = self._left
        return below

    def _count(self) -> None:
        if self._left[0] <= 0:
            raise Killed
        self._left[0] -= 1
