"""Decoded pixels on disk: found again, never trusted when altered, bounded, shared between processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generator.errors import SourceError
from generator.sources import PixelCache, Source, cache, load_source
from generator.sources.base import fingerprint
from generator.sources.pixels import decode, storage
from generator.sources.pixels.storage import is_on_disk
from generator.spec.reading import Reading
from tests.support import source_forms as forms

PICTURES = forms.drawn(each=6)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return forms.as_folder(tmp_path / "pets", PICTURES)


@pytest.fixture
def kept(tmp_path: Path) -> PixelCache:
    return PixelCache(tmp_path / "cache", 2**20)


@pytest.fixture
def everything_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_IN_MEMORY", 0)


def load(root: Path | str, kept: PixelCache | None, **options: Any) -> Source:
    return load_source(str(root), **{"size": 16, "cache": kept, **options})


def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every decoding from now on."""
    counts: list[int] = []
    original = decode.decode_images

    def counted(encoded: Any, *args: Any, **options: Any) -> Any:
        counts.append(encoded.total)
        return original(encoded, *args, **options)

    monkeypatch.setattr("generator.sources.load.decode_images", counted)
    return counts


def pixel_files(kept: PixelCache) -> list[Path]:
    return sorted(path for path in (kept.directory / "pixels").iterdir() if path.suffix != ".npy")


def expect_same(found: Source, wanted: Source) -> None:
    assert found.fingerprint == wanted.fingerprint
    np.testing.assert_array_equal(found.images_NHWC, wanted.images_NHWC)
    np.testing.assert_array_equal(found.labels_N, wanted.labels_N)
    assert (found.class_names, found.skipped, found.facts, found.name) == (
        wanted.class_names,
        wanted.skipped,
        wanted.facts,
        wanted.name,
    )


def test_the_second_reading_decodes_nothing(root: Path, kept: PixelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "cat" / "bad.png").write_bytes(b"broken")
    (root / "notes.txt").write_text("text")
    wanted = load(root, None, skip_bad=True)
    counts = decodes(monkeypatch)
    expect_same(load(root, kept, skip_bad=True), wanted)
    expect_same(load(root, kept, skip_bad=True), wanted)
    assert counts == [19]
    load(root, kept, skip_bad=True, size=8)
    load(root, kept, skip_bad=True, channels=1)
    load(root, kept, skip_bad=True, reading=Reading(classes=("cat",)))
    assert len(counts) == 4
    with pytest.raises(SourceError, match=r"bad\.png"):
        load(root, kept)


