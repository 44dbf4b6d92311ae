"""The in-memory store, for tests: the contract of ``base.Store`` without a disk or a network.

Spaces are global in the process, by name, so two stores with the same URL share their objects, like two clients of one
bucket. A store that is pickled into another process keeps its name, but uses that process's own, empty space.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import NamedTuple, final

from generator.errors import AlreadyExists, Changed, ObjectMissing
from generator.store.base import (
    MAX_OBJECT_BYTES,
    ObjectInfo,
    Store,
    check_directory,
    check_key,
    check_prefix,
    check_range,
    check_size,
    join_key,
)


class _Version(NamedTuple):
    data: bytes
    etag: str
    modified: datetime


@dataclass
class _Space:
    objects: dict[str, _Version] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    versions: Iterator[int] = field(default_factory=lambda: count(1))

    def write(self, key: str, data: bytes) -> str:
        etag = f"v{next(self.versions)}"
        self.objects[key] = _Version(bytes(data), etag, datetime.now(UTC))
        return etag


_SPACES: dict[str, _Space] = {}


@final
class MemoryStore(Store):
    """The objects of the space ``name`` whose keys lie below ``prefix``."""

    def __init__(self, name: str, prefix: str = "") -> None:
        self._name, self._prefix = name, prefix
        self.url = f"memory://{join_key(name, prefix)}"

    def __repr__(self) -> str:
        return f"MemoryStore({self.url!r})"

    @property
    def _space(self) -> _Space:
        return _SPACES.setdefault(self._name, _Space())

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        version = self._space.objects.get(self._full_key(key))
        if version is None:
            raise ObjectMissing(f"{self.url}/{key}", "an object", "nothing")
        check_size(f"{self.url}/{key}", len(version.data), limit)
        return version.data

    def read(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        return self.get(key)[start : start + length]

    def head(self, key: str) -> ObjectInfo | None:
        version = self._space.objects.get(self._full_key(key))
        return _object_info(key, version) if version else None

    def create(self, key: str, data: bytes) -> str:
        full, space = self._full_key(key), self._space
        with space.lock:
            if full in space.objects:
                raise AlreadyExists(f"{self.url}/{key}", "no object yet", "an object")
            return space.write(full, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        full, space = self._full_key(key), self._space
        with space.lock:
            current = space.objects.get(full)
            if current is None or current.etag != etag:
                got = f"version {current.etag}" if current else "no object"
                raise Changed(f"{self.url}/{key}", f"version {etag}", got)
            return space.write(full, data)

    def put(self, key: str, data: bytes) -> str:
        full, space = self._full_key(key), self._space
        with space.lock:
            return space.write(full, data)

    def delete(self, key: str) -> None:
        full, space = self._full_key(key), self._space
        with space.lock:
            space.objects.pop(full, None)

    def _list_below(self, prefix: str) -> list[tuple[str, _Version]]:
        own = f"{self._prefix}/" if self._prefix else ""
        space = self._space
        with space.lock:
            found = [(key, version) for key, version in space.objects.items() if key.startswith(own + prefix)]
        return sorted((key.removeprefix(own), version) for key, version in found)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter([_object_info(key, version) for key, version in self._list_below(check_prefix(prefix))])

    def children(self, prefix: str = "") -> Iterator[str]:
        keys = [key.removeprefix(prefix) for key, _ in self._list_below(check_directory(prefix))]
        return iter(sorted({key.split("/")[0] for key in keys if "/" in key}))

    def check_writable(self) -> None:
        """Does nothing: memory is always writable."""

    def at(self, prefix: str) -> MemoryStore:
        return MemoryStore(self._name, join_key(self._prefix, check_key(prefix.removesuffix("/"), "prefix")))

    def _full_key(self, key: str) -> str:
        return join_key(self._prefix, check_key(key))


def _object_info(key: str, version: _Version) -> ObjectInfo:
    return ObjectInfo(key, len(version.data), version.etag, version.modified)
