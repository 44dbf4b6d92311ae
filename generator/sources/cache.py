"""Decoded pixels on disk, so that the next command on the same source starts at once.

``pixels/<fingerprint>`` holds the pixels of one source, ``entries/<key>.json`` what else is known of it; several keys
(copies of a tree in other places) may name the same pixels. A key is the digest of what the files are (path, size,
times, inode; the version in an object store) and how they were read: a file that changes gives another key.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Annotated, Literal, final

import numpy as np
import PIL
from pydantic import Field

from generator.errors import SourceError
from generator.sources.base import SkippedImage, Source, SourceFacts, fingerprint
from generator.sources.files.file_set import FileSet
from generator.sources.pixels.decode import DecodeSettings
from generator.sources.pixels.storage import allocate_images, is_on_disk, reserve
from generator.spec.canonical import FrozenModel, canonical_json, digest_of, read_json, validate
from generator.spec.recipe import Digest

_IN_MEMORY = 2**26  # bytes; smaller sources are read into memory
_LOCKS = 256
_PIXELS, _ENTRIES, _LOCK_FILES = "pixels", "entries", "locks"
_MAX_ENTRY_BYTES = 2**28


class _FileMark(FrozenModel):
    """What a file was like when its content was known; another mark means that it must be checked again."""

    size: int
    modified: int  # nanoseconds
    inode: int


class _Entry(FrozenModel):
    kind: Literal["latentmill.source"] = "latentmill.source"
    version: Literal[1] = 1
    fingerprint: Digest
    shape: Annotated[tuple[int, ...], Field(min_length=4, max_length=4)]
    class_names: tuple[str, ...]
    labelled: bool
    skipped: tuple[tuple[str, str], ...]
    facts: SourceFacts
    pixels: _FileMark
    labels: _FileMark | None = None


@final
@dataclass(frozen=True)
class PixelCache:
    """A directory of at most ``limit`` bytes of pixels; the least recently used ones leave first."""

    directory: Path
    limit: int

    def find(self, key: str) -> Source | None:
        """The source that was kept under ``key``. Files that were cut short or altered are not used."""
        path = self.directory / _ENTRIES / f"{key}.json"
        try:
            entry = _read_entry(path)
            pixels = self.pixels_of(entry.fingerprint)
            labels_N = np.load(_labels_path(pixels), allow_pickle=False) if entry.labelled else None
            marks_hold = _mark(pixels) == entry.pixels and (
                not entry.labelled or _mark(_labels_path(pixels)) == entry.labels
            )
            if pixels.stat().st_size != prod(entry.shape):
                return None
            images_NHWC = _map(pixels, entry.shape)
        except (OSError, SourceError, ValueError, EOFError):
            return None
        if not marks_hold:  # such as after a copy of the source wrote the same pixels
            if fingerprint(images_NHWC, labels_N, entry.class_names) != entry.fingerprint:
                return None
            with suppress(OSError):
                marks = {"pixels": _mark(pixels), "labels": _mark(_labels_path(pixels)) if entry.labelled else None}
                self.write_entry(key, entry.model_copy(update=marks))
        _touch(pixels)
        skipped = tuple(SkippedImage(file, reason) for file, reason in entry.skipped)
        return Source(images_NHWC, labels_N, entry.class_names, entry.fingerprint, "", skipped, entry.facts)

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """Room for the pixels of a new source."""
        draft = Draft(self)
        try:
            yield draft
        finally:
            draft.discard()

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Other processes that read the same source wait until the first has decoded it."""
        path = self.directory / _LOCK_FILES / str(int(key[:8], 16) % _LOCKS)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError:  # no cache can be kept there
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def make_room(self, size: int) -> bool:
        """Remove the least recently used pixels until ``size`` bytes fit; ``False`` if they never would."""
        if size > self.limit:
            return False
        kept = []
        for path in (self.directory / _PIXELS).glob("[0-9a-f]*"):
            if path.suffix != ".npy":
                with suppress(OSError):
                    facts = path.stat()
                    kept.append((facts.st_atime_ns, path, facts.st_size))
        for path in (self.directory / _PIXELS).glob(".*"):
            if not _is_alive(path.name[1:].partition("-")[0]):  # of a process that was killed
                path.unlink(missing_ok=True)
        total = sum(each for _, _, each in kept)
        for _, path, each in sorted(kept):
            if total + size <= self.limit:
                break
            with suppress(OSError):
                path.unlink()
                _labels_path(path).unlink(missing_ok=True)
            total -= each
        self._remove_entries()
        return True

    def _remove_entries(self) -> None:
        """Entries whose pixels have left."""
        for path in (self.directory / _ENTRIES).glob("*.json"):
            with suppress(OSError, SourceError):
                if not self.pixels_of(_read_entry(path).fingerprint).exists():
                    path.unlink()

    def write_entry(self, key: str, entry: _Entry) -> None:
        """Write what is known of a source, atomically."""
        path = self.directory / _ENTRIES / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{key}-{secrets.token_hex(4)}")
        document = entry.canonical()
        temporary.write_bytes(digest_of(document).encode() + b"\n" + document)
        temporary.replace(path)

    def share_entry(self, key: str, others: Iterable[str]) -> None:
        """Let ``others`` find what is kept under ``key``, if anything is."""
        with suppress(OSError, SourceError):
            entry = _read_entry(self.directory / _ENTRIES / f"{key}.json")
            for other in others:
                if other != key:
                    self.write_entry(other, entry)

    def pixels_of(self, stated: str) -> Path:
        """Where the pixels of a fingerprint are kept."""
        return self.directory / _PIXELS / stated.removeprefix("sha256:")


