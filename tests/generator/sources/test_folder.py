"""Class-folder trees: images that are loaded, refused, and skipped."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator.errors import SourceError
from generator.sources import load_source


def picture(path: Path, seed: int = 0, *, size: tuple[int, int] = (16, 12), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two cats and three dogs, in five sizes."""
    root = tmp_path / "pets"
    for seed, name in enumerate(["cat/b.png", "cat/a.jpg", "dog/1.png", "dog/2.webp", "dog/10.bmp"]):
        picture(root / name, seed, size=(20 + 7 * seed, 40 - 5 * seed))
    return root


def test_classes_and_files_come_in_the_order_of_their_names(tree: Path) -> None:
    source = load_source(str(tree), size=16)
    assert source.images_NHWC.shape == (5, 16, 16, 3)
    assert source.images_NHWC.dtype == np.uint8
    assert source.class_names == ("cat", "dog")
    assert source.labels_N is not None
    assert source.labels_N.dtype == np.int64
    assert source.labels_N.tolist() == [0, 0, 1, 1, 1]
    assert (source.name, source.size, source.channels, len(source)) == ("pets", (16, 16), 3, 5)
    only_a = tree.parent / "alone"
    shutil.copytree(tree / "cat", only_a)
    np.testing.assert_array_equal(load_source(str(only_a), size=16).images_NHWC, source.images_NHWC[:2])


def test_folders_are_resized_to_64_and_unlabelled_ones_have_no_names(tree: Path) -> None:
    source = load_source(str(tree / "dog"))
    assert source.images_NHWC.shape == (3, 64, 64, 3)
    assert source.labels_N is None
    assert source.class_names == ()


def test_one_picture_in_colour_makes_all_of_them_rgb(tmp_path: Path) -> None:
    for seed in range(3):
        picture(tmp_path / f"{seed}.png", seed, mode="L")
    assert load_source(str(tmp_path)).channels == 1
    assert load_source(str(tmp_path), channels=3).channels == 3
    palette = Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).convert("P")
    palette.save(tmp_path / "last.gif")
    assert load_source(str(tmp_path)).channels == 3
    (tmp_path / "last.gif").unlink()
    picture(tmp_path / "last.png", 9)
    mixed = load_source(str(tmp_path))
    assert mixed.channels == 3
    np.testing.assert_array_equal(mixed.images_NHWC[0, ..., 0], mixed.images_NHWC[0, ..., 2])
    assert load_source(str(tmp_path), channels=1).channels == 1


def test_hidden_and_other_files_are_ignored(tree: Path) -> None:
    before = load_source(str(tree)).fingerprint
    (tree / "README.txt").write_text("not an image")
    (tree / "cat" / "notes.csv").write_text("1,2")
    (tree / "cat" / ".hidden.png").write_bytes(b"rubbish")
    picture(tree / ".cache" / "x.png")
    assert load_source(str(tree)).fingerprint == before


def test_the_fingerprint_is_of_the_content(tree: Path, tmp_path: Path) -> None:
    first = load_source(str(tree))
    moved = tmp_path / "elsewhere" / "other name"
    shutil.copytree(tree, moved)
    assert load_source(str(moved)).fingerprint == first.fingerprint
    assert load_source(str(tree), size=32).fingerprint != first.fingerprint
    (moved / "dog").rename(moved / "hound")
    assert load_source(str(moved)).fingerprint != first.fingerprint
    (moved / "hound").rename(moved / "dog")
    (moved / "dog" / "1.png").rename(moved / "cat" / "c.png")
    relabelled = load_source(str(moved))
    assert relabelled.fingerprint != first.fingerprint


