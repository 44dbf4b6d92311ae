"""The shard format: byte-identical to the standard library's ustar, and it round-trips."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.errors import IntegrityError
from generator.production.shards import Member, TarWriter, read_samples
from generator.production.shards.webdataset import ustar_header

keys = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=90)


@given(name=keys, size=st.integers(0, 8**11 - 1))
def test_header_is_the_standard_librarys(name: str, size: int) -> None:
    info = tarfile.TarInfo(f"{name}.png")
    info.size = size
    assert ustar_header(f"{name}.png", size) == info.tobuf(tarfile.USTAR_FORMAT)


@given(st.dictionaries(keys, st.tuples(st.binary(max_size=2000), st.binary(max_size=20)), max_size=8))
def test_round_trip(samples: dict[str, tuple[bytes, bytes]]) -> None:
    writer = TarWriter()
    for key, (image, label) in samples.items():
        writer.add(key, [Member("png", image), Member("cls", label)])
    found = dict(read_samples(writer.finish(), field="shard"))
    assert found == {key: {"png": image, "cls": label} for key, (image, label) in samples.items()}


def test_archive_is_whole_records_and_tarfile_reads_it() -> None:
    writer = TarWriter()
    writer.add("000000001", [Member("png", b"x" * 700)])
    data = writer.finish()
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (info,) = archive.getmembers()
        assert (info.name, info.size, info.mtime, info.uid, info.mode) == ("000000001.png", 700, 0, 0, 0o644)


@pytest.mark.parametrize("damage", [b"", b"no tar at all" * 100, b"\x80\x04K\x01."])
def test_what_is_no_archive_is_refused(damage: bytes) -> None:
    with pytest.raises(IntegrityError, match="shard"):
        list(read_samples(damage, field="shard"))
