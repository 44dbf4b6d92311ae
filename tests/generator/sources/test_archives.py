"""Tar and zip archives, well-made and hostile."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.errors import SourceError
from generator.sources import Source, load_source
from generator.spec.reading import Reading
from tests.support import source_forms as forms
from tests.support.small_builds import SmallBuild

PICTURES = forms.drawn(("a", "b"))
PNG = PICTURES[0].data


def load(path: Path | str, **options: object) -> Source:
    return load_source(str(path), size=16, **options)  # type: ignore[arg-type]


def refusal(path: Path, **options: object) -> SourceError:
    with pytest.raises(SourceError) as refused:
        load(path, **options)
    return refused.value


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    return forms.write(path, forms.tar_bytes(members))


def samples(**beside: bytes) -> list[tuple[str, bytes]]:
    """Eight samples: an image and further files, whose ``%d`` become the number of the sample modulo 2."""
    return [
        member
        for number, picture in enumerate(PICTURES)
        for member in (
            (f"{number:03d}.png", picture.data),
            *(
                (f"{number:03d}.{name.replace('_', '.')}", text.replace(b"%d", b"%d" % (number % 2)))
                for name, text in beside.items()
            ),
        )
    ]


@pytest.mark.parametrize(
    ("beside", "label", "names"),
    [
        ({"cls": b"%d\n"}, None, ("0", "1")),
        ({"cls": b"%d", "json": b'{"class_name": "kind %d"}'}, None, ("kind 0", "kind 1")),
        ({"json": b'{"label": %d, "width": 20}'}, None, ("0", "1")),
        ({"json": b'{"breed": "x%d", "license": "cc"}'}, "breed", ("x0", "x1")),
        ({"txt": b"number %d"}, None, ("number 0", "number 1")),
        ({"cls": b"%d", "txt": b"a caption"}, "none", ()),
        ({}, None, ()),
    ],
)
def test_labels_beside_images(
    tmp_path: Path, beside: dict[str, bytes], label: str | None, names: tuple[str, ...]
) -> None:
    source = load(tar(tmp_path / "x.tar", samples(**beside)), reading=Reading(label=label))
    assert source.class_names == names
    if names:
        assert source.labels_N is not None
        assert source.labels_N.tolist() == [0, 1] * 4


def test_several_images_in_a_sample(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", samples(mask_png=PNG, cls=b"%d"))
    source = load(path)
    np.testing.assert_array_equal(source.images_NHWC[1], load(path, reading=Reading(image="png")).images_NHWC[1])
    masks = load(path, reading=Reading(image="mask.png")).images_NHWC
    assert (masks == masks[0]).all()
    both = tar(tmp_path / "y.tar", samples(jpg=PNG, cls=b"%d"))
    assert "--image" in refusal(both).hint
    assert len(load(both, reading=Reading(image="jpg"))) == 8


def test_samples_that_lack_a_label_are_not_guessed(tmp_path: Path) -> None:
    members = samples(cls=b"%d")
    del members[3]
    assert refusal(tar(tmp_path / "x.tar", members)).got == "1 samples without one"
    assert refusal(tar(tmp_path / "x.tar", [*members[:2], members[0], members[0]])).expected == (
        "every file of a sample once"
    )


def test_a_build_of_our_own(tmp_path: Path) -> None:
    small = SmallBuild()
    location, _ = small.commit(str(tmp_path))
    source = load_source(location.store.url)
    assert (source.facts.kind, source.facts.label_column) == ("webdataset", "cls")
    assert source.class_counts() == {"round": 7, "square": 6}
    np.testing.assert_array_equal(source.images_NHWC[3], small.pixels(3).reshape(8, 8, 1))


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "a\0b.png", "..\\evil.png"])
def test_names_that_lead_out_of_an_archive(tmp_path: Path, name: str) -> None:
    if "\0" not in name:
        path = tar(tmp_path / "x.tar", [*samples(), (name, PNG)])
        assert refusal(path).expected == "members whose names stay inside the archive"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", PNG)
        archive.writestr(zipfile.ZipInfo(name), PNG)
    data = stream.getvalue()
    if "\0" not in name:
        assert "members whose names" in refusal(forms.write(tmp_path / "x.zip", data)).expected


@pytest.mark.parametrize("damage", ["header", "cut at a header", "zeros between"])
def test_a_tar_that_ends_too_early(tmp_path: Path, damage: str) -> None:
    data = bytearray(forms.tar_bytes(samples(cls=b"%d")))
    at = data.index(b"004.png") - data.index(b"004.png") % 512
    if damage == "header":
        data[at + 148 : at + 156] = b"garbage!"
    elif damage == "cut at a header":
        del data[at:]
    else:
        data[at:at] = bytes(512)
    assert refusal(forms.write(tmp_path / "x.tar", bytes(data))).expected == "a tar archive"


def test_tars_of_class_folders(tmp_path: Path) -> None:
    members = [(f"{each.label}/{each.name}", each.data) for each in PICTURES]
    path = tar(tmp_path / "x" / "0.tar", [*members, ("README.txt", b"about"), ("classes.json", b"{}")])
    assert load(path).class_counts() == {"a": 4, "b": 4}
    tar(tmp_path / "x" / "1.tar", samples(cls=b"%d"))
    assert refusal(tmp_path / "x").expected == "tars of one form"
    table = "file_name,label\n" + "\n".join(f"{forms.flat_name(each)},{each.label}" for each in PICTURES)
    listed = [(forms.flat_name(each), each.data) for each in PICTURES]
    assert load(tar(tmp_path / "y.tar", [*listed, ("metadata.csv", table.encode())])).class_counts() == {"a": 4, "b": 4}


def test_the_order_and_the_names_of_a_zip(tmp_path: Path) -> None:
    wanted = load(forms.as_zip(tmp_path / "a.zip", PICTURES)).fingerprint
    assert load(forms.as_zip(tmp_path / "b.zip", PICTURES[::-1])).fingerprint == wanted
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for picture in PICTURES:
            archive.writestr(f"caf\u00e9 {picture.label}/{picture.name}", picture.data)
    data = bytearray((tmp_path / "c.zip").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        at = data.find(signature)
        while at >= 0:
            data[at + flags] &= ~0x08
            at = data.find(signature, at + 4)
    forms.write(tmp_path / "c.zip", bytes(data))
    assert load(tmp_path / "c.zip").class_names == ("caf\u00e9 a", "caf\u00e9 b")


def test_an_archive_left_beside_the_images(tmp_path: Path) -> None:
    root = forms.as_folder(tmp_path / "pets", forms.drawn(each=12))
    tar(root / "images.tar", samples())
    assert load(root).class_counts() == {"cat": 12, "dog": 12, "fox": 12}


def test_compressed_tars_are_named(tmp_path: Path) -> None:
    data = gzip.compress(forms.tar_bytes(samples()))
    for name in ("x.tar.gz", "x.tgz"):
        refused = refusal(forms.write(tmp_path / name, data))
        assert (refused.got, refused.hint) == ("a compressed one", "Decompress it first.")


def test_archives_in_archives_are_passed_over(tmp_path: Path) -> None:
    inner = forms.tar_bytes(samples())
    source = load(tar(tmp_path / "x.tar", [*samples(cls=b"%d"), ("inner.tar", inner), ("inner.zip", b"PK")]))
    assert len(source) == 8
    assert dict(source.facts.passed_over) == {".tar files": 1, ".zip files": 1}


def test_links_and_devices_in_archives(tmp_path: Path) -> None:
    stream = io.BytesIO(forms.tar_bytes(samples()))
    with tarfile.open(fileobj=stream, mode="a") as archive:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"link{number}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = load(forms.write(tmp_path / "x.tar", stream.getvalue()))
    assert (len(source), source.facts.passed_over) == (8, (("links and devices in archives", 4),))


def test_an_encrypted_zip_and_a_bomb(tmp_path: Path) -> None:
    path = forms.as_zip(tmp_path / "x.zip", PICTURES)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    assert refusal(forms.write(path, bytes(data))).expected == "files without a password"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(2):
            archive.writestr(f"{number}.png", PNG + bytes(2**20))  # an image, and a megabyte of zeros after its end
        archive.writestr("lies.png", PNG)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    refused = refusal(forms.write(path, bytes(data)))
    assert refused.field == "x.zip/lies.png"
    assert len(load(path, skip_bad=True)) == 2


def test_json_that_is_none(tmp_path: Path) -> None:
    assert "a JSON document" in refusal(tar(tmp_path / "x.tar", samples(json=b"{"))).expected
    deep = b"[" * 100_000
    assert refusal(tar(tmp_path / "x.tar", samples(json=deep))).field == "x.tar/000.json"
    assert load(tar(tmp_path / "x.tar", samples(json=json.dumps([1]).encode()))).labels_N is None


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_damaged_archives_give_a_source_or_a_source_error(tmp_path: Path, suffix: str) -> None:
    path = forms.as_tars(tmp_path, PICTURES, shards=1) / "00000.tar"
    whole = path.read_bytes() if suffix == "tar" else forms.as_zip(tmp_path / "x.zip", PICTURES).read_bytes()
    path = tmp_path / f"damaged.{suffix}"

    @settings(max_examples=80, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6),
        st.one_of(st.just(len(whole)), st.integers(0, len(whole))),
    )
    def check(changes: list[tuple[int, int]], length: int) -> None:
        content = bytearray(whole)
        for at, value in changes:
            content[at] = value
        path.write_bytes(bytes(content[:length]))
        try:
            assert load(path).size == (16, 16)
        except SourceError:
            return

    check()