def test_readings_that_give_the_same_share_what_is_kept(
    root: Path, kept: PixelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_source(str(root), cache=kept)
    side, channels, counts = first.size, first.images_NHWC.shape[3], decodes(monkeypatch)
    for options in ({"size": side}, {"size": side, "channels": channels}, {"channels": channels, "allow_empty": True}):
        again = load_source(str(root), cache=kept, **options)  # type: ignore[arg-type]
        assert (again.fingerprint, again.facts) == (first.fingerprint, first.facts)
    passing_over = {"skip_bad": True, "allow_empty": True}
    for options in (passing_over, {}, {"skip_bad": True}):
        load_source(str(root), cache=kept, **options)  # type: ignore[arg-type]
    assert counts == []
    (root / "empty").mkdir()
    (root / "cat" / "bad.png").write_bytes(b"broken")
    load_source(str(root), cache=kept, **passing_over)  # type: ignore[arg-type]
    for options, message in (({"skip_bad": True}, "empty"), ({"allow_empty": True}, r"bad\.png")):
        with pytest.raises(SourceError, match=message):
            load_source(str(root), cache=kept, **options)  # type: ignore[arg-type]
    (root / "cat" / "bad.png").unlink()
    (root / "empty").rmdir()
    counts.clear()
    for other in ({"size": 16}, {"channels": 4 - channels}, {"reading": Reading(resize="pad")}):
        load_source(str(root), cache=kept, **other)  # type: ignore[arg-type]
    assert len(counts) == 3


def test_large_sources_are_mapped(root: Path, kept: PixelCache, everything_on_disk: None) -> None:
    wanted = load(root, None)
    for _ in range(2):
        found = load(root, kept)
        expect_same(found, wanted)
        assert is_on_disk(found.images_NHWC)
        assert not found.images_NHWC.flags.writeable
    (root / "cat" / "bad.png").write_bytes(b"broken")
    expect_same(load(root, kept, skip_bad=True), load(root, None, skip_bad=True))


def test_copies_of_a_tree_share_their_pixels(root: Path, kept: PixelCache, tmp_path: Path) -> None:
    load(root, kept)
    copy = forms.copied(root, tmp_path / "copy")
    assert load(copy, kept).name == "copy"
    assert len(pixel_files(kept)) == 1


def test_a_file_that_changes_is_read_again(root: Path, kept: PixelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load(root, kept)
    path = root / "dog" / "002.png"
    facts = path.stat()
    path.write_bytes(PICTURES[0].data)  # of the same size
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    after = load(root, kept)
    assert after.fingerprint != before.fingerprint
    expect_same(after, load(root, None))
    (root / "fox" / "005.png").unlink()
    assert len(load(root, kept)) == 17


@pytest.mark.parametrize("damage", ["cut", "altered", "longer", "missing", "labels", "entry", "foreign"])
def test_damaged_files_are_never_used(root: Path, kept: PixelCache, everything_on_disk: None, damage: str) -> None:
    wanted = load(root, None)
    load(root, kept)
    (pixels,) = pixel_files(kept)
    entries = list((kept.directory / "entries").iterdir())
    labels = pixels.with_name(f"{pixels.name}.labels.npy")
    data = bytearray(pixels.read_bytes())
    if damage == "cut":
        os.truncate(pixels, len(data) // 2)
    elif damage == "altered":
        data[100] ^= 1
        pixels.write_bytes(bytes(data))
    elif damage == "longer":
        pixels.write_bytes(bytes(data) + b"x")
    elif damage == "missing":
        pixels.unlink()
    elif damage == "labels":
        np.save(labels, np.zeros(18, dtype=np.int64))
    elif damage == "entry":
        for entry in entries:
            entry.write_bytes(entry.read_bytes()[:-5])
    else:
        for entry in entries:
            entry.write_bytes(entry.read_bytes().replace(b"[18,16,16,3]", b"[9,32,16,3]"))
    for _ in range(2):
        expect_same(load(root, kept), wanted)


def test_touched_files_are_checked_and_used(root: Path, kept: PixelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root, kept)
    for path in (kept.directory / "pixels").iterdir():
        forms.age(path, 100)
    counts, hashed = decodes(monkeypatch), list[object]()
    monkeypatch.setattr(cache, "fingerprint", lambda *arrays: hashed.append(arrays) or fingerprint(*arrays))
    for _ in range(2):
        load(root, kept)
    assert counts == []
    assert len(hashed) == 1  # the marks were noted again


def test_the_least_recently_used_leave(root: Path, tmp_path: Path) -> None:
    one = 18 * 16 * 16 * 3
    kept = PixelCache(tmp_path / "cache", 2 * one)
    first = load(root, kept)
    time.sleep(0.02)
    second = load(root, kept, reading=Reading(resize="stretch"))
    time.sleep(0.02)
    load(root, kept)  # used again
    time.sleep(0.02)
    third = load(root, kept, reading=Reading(resize="pad"))
    names = {path.name for path in pixel_files(kept)}
    assert names == {source.fingerprint.removeprefix("sha256:") for source in (first, third)}
    assert second.fingerprint.removeprefix("sha256:") not in names
    assert sum(path.stat().st_size for path in pixel_files(kept)) <= 2 * one


def test_entries_and_leftovers_leave_too(root: Path, tmp_path: Path) -> None:
    kept = PixelCache(tmp_path / "cache", 18 * 16 * 16 * 3)
    for resize in ("crop", "pad", "stretch"):
        load(root, kept, reading=Reading(resize=resize))
    (kept.directory / "pixels" / ".999999999-dead").write_bytes(b"left behind")
    load(root, kept)
    (pixels,) = pixel_files(kept)
    for entry in (kept.directory / "entries").iterdir():
        assert pixels.name in entry.read_text()
    assert len(list((kept.directory / "pixels").iterdir())) == 2  # pixels and labels


def test_names_that_are_no_text(root: Path, kept: PixelCache) -> None:
    name = os.fsdecode(b"bad\xe9\x1b[31m.png")
    (root / "cat" / name).write_bytes(b"broken")
    for _ in range(2):
        source = load(root, kept, skip_bad=True)
        assert source.skipped[0].file.isprintable()


def test_a_source_that_does_not_fit_is_not_kept(root: Path, tmp_path: Path, everything_on_disk: None) -> None:
    kept = PixelCache(tmp_path / "cache", 100)
    expect_same(load(root, kept), load(root, None))
    assert pixel_files(kept) == []


def test_a_full_disk(root: Path, kept: PixelCache, everything_on_disk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "reserve", full)
    expect_same(load(root, kept), load(root, None))
    assert not list((kept.directory / "pixels").glob("*"))
    monkeypatch.setattr(storage, "available_memory", lambda: 0.0)
    monkeypatch.setattr(storage, "reserve", full)
    with pytest.raises(SourceError, match="No space left on device"):
        load(root, kept)


def test_a_directory_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    expect_same(load(root, PixelCache(blocked, 2**20)), load(root, None))


def test_nothing_is_left_of_a_reading_that_fails(root: Path, kept: PixelCache, everything_on_disk: None) -> None:
    (root / "fox" / "005.png").write_bytes(b"broken")
    with pytest.raises(SourceError):
        load(root, kept)
    assert list((kept.directory / "pixels").iterdir()) == []


def _read_in_child(root: str, directory: str, results: Any) -> None:
    counts: list[int] = []
    original = decode.decode_images

    def counted(encoded: Any, *args: Any, **options: Any) -> Any:
        counts.append(encoded.total)
        time.sleep(0.3)
        return original(encoded, *args, **options)

    from generator.sources import load as load_module

    load_module.decode_images = counted  # type: ignore[assignment]
    source = load_source(root, size=16, cache=PixelCache(Path(directory), 2**20))
    results.put((source.fingerprint, len(counts)))


def test_two_processes_at_once_decode_once(root: Path, kept: PixelCache) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [
        context.Process(target=_read_in_child, args=(str(root), str(kept.directory), results)) for _ in range(3)
    ]
    for child in children:
        child.start()
    found = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert {fingerprint for fingerprint, _ in found} == {load(root, None).fingerprint}
    assert sum(count for _, count in found) == 1


def test_deep_pixels_keep_their_scale(tmp_path: Path, kept: PixelCache) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    for name in "ab":
        Image.fromarray(np.full((16, 16), 4000, dtype=np.uint16)).save(root / f"{name}.png")
    for _ in range(2):
        assert load(root, kept).facts.reading.white == 4095
    shutil.rmtree(kept.directory)
    assert load(root, kept).facts.reading.white == 4095
