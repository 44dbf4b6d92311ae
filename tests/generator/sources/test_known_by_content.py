"""Images are known by their ending or by their first bytes; what is not read is counted, and pointers are named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from generator.errors import SourceError
from generator.sources import load_source
from tests.support import source_forms as forms

PICTURES = forms.drawn(("cat", "dog"))
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return forms.as_folder(tmp_path / "pets", PICTURES)


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(PICTURES[0].data)).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("5f3a9c", "PNG"),
        ("photo.jpg?w=640&fit=crop", "JPEG"),
        ("photo.image", "JPEG"),
        ("scan.tga", "TGA"),
        ("SCAN.TGA", "TGA"),
        ("2024.05.01", "WEBP"),
        ("picture.JPEG", "JPEG"),
        ("wrong.png", "GIF"),
        ("x" * 251 + ".png", "PNG"),
    ],
)
def test_images_under_any_name(root: Path, name: str, kind: str) -> None:
    forms.write(root / "cat" / name, encoded(kind))
    assert load_source(str(root), size=16).class_counts() == {"cat": 5, "dog": 4}


def test_what_is_not_read_is_counted_by_kind(root: Path) -> None:
    before = load_source(str(root), size=16).fingerprint
    others = {
        "cat/a.jxl": b"\xff\x0a",
        "cat/b.svg": b"<svg/>",
        "dog/c.svg": b"<svg/>",
        "dog/clip.mp4": b"\0\0\0\x18ftypmp42",
        "notes.txt": b"text",
        "cat/raw.CR2": b"II*\0",
        "cat/photo.dvc": b"outs:",
        "dog/strange": b"no image at all",
    }
    for name, data in others.items():
        forms.write(root / name, data)
    source = load_source(str(root), size=16)
    assert source.fingerprint == before
    assert dict(source.facts.passed_over) == {
        "SVG drawings (.svg)": 2,
        "JPEG XL images (.jxl)": 1,
        "videos (.mp4)": 1,
        ".txt files": 1,
        "raw photographs (.cr2)": 1,
        "DVC pointers (.dvc)": 1,
        "files without an ending": 1,
    }


def test_git_lfs_pointers_are_named(root: Path, tmp_path: Path) -> None:
    forms.write(root / "cat" / "001.png", POINTER)
    with pytest.raises(SourceError) as refused:
        load_source(str(root))
    assert (refused.value.field, refused.value.got) == ("pets/cat/001.png", "a Git LFS pointer")
    assert "git lfs pull" in refused.value.hint
    for name in ("train.parquet", "shard.tar", "images.zip", "set.npz"):
        path = forms.write(tmp_path / "pointers" / name, POINTER)
        with pytest.raises(SourceError, match="Git LFS pointer"):
            load_source(str(path))


def test_junk_of_systems_is_passed_over(root: Path) -> None:
    before = load_source(str(root), size=16).fingerprint
    junk = [
        "__MACOSX/cat/._001.png",
        "cat/@eaDir/001.png/SYNOFILE_THUMB.png",
        "cat/Thumbs.db",
        "dog/desktop.ini",
        ".DS_Store",
        "cat/.ipynb_checkpoints/001.png",
        "$RECYCLE.BIN/x.png",
        "lost+found/x.png",
    ]
    for name in junk:
        forms.write(root / name, PICTURES[0].data)
    source = load_source(str(root), size=16)
    assert source.fingerprint == before
    assert dict(source.facts.passed_over) == {"system files": 6, "hidden files": 2}


def test_folders_without_images(root: Path) -> None:
    (root / "fish").mkdir()
    forms.write(root / "docs" / "about.txt", "text")
    with pytest.raises(SourceError) as refused:
        load_source(str(root))
    assert refused.value.field in ("pets/docs", "pets/fish")
    assert "--allow-empty" in refused.value.hint
    source = load_source(str(root), size=16, allow_empty=True)
    assert source.class_names == ("cat", "dog")
    assert ("folders without images", 2) in source.facts.passed_over


def test_links_out_of_the_source(root: Path, tmp_path: Path) -> None:
    """As in the cache of Hugging Face and in DVC: files and folders are links to a store of blobs."""
    blob = forms.write(tmp_path / "blobs" / "0a1b2c", PICTURES[0].data)
    (root / "cat" / "linked.png").symlink_to(blob)
    forms.as_folder(tmp_path / "elsewhere", forms.drawn(("fox",)))
    (root / "fox").symlink_to(tmp_path / "elsewhere" / "fox")
    with pytest.raises(SourceError) as refused:
        load_source(str(root))
    assert "--follow-links" in refused.value.hint
    followed = load_source(str(root), size=16, follow_links=True)
    assert followed.class_counts() == {"cat": 5, "dog": 4, "fox": 4}
    (root / "fox").unlink()
    (root / "again").symlink_to(root)
    with pytest.raises(SourceError, match="a link to a folder above it"):
        load_source(str(root), follow_links=True)


def test_long_texts_and_profiles(root: Path) -> None:
    """Pillow refuses more than a mebibyte of either in a PNG."""
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a" * 3_000_000, zip=True)
    text.add_itxt("workflow", "b" * 2_000_000, zip=True)
    forms.write(root / "cat" / "text.png", encoded("PNG", pnginfo=text))
    forms.write(root / "cat" / "profile.png", encoded("PNG", icc_profile=b"\0" * 3_000_000))
    forms.write(root / "cat" / "profile.jpg", encoded("JPEG", icc_profile=b"\0" * 3_000_000))
    assert load_source(str(root), size=16).class_counts()["cat"] == 7


@pytest.mark.slow
def test_a_hundred_megapixels(tmp_path: Path) -> None:
    """JPEG at a reduced scale: the colours of its quarters stay, and memory is bounded by the scale."""
    large = Image.new("RGB", (12_000, 9_000), (200, 40, 40))
    large.paste((40, 40, 200), (0, 0, 6_000, 4_500))
    large.save(tmp_path / "a.jpg", quality=85)
    large.resize((1200, 900)).save(tmp_path / "b.jpg", quality=95)
    del large
    images_NHWC = load_source(str(tmp_path), size=(64, 48)).images_NHWC.astype(int)
    assert abs(images_NHWC[0] - images_NHWC[1]).max() <= 6
    assert load_source(str(tmp_path)).facts.sizes[0][2] == 1
