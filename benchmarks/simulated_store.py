"""A store in memory that answers as late as one over a network: for ``simulation.py``.

In virtual time (``delay`` 0) it counts its calls, and the simulation turns them into seconds. In real time every call
takes ``delay`` seconds, and a listing ``delay`` for each 1,000 keys.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from generator.errors import AlreadyExists, Changed, ObjectMissing
from generator.store.base import MAX_OBJECT_BYTES, ObjectInfo, Store, check_prefix, check_size, join_key

_PAGE = 1000


@dataclass
class Objects:
    """The objects of a simulated service by key: bytes, version, time of the last change."""

    delay: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    held: dict[str, tuple[bytes, int, datetime]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _sorted: list[str] = field(default_factory=list)

    def call(self, kind: str) -> None:
        with self.lock:
            self.calls[kind] += 1
        if self.delay:
            time.sleep(self.delay)

    def write(self, key: str, data: bytes) -> str:
        version = self.held[key][1] + 1 if key in self.held else 1
        self.held[key] = data, version, datetime.now(UTC)
        return str(version)

    def keys_below(self, prefix: str) -> list[str]:
        with self.lock:
            if len(self._sorted) != len(self.held):
                self._sorted = sorted(self.held)
            return self._sorted[bisect_left(self._sorted, prefix) : bisect_left(self._sorted, prefix + "\x7f")]


class SimulatedStore(Store):
    """The objects below ``prefix``; stores of one ``Objects`` share them."""

    def __init__(self, objects: Objects, prefix: str = "") -> None:
        self.objects, self._prefix, self.url = objects, prefix, f"simulated://{prefix}"

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        self.objects.call("get")
        found = self.objects.held.get(join_key(self._prefix, key))
        if found is None:
            raise ObjectMissing(f"{self.url}/{key}", "an object", "nothing")
        check_size(f"{self.url}/{key}", len(found[0]), limit)
        return found[0]

    def read(self, key: str, start: int, length: int) -> bytes:
        return self.get(key)[start : start + length]

    def head(self, key: str) -> ObjectInfo | None:
        self.objects.call("head")
        if (found := self.objects.held.get(join_key(self._prefix, key))) is None:
            return None
        return ObjectInfo(key, len(found[0]), str(found[1]), found[2])

    def create(self, key: str, data: bytes) -> str:
        self.objects.call("put")
        full = join_key(self._prefix, key)
        with self.objects.lock:
            if full in self.objects.held:
                raise AlreadyExists(f"{self.url}/{key}", "no object yet", "an object")
            return self.objects.write(full, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        self.objects.call("put")
        full = join_key(self._prefix, key)
        with self.objects.lock:
            found = self.objects.held.get(full)
            if found is None or str(found[1]) != etag:
                raise Changed(f"{self.url}/{key}", f"version {etag}", "another one")
            return self.objects.write(full, data)

    def put(self, key: str, data: bytes) -> str:
        self.objects.call("put")
        with self.objects.lock:
            return self.objects.write(join_key(self._prefix, key), data)

    def delete(self, key: str) -> None:
        self.objects.call("delete")
        with self.objects.lock:
            self.objects.held.pop(join_key(self._prefix, key), None)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        own = f"{self._prefix}/" if self._prefix else ""
        keys = self.objects.keys_below(own + check_prefix(prefix))
        for number, key in enumerate(keys):
            if number % _PAGE == 0:
                self.objects.call("list")
            data, version, modified = self.objects.held[key]
            yield ObjectInfo(key.removeprefix(own), len(data), str(version), modified)
        if not keys:
            self.objects.call("list")

    def children(self, prefix: str = "") -> Iterator[str]:
        names = {info.key.removeprefix(prefix) for info in self.list(prefix)}
        return iter(sorted({name.split("/")[0] for name in names if "/" in name}))

    def check_writable(self) -> None:
        """Memory is always writable."""

    def at(self, prefix: str) -> Store:
        return SimulatedStore(self.objects, join_key(self._prefix, prefix.removesuffix("/")))