BROKEN = {
    "text.jpg": (b"This is no picture, whatever its name says.", "no known image format"),
    "empty.png": (b"", "no bytes"),
    "garbage.png": (b"\x89PNG\r\n\x1a\n" + bytes(50), ""),
    "phone.heic": (b"\x00\x00\x00\x18ftypheic" + bytes(40), "HEIC"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named_and_can_be_skipped(tree: Path, name: str) -> None:
    content, reason = BROKEN[name]
    before = load_source(str(tree))
    (tree / "dog" / name).write_bytes(content)
    with pytest.raises(SourceError) as refused:
        load_source(str(tree))
    assert refused.value.field == f"pets/dog/{name}"
    assert reason in refused.value.got
    assert str(tree) not in str(refused.value)
    skipping = load_source(str(tree), skip_bad=True)
    assert [skipped.file for skipped in skipping.skipped] == [f"pets/dog/{name}"]
    assert skipping.skipped[0].reason == refused.value.got
    assert skipping.fingerprint == before.fingerprint


def test_truncated_photographs_are_broken(tree: Path) -> None:
    before = load_source(str(tree))
    for suffix in ("jpg", "png", "webp", "tif", "gif", "bmp"):
        whole = picture(tree / "cat" / f"cut.{suffix}", size=(60, 60)).read_bytes()
        (tree / "cat" / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(SourceError, match=rf"pets/cat/cut\.{suffix}"):
            load_source(str(tree))
        assert load_source(str(tree), skip_bad=True).fingerprint == before.fingerprint
        (tree / "cat" / f"cut.{suffix}").unlink()


def test_the_first_of_many_broken_images_is_named_whatever_the_threads_do(tmp_path: Path) -> None:
    for number in range(300):
        path = picture(tmp_path / f"{number:03d}.png", number)
        if number % 7 == 3:
            path.write_bytes(path.read_bytes()[:200])
    for _ in range(5):
        with pytest.raises(SourceError, match=r"/003\.png"):
            load_source(str(tmp_path), size=8)
    source = load_source(str(tmp_path), size=8, skip_bad=True)
    assert [Path(skipped.file).stem for skipped in source.skipped] == [f"{n:03d}" for n in range(3, 300, 7)]
    for row, number in enumerate(number for number in range(300) if number % 7 != 3):
        if number in (0, 30, 258, 299):
            alone = tmp_path / f"{number:03d}.png"
            twice = tmp_path.parent / f"{tmp_path.name}-{number}"
            twice.mkdir()
            shutil.copy(alone, twice / "a.png")
            shutil.copy(alone, twice / "b.png")
            np.testing.assert_array_equal(load_source(str(twice), size=8).images_NHWC[0], source.images_NHWC[row])


def test_progress_ends_with_all_images(tree: Path) -> None:
    seen: list[tuple[int, int]] = []
    load_source(str(tree), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert seen == sorted(seen)


def refusal(root: Path, **options: bool) -> SourceError:
    with pytest.raises(SourceError) as refused:
        load_source(str(root), **options)
    return refused.value


def test_folders_that_are_no_source_are_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert refusal(tmp_path / "nothing").got == "neither"
    picture(tmp_path / "single" / "only.png")
    assert refusal(tmp_path / "single").got == "1"
    (tree / "fish").mkdir()
    assert refusal(tree).field == "pets/fish"
    (tree / "fish").rmdir()
    stray = picture(tree / "stray.png")
    assert refusal(tree).got == "1 images beside 2 folders"
    stray.unlink()
    picture(tree / "cat" / "persian" / "1.png")
    assert refusal(tree).field == "pets/cat"
    assert "subfolders are the classes" in refusal(tree).hint


def test_a_class_that_loses_all_its_images_is_refused(tree: Path) -> None:
    for path in (tree / "cat").iterdir():
        path.write_bytes(b"rubbish")
    assert "'cat'" in refusal(tree, skip_bad=True).got


def test_class_names_that_differ_by_normal_form_alone_are_one_name(tree: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    picture(tree / decomposed / "1.png")
    assert load_source(str(tree)).class_names[0] == composed
    picture(tree / composed / "1.png")
    assert "more than once" in refusal(tree).got


def test_names_that_could_not_stand_in_a_recipe_are_refused(tree: Path) -> None:
    for name in ("line\nbreak", os.fsdecode(b"not\xffunicode")):
        picture(tree / name / "1.png")
        assert refusal(tree).field == "pets:class_names"
        shutil.rmtree(tree / name)


def test_links_stay_inside_the_source(tree: Path, tmp_path: Path) -> None:
    outside = picture(tmp_path / "secret.png")
    link = tree / "cat" / "link.png"
    link.symlink_to(outside)
    assert refusal(tree, skip_bad=True).field == "pets/cat/link.png"
    link.unlink()
    link.symlink_to(tree / "cat" / "b.png")
    assert len(load_source(str(tree))) == 6
    link.unlink()
    link.symlink_to(link)
    assert refusal(tree).field == "pets/cat/link.png"
    link.unlink()
    link.symlink_to(tree / "cat" / "gone.png")
    assert refusal(tree).got == "no regular file"
    assert len(load_source(str(tree), skip_bad=True)) == 5
    link.unlink()
    (tree / "loop").symlink_to(tree)
    assert refusal(tree).field == "pets/loop"
    (tree / "loop").unlink()
    (tmp_path / "entrance").symlink_to(tree)
    assert len(load_source(str(tmp_path / "entrance"))) == 5


def test_a_pipe_is_not_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "cat" / "pipe.png")
    assert refusal(tree).got == "no regular file"
    assert len(load_source(str(tree), skip_bad=True)) == 5


@pytest.mark.parametrize("change", ["gone", "cut", "replaced by a folder", "replaced by a pipe"])
def test_a_source_that_changes_while_it_is_read(tmp_path: Path, change: str) -> None:
    for number in range(600):
        picture(tmp_path / "a" / f"{number:03d}.png", number, size=(8, 8))
    last = tmp_path / "a" / "599.png"

    def change_last(done: int, _: int) -> None:
        if done != 256:
            return
        if change == "cut":
            last.write_bytes(last.read_bytes()[:40])
            return
        last.unlink()
        if change == "replaced by a folder":
            last.mkdir()
        elif change == "replaced by a pipe":
            os.mkfifo(last)

    with pytest.raises(SourceError) as refused:
        load_source(str(tmp_path), size=8, progress=change_last)
    assert refused.value.field.endswith("a/599.png")


def test_a_class_with_one_image(tmp_path: Path) -> None:
    for label, count in (("many", 5), ("one", 1)):
        for number in range(count):
            picture(tmp_path / label / f"{number}.png", number)
    assert load_source(str(tmp_path), size=8).class_counts() == {"many": 5, "one": 1}


def test_patterns_of_too_many_alternatives(tree: Path) -> None:
    with pytest.raises(SourceError, match="alternatives"):
        load_source(f"{tree}/{{1..1000}}{{1..1000}}.png")
    assert len(load_source(f"{tree}/{{cat,dog}}/*.*")) == 5