@final
class Draft:
    """The pixels of one source while they are decoded: in memory, or in a file that becomes part of the cache."""

    def __init__(self, cache: PixelCache) -> None:
        self._cache = cache
        self._path = cache.directory / _PIXELS / f".{os.getpid()}-{secrets.token_hex(4)}"

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialised uint8 array. Where the cache has no room, as without one (``allocate_images``)."""
        size = prod(shape)
        if size <= _IN_MEMORY:
            return np.empty(shape, dtype=np.uint8)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._cache.make_room(size):
                return allocate_images(shape)
            with self._path.open("xb") as file:
                reserve(file.fileno(), size)
            return np.memmap(self._path, dtype=np.uint8, mode="r+", shape=shape)
        except OSError:
            self.discard()
            return allocate_images(shape)

    def keep(self, key: str, source: Source) -> Source:
        """``source`` as it is kept from now on; as it is, if there is no room for it."""
        pixels = self._cache.pixels_of(source.fingerprint)
        size = source.images_NHWC.nbytes
        try:
            pixels.parent.mkdir(parents=True, exist_ok=True)
            if not self._path.exists():
                if size > _IN_MEMORY or is_on_disk(source.images_NHWC) or not self._cache.make_room(size):
                    return source
                with self._path.open("xb") as file:
                    source.images_NHWC.tofile(file)
            os.truncate(self._path, size)
            if source.labels_N is not None:
                _write(_labels_path(self._path), source.labels_N)
                _labels_path(self._path).replace(_labels_path(pixels))
            self._path.replace(pixels)
            entry = _Entry(
                fingerprint=source.fingerprint,
                shape=source.images_NHWC.shape,
                class_names=source.class_names,
                labelled=source.labels_N is not None,
                skipped=tuple((each.file, each.reason) for each in source.skipped),
                facts=source.facts,
                pixels=_mark(pixels),
                labels=_mark(_labels_path(pixels)) if source.labels_N is not None else None,
            )
            self._cache.write_entry(key, entry)
            return replace(source, images_NHWC=_map(pixels, source.images_NHWC.shape))
        except OSError:
            return source

    def discard(self) -> None:
        """Remove what has not been kept."""
        for path in (self._path, _labels_path(self._path)):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def cache_key(found: FileSet, settings: DecodeSettings, split: str | None, *, allow_empty: bool) -> str:
    """64 hex digits that change with the files, with how they are read, and with the release of the decoders."""
    how = {
        "cache": 1,
        "pillow": PIL.__version__,
        "size": settings.size,
        "channels": settings.channels,
        "reading": settings.reading.model_dump(mode="json"),
        "skip_bad": settings.skip_bad,
        "rules": settings.rules,
        "split": split,
        "allow_empty": allow_empty,
        "single": found.single,
        "name": found.name,
        "folders": len(found.folders),
    }
    digest = hashlib.sha256(canonical_json(how))
    for file in found.files:
        digest.update(f"{file.path}\0{file.size}\0{file.version}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read_entry(path: Path) -> _Entry:
    """An entry as it was written. Raises ``SourceError`` for another one, ``OSError`` for none."""
    stated, _, document = path.read_bytes().partition(b"\n")
    if stated.decode(errors="replace") != digest_of(document):
        raise SourceError(path.name, "an entry as it was written", "an altered one")
    value = read_json(document, field=path.name, error=SourceError, limit=_MAX_ENTRY_BYTES)
    return validate(_Entry, value, field=path.name, error=SourceError)


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of a file: read if they are few, else mapped, so that they do not count as memory of the process."""
    if prod(shape) <= _IN_MEMORY:
        return np.fromfile(path, dtype=np.uint8).reshape(shape)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def _mark(path: Path) -> _FileMark:
    facts = path.stat()
    return _FileMark(size=facts.st_size, modified=facts.st_mtime_ns, inode=facts.st_ino)


def _touch(path: Path) -> None:
    """Note the use of a file, without a change of its mark."""
    with suppress(OSError):
        facts = path.stat()
        os.utime(path, ns=(time.time_ns(), facts.st_mtime_ns))


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:  # of another user
        return True
    return True


def _labels_path(pixels: Path) -> Path:
    return pixels.with_name(f"{pixels.name}.labels.npy")


def _write(path: Path, labels_N: np.ndarray) -> None:
    with path.open("xb") as file:
        np.save(file, labels_N)
