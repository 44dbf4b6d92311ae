"""WebDataset shards: ustar archives in which the files of one sample share a key and follow each other.

Format: https://github.com/webdataset/webdataset, "The WebDataset Format"; POSIX.1-1988 ustar headers with fixed
metadata (mode 0644, owner 0, time 0), so equal samples give equal bytes.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from typing import final

import numpy as np

from generator.errors import IntegrityError
from generator.production.shards.base import ContiguousFormat, Files, FinishedArchive, Member, PackedSample, ShardWriter

_BLOCK = tarfile.BLOCKSIZE
_NAME_BYTES = 100
_RECORD = tarfile.RECORDSIZE
_TEMPLATE = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)  # fields of a ustar header; the name comes first, 100 bytes
_MEMBER_NAME = re.compile(rb"([0-9A-Za-z_-]{1,90}\.[0-9A-Za-z.]{1,9})\0")
_OCTAL_SIZE = re.compile(rb"([0-7]{11})\0")
_MODE_AND_OWNER, _MTIME, _TAIL = _TEMPLATE[100:124], _TEMPLATE[136:148], _TEMPLATE[156:]
_PADDING = [bytes(-size % _BLOCK) for size in range(_BLOCK)]
_FIXED_CHECKSUM = sum(_TEMPLATE) - sum(_TEMPLATE[_SIZE]) - sum(_TEMPLATE[_CHECKSUM]) + 8 * ord(" ")


class TarWriter:
    """Collects samples in memory; ``finish`` returns the archive. It needs twice the memory of the shard at its end."""

    def __init__(self) -> None:
        self._blocks, self._size = list[bytes](), 0

    def add(self, key: str, members: list[Member]) -> None:
        """Append one sample; ``key`` is ASCII, at most 90 characters, without a dot or slash."""
        self.append_block(sample_block(key, members))

    def append_block(self, block: bytes) -> int:
        """Append one sample in the form that ``sample_block`` returns. Returns where in the archive it begins."""
        begin = self._size
        self._blocks.append(block)
        self._size += len(block)
        return begin

    def finish(self) -> bytes:
        """The archive, ended by two zero blocks and padded to a whole record. Must be called only once."""
        size = self._size + 2 * _BLOCK
        self.append_block(bytes(2 * _BLOCK + -size % _RECORD))
        blocks, self._blocks = self._blocks, []
        return b"".join(blocks)


@final
class WebdatasetWriter(ShardWriter):
    """A ``TarWriter`` that notes where the image files lie."""

    def __init__(self) -> None:
        self._tar, self._offsets, self._sizes = TarWriter(), list[int](), list[int]()

    def append(self, sample: PackedSample) -> None:
        self._offsets.append(self._tar.append_block(sample.block) + sample.offset)
        self._sizes.append(sample.size)

    def finish(self) -> FinishedArchive:
        data = self._tar.finish()
        offsets_N, sizes_N = np.array(self._offsets, np.int64), np.array(self._sizes, np.int64)
        return FinishedArchive(data, hashlib.sha256(data).hexdigest(), offsets_N, sizes_N)


@final
class WebdatasetFormat(ContiguousFormat):
    """Tars in which each sample has its files one after another, the image first."""

    media_type = "application/x-tar"
    lead = _BLOCK  # the header before the image

    def pack(self, key: str, members: list[Member]) -> PackedSample:
        return PackedSample(key, sample_block(key, members), _BLOCK, len(members[0].data))

    def writer(self) -> ShardWriter:
        return WebdatasetWriter()

    def read_samples(self, data: bytes, *, field: str) -> Iterator[tuple[str, Files]]:
        return read_samples(data, field=field)

    def read_sample(self, block: bytes, *, field: str) -> tuple[str, Files]:
        return read_sample(block, field=field)


def sample_block(key: str, members: list[Member]) -> bytes:
    """The archive bytes of one sample: each member after its header, padded to whole blocks."""
    stem = key.encode("ascii") + b"."
    stem_sum, parts = sum(stem), list[bytes]()
    for member in members:
        data = member.data
        parts += _header(stem, stem_sum, member.extension, len(data))
        parts += data, _PADDING[len(data) % _BLOCK]
    return b"".join(parts)


def ustar_header(name: str, size: int) -> bytes:
    """The 512 bytes that ``tarfile`` writes for ``name`` (at most 100 ASCII characters), but faster."""
    stem, dot, rest = name.partition(".")
    plain = (stem + dot).encode("ascii")
    return b"".join(_header(plain, sum(plain), rest, size))


def _header(stem: bytes, stem_sum: int, rest: str, size: int) -> tuple[bytes, ...]:
    """The parts of a header of the file ``stem`` + ``rest``; ``stem_sum``: the sum of the bytes of ``stem``."""
    ending, ending_sum = _ending(rest)
    fields, fields_sum = _fields_around_size(size)
    name = (stem + ending).ljust(_NAME_BYTES, b"\0")
    assert len(name) == _NAME_BYTES
    return name, fields, b"%06o\0 " % (_FIXED_CHECKSUM + stem_sum + ending_sum + fields_sum), _TAIL


@lru_cache(maxsize=1024)
def _ending(rest: str) -> tuple[bytes, int]:
    ending = rest.encode("ascii")
    return ending, sum(ending)


@lru_cache(maxsize=65_536)
def _fields_around_size(size: int) -> tuple[bytes, int]:
    """The fields from the mode to the time, and the sum of the bytes that depend on ``size``."""
    size_field = b"%011o\0" % size
    assert len(size_field) == 12
    return _MODE_AND_OWNER + size_field + _MTIME, sum(size_field)


def read_samples(data: bytes, *, field: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of one archive as (key, {extension: bytes}), in order. Raises ``IntegrityError`` naming ``field``.

    Only archives as ``TarWriter`` writes them are read: no links, no extended headers, no paths in names.
    """
    key, files = "", dict[str, bytes]()
    for stem, extension, content in _read_members(data, field):
        if stem != key and files:
            yield key, files
            files = {}
        if extension in files:
            raise IntegrityError(field, "each file of a sample once", f"{stem}.{extension} a second time")
        key, files[extension] = stem, content
    if files:
        yield key, files


