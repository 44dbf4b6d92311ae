"""Files inside tar and zip archives, read in place: nothing is ever unpacked to a path.

Formats: POSIX.1-2001 (tar, also GNU's long names), PKWARE APPNOTE (zip, also 64-bit).
"""

from __future__ import annotations

import io
import stat
import tarfile
import threading
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast, final

from generator.errors import SourceError
from generator.sources.files.content import MAX_MEMBER_BYTES, Content
from generator.sources.files.directory import HIDDEN, JUNK
from generator.sources.files.file_set import FileSet, SourceFile, in_order
from generator.sources.files.junk import is_hidden, is_junk

TAR_SUFFIXES = frozenset({".tar"})
ZIP_SUFFIXES = frozenset({".zip"})
_MAX_NAME = 4096
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")


def is_compressed_tar(path: str) -> bool:
    """Whether a name is that of a compressed tar archive, which has no random access."""
    return path.lower().endswith(_COMPRESSED)


def list_tar(archive: SourceFile, where: str) -> FileSet:
    """The regular files of a tar archive, in its order. ``where``: its name in messages. Raises ``SourceError``."""
    found = FileSet(where, ())
    files: list[SourceFile] = []
    with (
        _reading(where, "a tar archive"),
        archive.content.open() as stream,
        tarfile.open(fileobj=stream, mode="r:") as tar,
    ):
        for member in tar:
            cast(Any, tar).members = []  # tarfile keeps all of them otherwise
            if not _is_wanted(member.name, member.isdir(), where, found):
                continue
            if not member.isreg():
                found.passed_over["links and devices in archives"] += 1
                continue
            if member.sparse is not None:
                raise SourceError(f"{where}/{member.name}", "a plain file", "a sparse one")
            part = archive.content.part(member.offset_data, member.size)
            files.append(SourceFile(_clean(member.name), member.size, archive.version, part))
        _check_end(stream, cast(Any, tar).offset, where)
    return FileSet(where, tuple(files), passed_over=found.passed_over)


def list_zip(archive: SourceFile, where: str) -> FileSet:
    """The files of a zip archive, in the order of their names. ``where``: its name in messages.

    Raises ``SourceError``.
    """
    found = FileSet(where, ())
    files: list[SourceFile] = []
    with _reading(where, "a zip archive"):
        reader = _ZipReader(archive.content)
        for member in reader.members():
            name = _member_name(member)
            if not _is_wanted(name, member.is_dir(), where, found):
                continue
            if member.flag_bits & 1:
                raise SourceError(f"{where}/{member.filename}", "files without a password", "an encrypted one")
            if stat.S_ISLNK(member.external_attr >> 16):
                found.passed_over["links and devices in archives"] += 1
                continue
            content = _ZipMember(reader, member, where)
            files.append(SourceFile(_clean(name), member.file_size, archive.version, content))
    return FileSet(where, in_order(files), passed_over=found.passed_over)


@final
class _ZipReader:
    """A zip archive that is open as long as one of its members is wanted; members are read by one thread at a time."""

    def __init__(self, content: Content) -> None:
        self._content, self._lock = content, threading.Lock()
        self._zip: zipfile.ZipFile | None = None

    def members(self) -> list[zipfile.ZipInfo]:
        with self._lock:
            return self._opened().infolist()

    def read(self, member: zipfile.ZipInfo) -> bytes:
        with self._lock, self._opened().open(member) as stream:
            return stream.read(member.file_size)

    def head(self, member: zipfile.ZipInfo, length: int) -> bytes:
        with self._lock, self._opened().open(member) as stream:
            return stream.read(length)

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None:
            stream = self._content.open()
            weakref.finalize(self, stream.close)
            self._zip = zipfile.ZipFile(cast(Any, stream))
        return self._zip


@final
@dataclass(frozen=True)
class _ZipMember(Content):
    reader: _ZipReader
    member: zipfile.ZipInfo
    where: str

    def open(self) -> BinaryIO:
        if self.member.file_size > MAX_MEMBER_BYTES:
            expected = f"files of at most {MAX_MEMBER_BYTES} bytes"
            raise SourceError(f"{self.where}/{self.member.filename}", expected, f"{self.member.file_size} bytes")
        try:
            data = self.reader.read(self.member)
        except Exception as error:  # on damaged bytes, zipfile and its decompressors raise exceptions of any type
            raise OSError(f"the archive does not read ({error})") from error
        return io.BytesIO(data)

    def head(self, length: int) -> bytes:
        try:
            return self.reader.head(self.member, length)
        except Exception as error:  # as in ``open``
            raise OSError(f"the archive does not read ({error})") from error


def _check_end(stream: BinaryIO, place: int, where: str) -> None:
    """``SourceError`` unless an archive ends in blocks of zeros: tarfile takes a damaged header for its end."""
    stream.seek(place)
    zeros = 0
    while part := stream.read(2**20):
        if part.strip(b"\0"):
            raise SourceError(where, "a tar archive", f"one that is damaged after byte {place}")
        zeros += len(part)
    if zeros < tarfile.BLOCKSIZE:
        raise SourceError(where, "a tar archive", "one that is cut short")


def _member_name(member: zipfile.ZipInfo) -> str:
    """The name of a member. Without the mark of UTF-8, zipfile takes its bytes for cp437; many tools write UTF-8."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename


def _is_wanted(name: str, folder: bool, where: str, found: FileSet) -> bool:
    """Whether a member is a visible file. Raises ``SourceError`` for a name that leads out of the archive."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith("/") or ".." in parts or "\0" in name or len(name) > _MAX_NAME:
        raise SourceError(where, "members whose names stay inside the archive", repr(name[:120]))
    if folder or not parts:
        return False
    if any(is_junk(part, folder=True) for part in parts[:-1]) or is_junk(parts[-1], folder=False):
        found.passed_over[JUNK] += 1
        return False
    if any(is_hidden(part) for part in parts):
        found.passed_over[HIDDEN] += 1
        return False
    return True


def _clean(name: str) -> str:
    return "/".join(PurePosixPath(name.replace("\\", "/")).parts)


@contextmanager
def _reading(where: str, what: str) -> Iterator[None]:
    """Errors of damaged archives as ``SourceError``."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # on damaged bytes, tarfile and zipfile raise exceptions of any type
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(where, what, f"one that does not open ({reason})") from error
