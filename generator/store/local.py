"""The local store: a directory as an object store.

``create`` writes a hidden temporary file, flushes it to disk and links it to its final name: linking is atomic and
fails if there is an object, so a crash leaves at most a hidden file that is never listed. ``replace``, ``put`` and
``delete`` exclude each other by a lock file in the object's directory, because file systems have no ``If-Match``. The
file system must support hard links; ``check_writable`` tests that.

Symbolic links below the root are not followed, so no object lies outside of the root. The root itself may be reached
through links. A root that does not exist yet is an empty store; the first write makes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, final

from generator.errors import AccessDenied, AlreadyExists, Changed, ObjectMissing, StoreUnavailable
from generator.store import atomic_files
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
from generator.store.partial_writes import PROBE_PREFIX, PartialWrite, find_partial_writes

_PERMANENT_ERRNO_NAMES = "EACCES EPERM EROFS ENOENT EEXIST ENOTDIR EISDIR ELOOP ENAMETOOLONG EOPNOTSUPP EMLINK"
_MAX_TRIES = 100
_HASHED_AT_ONCE = 2**18  # bytes, which stay in the processor's cache
_PERMANENT_ERRNOS = {
    getattr(errno, name) for name in _PERMANENT_ERRNO_NAMES.split()
}  # a retry would not help, unlike ENOSPC or EIO


@final
class LocalStore(Store):
    """The files below ``root``/``prefix``; ``root`` is an absolute path."""

    def __init__(self, root: Path, prefix: str = "") -> None:
        self._root, self._prefix = root, prefix
        self._base = root / prefix
        self.url = self._base.as_uri().removesuffix("/")

    def __repr__(self) -> str:
        return f"LocalStore({self.url!r})"

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        with self._open_object(key) as file:
            check_size(f"{self.url}/{key}", os.fstat(file.fileno()).st_size, limit)
            return file.read()

    def digest(self, key: str, limit: int = MAX_OBJECT_BYTES) -> tuple[str, int]:
        found, size = hashlib.sha256(), 0
        with self._open_object(key) as file:
            check_size(f"{self.url}/{key}", os.fstat(file.fileno()).st_size, limit)
            while part := file.read(_HASHED_AT_ONCE):
                found.update(part)
                size += len(part)
        return f"sha256:{found.hexdigest()}", size

    def read(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        with self._open_object(key) as file:
            file.seek(start)
            return file.read(length)

    def part_reader(self, key: str) -> Callable[[int, int], bytes]:
        with self._open_object(key) as file:
            return _OpenFile(os.dup(file.fileno()), f"{self.url}/{key}")

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with self._translate_errors(key):
            facts = self._stat(path)
        return atomic_files.info_of(key, facts) if facts else None

    def create(self, key: str, data: bytes) -> str:
        path = self._path(key)
        with self._translate_errors(key):
            return self._write_in_parent(path, lambda: self._create(path, key, data))

    def replace(self, key: str, data: bytes, etag: str) -> str:
        path = self._path(key)
        with self._translate_errors(key):
            if self._stat(path) is None:  # checked first, as the lock file needs the directory
                raise Changed(f"{self.url}/{key}", f"version {etag}", "no object")
            try:
                return self._replace(path, key, data, etag)
            except FileNotFoundError as gone:
                raise Changed(f"{self.url}/{key}", f"version {etag}", "no object") from gone

    def put(self, key: str, data: bytes) -> str:
        path = self._path(key)
        with self._translate_errors(key):
            return self._write_in_parent(path, lambda: self._put(path, data))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translate_errors(key):
            if self._stat(path) is None:
                return
            with suppress(FileNotFoundError), atomic_files.lock_directory(path.parent):
                path.unlink(missing_ok=True)
                atomic_files.flush_directory(path.parent)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        directory, slash, start = check_prefix(prefix).rpartition("/")
        return self._list_below(directory + slash, start)

    def children(self, prefix: str = "") -> Iterator[str]:
        base = self._base / check_directory(prefix)
        with self._translate_errors(prefix):
            found = atomic_files.list_entries(base) if self._is_inside(base) else []
            directories = [entry for entry in found if entry.is_dir(follow_symlinks=False)]
            return iter(sorted(entry.name for entry in directories if any(atomic_files.list_objects(Path(entry.path)))))

    def check_writable(self) -> None:
        """Write, link and remove a hidden file in the store's directory, or in its nearest parent that exists."""
        directory = self._base
        with self._translate_errors(""):
            while not os.path.lexists(directory):
                directory = directory.parent
            self._refuse_links(directory)
            probe = directory / f"{PROBE_PREFIX}{secrets.token_hex(8)}"
            with atomic_files.temporary_file(directory, b"probe") as temporary:
                os.link(temporary, probe)
                probe.unlink()

    def prune_directories(self) -> None:
        """Remove the empty directories of this store, and its own directory unless that is the root."""
        with self._translate_errors(""):
            if self._prefix and self._is_inside(self._base):
                atomic_files.prune_directories(self._base)

    def partial_writes(self) -> Iterator[PartialWrite]:
        """Temporary files and unfinished bundles below this store. Raises ``StoreError``."""
        with self._translate_errors(""):
            if self._is_inside(self._base):
                yield from find_partial_writes(self._base)

    def at(self, prefix: str) -> LocalStore:
        return LocalStore(self._root, join_key(self._prefix, check_key(prefix.removesuffix("/"), "prefix")))

    def _path(self, key: str) -> Path:
        return self._root / join_key(self._prefix, check_key(key))

    def _stat(self, path: Path) -> os.stat_result | None:
        return atomic_files.stat_file(path) if self._is_inside(path) else None

    def _is_inside(self, path: Path) -> bool:
        """Whether there is no symbolic link between the root and ``path``, which need not exist."""
        below = os.path.relpath(path, self._root)
        return os.path.realpath(path) == os.path.normpath(Path(os.path.realpath(self._root)) / below)

    def _write_in_parent(self, path: Path, write: Callable[[], str]) -> str:
        """Make the directory and write; retried if another process pruned the directory in between."""
        for _ in range(_MAX_TRIES):
            with suppress(FileNotFoundError):
                self._make_parent(path)
                return write()
        self._make_parent(path)
        return write()

    def _create(self, path: Path, key: str, data: bytes) -> str:
        with atomic_files.temporary_file(path.parent, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError as there:
                if self._stat(path) is None:
                    raise IsADirectoryError(errno.EISDIR, "a directory or a link has this name") from there
                raise AlreadyExists(f"{self.url}/{key}", "no object yet", "an object") from there
            etag = atomic_files.etag_of(temporary.stat())
        atomic_files.flush_directory(path.parent)
        return etag

    def _replace(self, path: Path, key: str, data: bytes, etag: str) -> str:
        with atomic_files.lock_directory(path.parent):
            current = self._stat(path)
            if current is None or atomic_files.etag_of(current) != etag:
                got = f"version {atomic_files.etag_of(current)}" if current else "no object"
                raise Changed(f"{self.url}/{key}", f"version {etag}", got)
            return _overwrite(path, data, current)

    def _put(self, path: Path, data: bytes) -> str:
        with atomic_files.lock_directory(path.parent):
            return _overwrite(path, data, self._stat(path))

    def _make_parent(self, path: Path) -> None:
        self._refuse_links(path.parent)
        atomic_files.make_directories(path.parent)

    def _refuse_links(self, directory: Path) -> None:
        if directory.is_relative_to(self._root) and not self._is_inside(directory):
            raise OSError(errno.ELOOP, "a symbolic link in its path")

    @contextmanager
    def _open_object(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with self._translate_errors(key):
            if self._stat(path) is None:
                raise ObjectMissing(f"{self.url}/{key}", "an object", "nothing")
            try:
                file = path.open("rb")
            except atomic_files.ABSENT_ERRORS as absent:
                raise ObjectMissing(f"{self.url}/{key}", "an object", "nothing") from absent
            with file:
                yield file

    def _list_below(self, below: str, start: str) -> Iterator[ObjectInfo]:
        base = self._base / below
        with self._translate_errors(below):
            if self._is_inside(base):
                yield from atomic_files.list_objects(base, below, start)

    @contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as failed:
            where = f"{self.url}/{key}" if key else self.url
            got = failed.strerror or str(failed)
            if failed.errno in _PERMANENT_ERRNOS:
                hint = "check the path, its permissions, and that the file system has hard links"
                raise AccessDenied(where, "a directory that can be read and written", got, hint) from failed
            raise StoreUnavailable(where, "a disk that can be read and written", got) from failed


@final
class _OpenFile:
    """Reads parts of an open file, in any number of threads; the file is closed with the last reference to this."""

    def __init__(self, descriptor: int, where: str) -> None:
        self._descriptor, self._where = descriptor, where
        self._close = os.close  # the module may be gone when the interpreter ends

    def __call__(self, start: int, length: int) -> bytes:
        check_range(start, length)
        try:
            return os.pread(self._descriptor, length, start)
        except OSError as failed:
            got = failed.strerror or str(failed)
            raise StoreUnavailable(self._where, "a disk that can be read", got) from failed

    def __del__(self) -> None:
        self._close(self._descriptor)


def _overwrite(path: Path, data: bytes, replaced: os.stat_result | None) -> str:
    with atomic_files.temporary_file(path.parent, data, replaced) as temporary:
        etag = atomic_files.etag_of(temporary.stat())
        temporary.replace(path)
    atomic_files.flush_directory(path.parent)
    return etag