def sample_places(data: bytes, *, field: str) -> list[tuple[int, int]]:
    """Where each sample of an archive begins and ends, in bytes, in order.

    Raises ``IntegrityError`` naming ``field``.
    """
    places: list[tuple[int, int]] = []
    key = ""
    for place, end, stem, _, _ in _members(data, field):
        if stem == key and places:
            places[-1] = places[-1][0], end
        else:
            places.append((place, end))
        key = stem
    return places


def read_sample(block: bytes, *, field: str) -> tuple[str, dict[str, bytes]]:
    """Key and files of one sample, from its bytes in the archive; zero blocks may follow.

    Raises ``IntegrityError`` naming ``field`` if the bytes are not those of one sample.
    """
    key, files = "", dict[str, bytes]()
    for _, _, stem, extension, content in _members(block, field):
        if files and stem != key:
            raise IntegrityError(field, f"the files of sample {key}", f"also a file of {stem}")
        if extension in files:
            raise IntegrityError(field, "each file of a sample once", f"{stem}.{extension} a second time")
        key, files[extension] = stem, content
    if not files:
        raise IntegrityError(field, "the files of a sample", "none")
    return key, files


def file_places(data: bytes, *, field: str) -> list[tuple[str, str, int, int]]:
    """Key, extension, offset of the content and size of every file of an archive. Raises ``IntegrityError``."""
    return [
        (stem, extension, place + _BLOCK, len(content)) for place, _, stem, extension, content in _members(data, field)
    ]


def dali_index(data: bytes, *, field: str) -> bytes:
    """The index of an archive for NVIDIA DALI, as its ``wds2idx`` writes it (version 1.2).

    One line for each sample: extension, offset of the content, size and name of each file. Raises ``IntegrityError``.
    """
    lines, key = list[list[str]](), ""
    for stem, extension, offset, size in file_places(data, field=field):
        part = f"{extension} {offset} {size} {stem}.{extension}"
        if stem == key and lines:
            lines[-1].append(part)
        else:
            lines.append([part])
        key = stem
    return "".join(f"{line}\n" for line in (f"v1.2 {len(lines)}", *map(" ".join, lines))).encode()


def _read_members(data: bytes, field: str) -> Iterator[tuple[str, str, bytes]]:
    place = 0
    for _, place, stem, extension, content in _members(data, field):  # noqa: B007 - the last place is used
        yield stem, extension, content
    if len(data) - place < 2 * _BLOCK or data[place:].strip(b"\0"):
        raise IntegrityError(field, "a tar archive that ends in blocks of zeros", "other bytes at its end")


def _members(data: bytes, field: str) -> Iterator[tuple[int, int, str, str, bytes]]:
    """Begin, end (of the padding), stem, extension and content of each file, up to a block of zeros or the end."""
    place = 0
    while data[place : place + _BLOCK].strip(b"\0"):
        name, size = _parse_header(data[place : place + _BLOCK], field, place)
        content = place + _BLOCK
        if content + size > len(data):
            raise IntegrityError(field, f"a tar archive of {content + size} bytes or more", f"{len(data)} bytes")
        stem, _, extension = name.partition(".")
        end = content + size + -size % _BLOCK
        yield place, end, stem, extension, data[content : content + size]
        place = end


def _parse_header(header: bytes, field: str, place: int) -> tuple[str, int]:
    """Name and size of a header that must equal, byte for byte, one that ``ustar_header`` writes."""
    name = _MEMBER_NAME.match(header)
    size = _OCTAL_SIZE.fullmatch(header[_SIZE])
    if name is None or size is None or header != ustar_header(name[1].decode(), int(size[1], 8)):
        got = f"bytes that do not parse (in the header at byte {place}: {header[:40]!r})"
        raise IntegrityError(field, "a tar archive of plain files", got)
    return name[1].decode(), int(size[1], 8)
