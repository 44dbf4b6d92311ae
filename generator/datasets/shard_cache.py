"""Shards of remote builds on a local disk: bounded, shared by processes, checked when they come and when they are read
as a whole."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from generator.errors import IntegrityError, SettingsError
from generator.production.provenance.manifest import StoredFile
from generator.spec.canonical import digest_of
from generator.store.base import Store

_LOCKS = 256


@final
@dataclass(frozen=True)
class ShardCache:
    """A directory of at most ``limit`` bytes; the least recently used shards leave first.

    Files are named by their digest, so builds that share a shard share its copy.
    """

    directory: Path
    limit: int

    def whole(self, store: Store, file: StoredFile) -> bytes:
        """All bytes of a shard; its digest is checked, also of the copy. Raises ``IntegrityError``, ``StoreError``."""
        path = self._path(file)
        with suppress(OSError):
            data = path.read_bytes()
            if digest_of(data) == file.digest:
                _touch(path)
                return data
            path.unlink(missing_ok=True)
        return self._fetch(store, file)

    def part(self, store: Store, file: StoredFile, start: int, length: int) -> bytes:
        """Some bytes of a shard, which is fetched whole if there is no copy. Raises as ``whole``."""
        path = self._path(file)
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_size == file.size:
                    return os.pread(descriptor, length, start)
            finally:
                os.close(descriptor)
        return self._fetch(store, file)[start : start + length]

    def _fetch(self, store: Store, file: StoredFile) -> bytes:
        """The shard from the store, kept. Other processes that want it wait, and find the copy."""
        path = self._path(file)
        with self._locked(path.name):
            with suppress(OSError):
                data = path.read_bytes()
                if digest_of(data) == file.digest:
                    return data
            data = store.get(file.key, file.size)
            if (digest := digest_of(data)) != file.digest:
                raise IntegrityError(f"{store.url}/{file.key}", f"bytes with digest {file.digest}", digest)
            with suppress(OSError):  # a full disk: the next epoch fetches it again
                self._keep(path, data)
            return data

    def _keep(self, path: Path, data: bytes) -> None:
        self._make_room(len(data))
        if len(data) > self.limit:
            return
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        kept = []
        for path in (self.directory / "shards").glob("[0-9a-f]*"):
            with suppress(OSError):
                facts = path.stat()
                kept.append((facts.st_mtime_ns, path, facts.st_size))
        total = sum(each for _, _, each in kept)
        for _, path, each in sorted(kept):
            if total + size <= self.limit:
                break
            with suppress(OSError):
                path.unlink()
            total -= each

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        path = self.directory / "locks" / str(int(name[:8], 16) % _LOCKS)
        try:
            for folder in (path.parent, self.directory / "shards"):
                folder.mkdir(parents=True, exist_ok=True)
            descriptor = _open_lock(path)
        except OSError as error:
            raise SettingsError("cache", "a directory that can be written", error.strerror or error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _path(self, file: StoredFile) -> Path:
        return self.directory / "shards" / file.digest.removeprefix("sha256:")


def _open_lock(path: Path) -> int:
    """A descriptor to lock. A file that another user made can be locked, too, if it can be read."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)
