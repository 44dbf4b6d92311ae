"""Stores that break one promise each, around a whole one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace as with_fields
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from generator.errors import AlreadyExists, Changed, ObjectMissing, SpecError, StoreUnavailable
from generator.store import ObjectInfo, Store
from generator.store.base import MAX_OBJECT_BYTES
from generator.store.partial_writes import HasPartialWrites, PartialWrite, prune_directories
from generator.store.url import parse_url


class WrappedStore(Store):
    """A store as whole as the one within."""

    def __init__(self, inner: Store) -> None:
        self.inner, self.url = inner, inner.url

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        return self.inner.get(key, limit)

    def read(self, key: str, start: int, length: int) -> bytes:
        return self.inner.read(key, start, length)

    def head(self, key: str) -> ObjectInfo | None:
        return self.inner.head(key)

    def create(self, key: str, data: bytes) -> str:
        return self.inner.create(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        return self.inner.replace(key, data, etag)

    def put(self, key: str, data: bytes) -> str:
        return self.inner.put(key, data)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def children(self, prefix: str = "") -> Iterator[str]:
        return self.inner.children(prefix)

    def check_writable(self) -> None:
        self.inner.check_writable()

    def prune_directories(self) -> None:
        prune_directories(self.inner)

    def partial_writes(self) -> Iterator[PartialWrite]:
        return self.inner.partial_writes() if isinstance(self.inner, HasPartialWrites) else iter(())

    def at(self, prefix: str) -> Store:
        return type(self)(self.inner.at(prefix))


class CreateOverwrites(WrappedStore):
    def create(self, key: str, data: bytes) -> str:
        return self.inner.put(key, data)


class ReplaceTakesAnyEtag(WrappedStore):
    def replace(self, key: str, data: bytes, etag: str) -> str:
        if self.inner.head(key) is None:
            raise Changed(key)
        return self.inner.put(key, data)


class ReplaceMakesWhatIsGone(WrappedStore):
    def replace(self, key: str, data: bytes, etag: str) -> str:
        return self.inner.replace(key, data, etag) if self.inner.head(key) else self.inner.create(key, data)


class ChecksBeforeItCreates(WrappedStore):
    """The check and the write are two steps."""

    def create(self, key: str, data: bytes) -> str:
        if self.inner.head(key) is not None:
            raise AlreadyExists(f"{self.url}/{key}")
        time.sleep(0.01)
        return self.inner.put(key, data)


class ChecksBeforeItReplaces(WrappedStore):
    def replace(self, key: str, data: bytes, etag: str) -> str:
        info = self.inner.head(key)
        if info is None or info.etag != etag:
            raise Changed(key)
        time.sleep(0.01)
        return self.inner.put(key, data)


class EtagOfTheKey(WrappedStore):
    """The etag does not change with the content."""

    def put(self, key: str, data: bytes) -> str:
        self.inner.put(key, data)
        return key

    def create(self, key: str, data: bytes) -> str:
        self.inner.create(key, data)
        return key

    def replace(self, key: str, data: bytes, etag: str) -> str:
        info = self.inner.head(key)
        if info is None or etag != key:
            raise Changed(key)
        return self.put(key, data)

    def head(self, key: str) -> ObjectInfo | None:
        info = self.inner.head(key)
        return info and with_fields(info, etag=key)


class EtagOfItsOwn(WrappedStore):
    """A put gives another etag than head tells."""

    def put(self, key: str, data: bytes) -> str:
        return self.inner.put(key, data) + "-"


class DeleteOfNothingRaises(WrappedStore):
    def delete(self, key: str) -> None:
        if self.inner.head(key) is None:
            raise ObjectMissing(f"{self.url}/{key}")
        self.inner.delete(key)


class DeleteDoesNothing(WrappedStore):
    def delete(self, key: str) -> None:
        self.inner.head(key)


class DeleteTakesDirectories(WrappedStore):
    def delete(self, key: str) -> None:
        self.inner.delete(key)
        for info in list(self.inner.list(f"{key}/")):
            self.inner.delete(info.key)


class ListIsUnordered(WrappedStore):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(list(self.inner.list(prefix))[::-1])


class ListEndsWithAPage(WrappedStore):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(list(self.inner.list(prefix))[:1000])


class ListTakesWholeDirectories(WrappedStore):
    """What follows the last '/' of a prefix is not looked at."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        directory, slash, _ = prefix.rpartition("/")
        return self.inner.list(directory + slash)


