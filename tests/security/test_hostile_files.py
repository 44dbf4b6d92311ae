"""Malicious archives, tables and images: each is refused."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.errors import (
    IntegrityError,
    LatentmillError,
)
from generator.production.images import decode_image
from generator.production.provenance.manifest import ListedManifest, StoredFile
from generator.production.provenance.sample_table import read_rows
from generator.production.shards import read_samples
from generator.spec.canonical import digest_of
from tests.support.hostile_inputs import committed_build, zip_of


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, **facts: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


def _size_that_lies(size: bytes) -> bytes:
    """A tar header with another size and a matching checksum."""
    data = bytearray(_tar((_member("000000000.png"), b"x")))
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def _sparse() -> bytes:
    """One byte of data that expands to a terabyte of zeros (GNU sparse format 1.0)."""
    facts = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(2**40),
        "GNU.sparse.name": "0.png",
    }
    body = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    return _tar((_member("0.png", pax_headers=facts), body), form=tarfile.PAX_FORMAT)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "nothing but zeros in between": lambda: bytes(1024) + b"x",
    "a name that climbs": lambda: _tar((_member("../../escaped.png"), b"x")),
    "an absolute name": lambda: _tar((_member("/escaped.png"), b"x")),
    "a symbolic link": lambda: _tar((_member("0.png", tarfile.SYMTYPE, linkname="/etc/passwd"), b"")),
    "a hard link": lambda: _tar((_member("0.png"), b"x"), (_member("1.png", tarfile.LNKTYPE, linkname="0.png"), b"")),
    "a device": lambda: _tar((_member("0.png", tarfile.CHRTYPE), b"")),
    "a directory": lambda: _tar((_member("0.png", tarfile.DIRTYPE), b"")),
    "a sparse file of a terabyte": _sparse,
    "a size beyond the archive": lambda: _size_that_lies(b"77777777777\0"),
    "a size below zero": lambda: _size_that_lies(b"\xff" * 12),
    "a file twice in a sample": lambda: _tar((_member("0.png"), b"x"), (_member("0.png"), b"y")),
    "a long name by extension": lambda: _tar((_member("0" * 300 + ".png"), b"x"), form=tarfile.GNU_FORMAT),
    "a header of one's own": lambda: _tar(
        (_member("0.png", pax_headers={"path": "../x"}), b"x"), form=tarfile.PAX_FORMAT
    ),
    "a compressed archive": lambda: gzip.compress(_tar((_member("0.png"), b"x"))),
    "a zip archive": lambda: zip_of("0.png"),
    "a cut archive": lambda: _tar((_member("0.png"), b"x" * 2000))[:1500],
    "a name that is no text": lambda: _tar((_member("0.png"), b"x")).replace(b"0.png", b"\xff.png", 1),
}


@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_archives(make: Callable[[], bytes]) -> None:
    """Each archive is put into a build with matching digests: ``verify`` reports it, a reader refuses it."""
    data, location = make(), committed_build()
    key = "shards/small-000000.tar"
    manifest = ListedManifest.model_validate_json(location.store.get("manifest.json"))
    file = StoredFile(key=key, digest=digest_of(data), size=len(data))
    first = manifest.shards[0].model_copy(update={"shard": file})
    location.store.put(key, data)
    location.store.put(
        "manifest.json", manifest.model_copy(update={"shards": (first, *manifest.shards[1:])}).canonical()
    )
    assert key in {problem.where for problem in verify_dataset(location.url, deep=True).problems}
    with pytest.raises(LatentmillError):
        list(open_dataset(location.url))
    with pytest.raises(IntegrityError):
        list(read_samples(data, field=key))


def _table(rows: int, **columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns or {"index": pa.array(np.zeros(rows, dtype=np.int64))}), out, compression="zstd")
    return out.getvalue()


TABLES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no table": lambda: b"PAR1" + b"x" * 100 + b"PAR1",
    "a footer longer than the file": lambda: b"PAR1" + struct.pack("<I", 2**31 - 1) + b"PAR1",
    "a cut table": lambda: _table(100)[:-20],
    "a million rows in a few bytes": lambda: _table(1_000_000),
    "one text of 16 megabytes in a few bytes": lambda: _table(1, index=pa.array(["x" * 2**24])),
    "a pickle": lambda: pickle.dumps([1, 2]),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES.keys())
def test_tables(make: Callable[[], bytes]) -> None:
    with pytest.raises(IntegrityError):
        read_rows(make(), field="table")


def _png(width: int, height: int, *more: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in more) + body


IMAGES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "an image of 40 gigabytes in a few bytes": lambda: _png(200_000, 200_000),
    "an image of 100 megabytes in a few bytes": lambda: _png(10_000, 10_000),
    "no width": lambda: _png(0, 8),
    "a width of 2**31": lambda: _png(2**31, 1),
    "a text of many megabytes": lambda: _png(8, 8, (b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8), 9))),
    "another format": lambda: b"GIF89a" + bytes(100),
    "a vector image": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a PostScript program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "half a JPEG": lambda: b"\xff\xd8\xff\xe0\x00\x10JFIF",
}


@pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES.keys())
def test_images(make: Callable[[], bytes]) -> None:
    with pytest.raises(IntegrityError):
        decode_image(make(), field="image")
