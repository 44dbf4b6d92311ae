"""The bytes of one file: on disk, in memory, or a part of a larger file."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, final

MAX_MEMBER_BYTES = 2**30  # of an image in an archive or an object store, which is read into memory


class Content(ABC):
    """Bytes that can be read any number of times, from any thread. Methods raise ``OSError`` or ``StoreError``."""

    __slots__ = ()

    @abstractmethod
    def open(self) -> BinaryIO:
        """A seekable stream from the first byte on; the caller closes it."""

    def head(self, length: int) -> bytes:
        """The first ``length`` bytes; fewer if there are fewer."""
        with self.open() as stream:
            return stream.read(length)

    def read(self) -> bytes:
        """All bytes."""
        with self.open() as stream:
            return stream.read()

    def part(self, start: int, length: int) -> Content:
        """``length`` bytes from ``start`` on."""
        return PartContent(self, start, length)

    def read_part(self, start: int, length: int) -> bytes:
        """``length`` bytes from ``start`` on; fewer at the end."""
        with self.open() as stream:
            stream.seek(start)
            return stream.read(length)


@final
@dataclass(frozen=True, slots=True)
class BytesContent(Content):
    """Bytes in memory."""

    data: bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@final
@dataclass(frozen=True, slots=True)
class FileContent(Content):
    """A regular file below ``root``; anything else (a pipe, a broken link) is an ``OSError``.

    In two parts because there may be millions of them: ``root`` is shared.
    """

    root: str
    relative: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.root, self.relative)

    def open(self) -> BinaryIO:
        path = self.path
        if not path.is_file():
            raise OSError("no regular file")  # reading a pipe would block
        return path.open("rb")

    def read_part(self, start: int, length: int) -> bytes:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, start)
        finally:
            os.close(descriptor)


@final
@dataclass(frozen=True, slots=True)
class PartContent(Content):
    """``length`` bytes of a larger content from ``start`` on."""

    whole: Content
    start: int
    length: int

    def open(self) -> BinaryIO:
        if self.length > MAX_MEMBER_BYTES:
            raise OSError(f"{self.length} bytes, more than {MAX_MEMBER_BYTES}")
        data = self.whole.read_part(self.start, self.length)
        if len(data) != self.length:
            raise OSError("the archive is cut short")
        return io.BytesIO(data)

    def head(self, length: int) -> bytes:
        return self.whole.read_part(self.start, min(length, self.length))


def file_content(path: Path) -> FileContent:
    """The content of one file."""
    return FileContent(str(path.parent), path.name)
