"""WebDataset shards: ustar archives in which the files of one sample share a key and follow each other.

Format: https://github.com/webdataset/webdataset, "The WebDataset Format"; POSIX.1-1988 ustar headers with fixed
metadata (mode 0644, owner 0, time 0), so equal samples give equal bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from generator.errors import IntegrityError

_BLOCK = tarfile.BLOCKSIZE
_RECORD = tarfile.RECORDSIZE
_TEMPLATE = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)  # fields of a ustar header
_FIXED_SUM = sum(_TEMPLATE) - sum(_TEMPLATE[_SIZE]) - sum(_TEMPLATE[_CHECKSUM]) + 8 * ord(" ")


@dataclass(frozen=True)
class Member:
    """One file of a sample: ``<key>.<extension>``."""

    extension: str
    data: bytes


class TarWriter:
    """Collects samples in memory; ``finish`` gives the whole archive. Memory is bounded by the shard."""

    def __init__(self) -> None:
        self._out = bytearray()

    def add(self, key: str, members: list[Member]) -> None:
        """Append one sample; ``key`` is ASCII, at most 90 characters, without a dot or slash."""
        for member in members:
            self._out += ustar_header(f"{key}.{member.extension}", len(member.data))
            self._out += member.data
            self._out += bytes(-len(member.data) % _BLOCK)

    def finish(self) -> bytes:
        """The archive: two zero blocks, then padding to a whole record."""
        self._out += bytes(2 * _BLOCK)
        self._out += bytes(-len(self._out) % _RECORD)
        return bytes(self._out)


def ustar_header(name: str, size: int) -> bytes:
    """512 bytes, equal to what ``tarfile`` writes for a plain ``name`` (up to 100 ASCII characters), much sooner."""
    name_field, size_field = name.encode("ascii").ljust(100, b"\0"), b"%011o\0" % size
    assert (len(name_field), len(size_field)) == (100, 12)
    header = bytearray(_TEMPLATE)
    header[_NAME], header[_SIZE] = name_field, size_field
    header[_CHECKSUM] = b"%06o\0 " % (_FIXED_SUM + sum(name_field) + sum(size_field))
    return bytes(header)


def read_samples(data: bytes, *, field: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of one archive as (key, {extension: bytes}), in order. Raises ``IntegrityError`` naming ``field``."""
    key, files = "", dict[str, bytes]()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for info in archive:
                stem, _, extension = info.name.partition(".")
                if stem != key and files:
                    yield key, files
                    files = {}
                handle = archive.extractfile(info)
                if handle is None:
                    raise IntegrityError(field, "regular files only", f"{info.name!r}, which is none")
                key, files[extension] = stem, handle.read()
    except tarfile.TarError as broken:
        raise IntegrityError(field, "a tar archive", f"bytes that do not parse ({broken})") from broken
    if files:
        yield key, files