class ChildrenNameWhatWas(WrappedStore):
    _named: ClassVar[dict[str, set[str]]] = {}

    def children(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted({*self.inner.children(prefix), *self._named.get(f"{self.url}/{prefix}", ())}))

    def delete(self, key: str) -> None:
        directory, slash, _ = key.partition("/")
        if slash and self.inner.head(key):
            self._named.setdefault(f"{self.url}/", set()).add(directory)
        self.inner.delete(key)


class ChildrenNameObjects(WrappedStore):
    def children(self, prefix: str = "") -> Iterator[str]:
        self.inner.children(prefix)
        return iter(sorted({info.key.removeprefix(prefix).split("/")[0] for info in self.inner.list(prefix)}))


class MissingIsAKeyError(WrappedStore):
    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        if self.inner.head(key) is None:
            raise KeyError(key)
        return self.inner.get(key, limit)


class MissingIsEmpty(WrappedStore):
    def read(self, key: str, start: int, length: int) -> bytes:
        return self.inner.read(key, start, length) if self.inner.head(key) else b""


class RangeIncludesItsEnd(WrappedStore):
    def read(self, key: str, start: int, length: int) -> bytes:
        return self.inner.read(key, start, length + 1)


class GetHasNoLimit(WrappedStore):
    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        return self.inner.get(key)


class KeysAreUnchecked(WrappedStore):
    def head(self, key: str) -> ObjectInfo | None:
        try:
            return self.inner.head(key)
        except SpecError:
            return None


class CaseIsLost(WrappedStore):
    """As on a file system that does not tell upper and lower case apart."""

    def create(self, key: str, data: bytes) -> str:
        return self.inner.put(key.lower(), data)

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        return self.inner.get(key.lower(), limit)


class PrefixIsForgotten(WrappedStore):
    """``at`` gives the right URL, and the same objects."""

    def at(self, prefix: str) -> Store:
        below = PrefixIsForgotten(self.inner)
        below.url = self.inner.at(prefix).url
        return below


class ReadsAreStale(WrappedStore):
    """What was read once is kept."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._kept: dict[str, bytes] = {}

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        self._kept.setdefault(key, self.inner.get(key, limit))
        return self._kept[key]


class WritesInHalves(WrappedStore):
    """Between two moments, half an object is there to be read."""

    def put(self, key: str, data: bytes) -> str:
        self.inner.put(key, data[: len(data) // 2])
        time.sleep(0.002)
        return self.inner.put(key, data)


class VanishesMeanwhile(WrappedStore):
    """A put removes what is there first."""

    def put(self, key: str, data: bytes) -> str:
        self.inner.delete(key)
        time.sleep(0.002)
        return self.inner.put(key, data)


class ProbeStays(WrappedStore):
    def check_writable(self) -> None:
        self.inner.put("probe", b"")


class TimesAreLocal(WrappedStore):
    def head(self, key: str) -> ObjectInfo | None:
        info = self.inner.head(key)
        return info and with_fields(info, modified=datetime.now())


class PickledElsewhere(WrappedStore):
    """A pickled copy looks at another place."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.inner.at("copy"),)


class ForgetsPartialWrites(WrappedStore):
    def partial_writes(self) -> Iterator[PartialWrite]:
        return iter(())


class WritesInPlace(WrappedStore):
    """A directory whose files are overwritten piece by piece."""

    def put(self, key: str, data: bytes) -> str:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(data), 2**18):
                file.write(data[start : start + 2**18])
                time.sleep(0.0005)
        info = self.inner.head(key)
        assert info is not None
        return info.etag

    def create(self, key: str, data: bytes) -> str:
        if self.inner.head(key) is not None:
            raise AlreadyExists(f"{self.url}/{key}")
        return self.put(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        info = self.inner.head(key)
        if info is None or info.etag != etag:
            raise Changed(f"{self.url}/{key}")
        return self.put(key, data)

    def _path(self, key: str) -> Path:
        return Path(parse_url(self.url).root) / key


class LocksForEver(WritesInPlace):
    """A writer that is killed leaves its lock file, and no other can write after it."""

    def put(self, key: str, data: bytes) -> str:
        lock = self._path(key).parent / ".locked"
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
        except FileExistsError as locked:
            raise StoreUnavailable(f"{self.url}/{key}", "an object that can be written", "a lock") from locked
        try:
            return self.inner.put(key, data)
        finally:
            lock.unlink()
