"""Atomic file operations: a crash, a full disk or a second writer never leaves a partial object."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG

from generator.store.base import ObjectInfo, is_segment

ABSENT_ERRORS = (FileNotFoundError, NotADirectoryError)  # NotADirectoryError: 'a/b' where 'a' is a file
_LOCK_NAME = ".lock"


def stat_file(path: Path) -> os.stat_result | None:
    """The ``lstat`` of a regular file; ``None`` for everything else, including links and directories."""
    try:
        facts = path.lstat()
    except ABSENT_ERRORS:
        return None
    return facts if S_ISREG(facts.st_mode) else None


def etag_of(facts: os.stat_result) -> str:
    """The version of a file: inode, modification time, size.

    Every version is a new file. Its time is set from the high-resolution clock, and later than that of the version it
    replaces (``temporary_file``), because the kernel's clock may not advance between two writes and inodes are reused.
    """
    return f"{facts.st_ino:x}-{facts.st_mtime_ns:x}-{facts.st_size:x}"


def info_of(key: str, facts: os.stat_result) -> ObjectInfo:
    """The object metadata of the file at ``key``."""
    modified = datetime.fromtimestamp(facts.st_mtime_ns / 1e9, UTC)
    return ObjectInfo(key, facts.st_size, etag_of(facts), modified)


@contextmanager
def temporary_file(directory: Path, data: bytes, replaced: os.stat_result | None = None) -> Iterator[Path]:
    """A hidden file with ``data``, flushed to disk, newer than ``replaced``; deleted at exit unless it was renamed."""
    path = directory / f".tmp-{secrets.token_hex(8)}"
    moment = max(time.time_ns(), replaced.st_mtime_ns + 1 if replaced else 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(path, "xb", opener=lambda name, _: os.open(name, flags, 0o666)) as file:
        try:
            file.write(data)
            file.flush()
            os.utime(file.fileno(), ns=(moment, moment))
            os.fsync(file.fileno())
            yield path
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """An exclusive lock among all threads and processes. The lock file is kept as long as its directory."""
    descriptor = _lock(directory / _LOCK_NAME)
    try:
        yield
    finally:
        _unlock(descriptor)


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(path.lstat(), os.fstat(descriptor)):
                return descriptor
        except ABSENT_ERRORS:  # the directory was removed, and perhaps made again, while we waited
            pass
        except BaseException:
            _unlock(descriptor)
            raise
        _unlock(descriptor)


def _unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child shares the lock, so closing alone would not release it
    os.close(descriptor)


def flush_directory(directory: Path) -> None:
    """Flush the entries of ``directory`` to disk, so that they survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(directory: Path) -> None:
    """Make ``directory`` and its missing parents, each flushed to disk in its parent."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        flush_directory(path.parent)


def prune_directories(directory: Path) -> bool:
    """Remove ``directory`` if it holds only empty directories and locks. Returns whether it is gone."""
    try:
        with os.scandir(directory) as found:
            entries = list(found)
        left = [
            each for each in entries if not (each.is_dir(follow_symlinks=False) and prune_directories(Path(each.path)))
        ]
        if any(each.name != _LOCK_NAME for each in left):
            return False
        with lock_directory(directory):
            if any(each.name != _LOCK_NAME for each in directory.iterdir()):
                return False
            (directory / _LOCK_NAME).unlink()
        directory.rmdir()
    except ABSENT_ERRORS:
        return True
    except OSError:  # another process has just written there
        return False
    return True


def list_objects(directory: Path, below: str = "", start: str = "") -> Iterator[ObjectInfo]:
    """The objects below ``directory`` whose path begins with ``start``; keys are ``below`` + path, ascending."""
    for entry in list_entries(directory):
        if not entry.name.startswith(start):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from list_objects(Path(entry.path), f"{below}{entry.name}/")
        elif facts := stat_file(Path(entry.path)):
            yield info_of(below + entry.name, facts)


def list_entries(directory: Path) -> list[os.DirEntry[str]]:
    """The entries of ``directory`` whose names are valid segments, in the order of keys: 'a-b' before 'a/b'."""
    try:
        with os.scandir(directory) as found:
            named = [(_sort_key(entry), entry) for entry in found if is_segment(entry.name)]
    except ABSENT_ERRORS:
        return []
    return [entry for _, entry in sorted(named, key=lambda pair: pair[0])]


def _sort_key(entry: os.DirEntry[str]) -> str:
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
