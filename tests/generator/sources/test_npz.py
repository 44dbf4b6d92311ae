"""NumPy archives, valid and invalid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.errors import SourceError
from generator.sources import Source, load_source

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 12, 12), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8)
NAMES = np.array(["ant", "bee", "cow"])


def load(folder: Path, arrays: dict[str, Any], **options: Any) -> Source:
    np.savez(folder / "made.npz", **arrays)
    return load_source(str(folder / "made.npz"), **options)


def refusal(folder: Path, arrays: dict[str, Any], **options: Any) -> SourceError:
    with pytest.raises(SourceError) as refused:
        load(folder, arrays, **options)
    assert str(folder) not in str(refused.value)
    return refused.value


def test_training_and_test_sets_are_kept_apart(tmp_path: Path) -> None:
    arrays = {
        "train_images": GREY,
        "train_labels": LABELS,
        "test_images": 255 - GREY[:3],
        "test_labels": LABELS[:3],
        "class_names": NAMES,
    }
    train = load(tmp_path, arrays)
    np.testing.assert_array_equal(train.images_NHWC, GREY[..., None])
    assert train.labels_N is not None
    assert train.labels_N.dtype == np.int64
    assert train.labels_N.tolist() == LABELS.tolist()
    assert (train.name, train.class_names) == ("made.npz", ("ant", "bee", "cow"))
    test = load(tmp_path, arrays, split="test")
    np.testing.assert_array_equal(test.images_NHWC, 255 - GREY[:3, ..., None])
    assert test.name == "made.npz:test"
    assert load(tmp_path, arrays | {"test_images": np.zeros(3), "test_labels": 7}).fingerprint == train.fingerprint


@pytest.mark.parametrize("images", [GREY, GREY[..., None], COLOUR])
def test_plain_images_keep_their_size_and_channels(tmp_path: Path, images: np.ndarray) -> None:
    source = load(tmp_path, {"images": images})
    assert source.channels == (3 if images is COLOUR else 1)
    np.testing.assert_array_equal(source.images_NHWC.reshape(images.shape), images)
    assert source.labels_N is None
    assert source.class_names == ()


def test_size_and_channels_can_be_asked_for(tmp_path: Path) -> None:
    grey = load(tmp_path, {"images": GREY}, channels=3)
    np.testing.assert_array_equal(grey.images_NHWC, np.repeat(GREY[..., None], 3, axis=3))
    assert load(tmp_path, {"images": COLOUR}, channels=1, size=30).images_NHWC.shape == (6, 30, 30, 1)
    wide = RNG.integers(0, 256, (2, 10, 16), dtype=np.uint8)
    np.testing.assert_array_equal(load(tmp_path, {"images": wide}, size=10).images_NHWC[..., 0], wide[:, :, 3:13])
    assert load(tmp_path, {"images": RNG.integers(0, 256, (2, 300, 200), dtype=np.uint8)}, size=128).size == (128, 128)


def test_labels_without_names_are_numbered_by_the_training_set(tmp_path: Path) -> None:
    arrays = {"train_images": GREY, "train_labels": LABELS, "test_images": GREY[:3], "test_labels": LABELS[:3]}
    assert load(tmp_path, arrays).class_names == ("0", "1", "2")
    assert load(tmp_path, arrays, split="test").class_names == ("0", "1", "2")
    few = refusal(tmp_path, arrays | {"test_images": GREY[:2], "test_labels": LABELS[:2]}, split="test")
    assert few.got == "none of '2'"
    gap = load(tmp_path, {"images": GREY, "labels": LABELS * 2})
    assert (gap.class_names, gap.class_counts()["4"]) == (("0", "2", "4"), 2)


def test_the_fingerprint_sees_every_pixel_label_and_name(tmp_path: Path) -> None:
    arrays = {"images": GREY, "labels": LABELS, "class_names": NAMES}
    first = load(tmp_path, arrays).fingerprint
    assert first.startswith("sha256:")
    assert len(first) == 71
    pixel = GREY.copy()
    pixel[5, 11, 11] ^= 1
    swapped = LABELS[[1, 0, 2, 3, 4, 5]]
    others = [{"images": pixel}, {"labels": swapped}, {"class_names": np.array(["ant", "bee", "cox"])}]
    found = {first, *(load(tmp_path, arrays | other).fingerprint for other in others)}
    found.add(load(tmp_path, {"images": GREY}).fingerprint)
    found.add(load(tmp_path, arrays, channels=3).fingerprint)
    assert len(found) == 6
    (tmp_path / "other").mkdir()
    same = {"images": GREY[..., None], "labels": LABELS.astype(np.int32), "class_names": NAMES}
    assert load(tmp_path / "other", same).fingerprint == first


MIXED = np.empty(2, dtype=object)
MIXED[:] = [GREY[0], COLOUR[0]]

BAD = {
    "no images": ({"pictures": GREY}, "made.npz:images", "pictures"),
    "complex numbers": ({"images": GREY * 1j}, "made.npz:images", "complex128"),
    "not a number": ({"images": GREY * np.float32("nan")}, "made.npz:images", "not finite"),
    "below zero": ({"images": GREY / 255 - 0.5}, "made.npz:images", "-0.5 to"),
    "above 16 bits": ({"images": GREY.astype(np.int64) * 1000}, "made.npz:images", "0 to"),
    "mixed channels": ({"images": MIXED}, "made.npz:images", "objects"),
    "four channels": ({"images": np.zeros((4, 9, 9, 4), np.uint8)}, "made.npz:images", "4, as the shape"),
    "two channels": ({"images": np.zeros((4, 9, 9, 2), np.uint8)}, "made.npz:images", "2, as the shape"),
    "flat": ({"images": np.zeros((4, 81), np.uint8)}, "made.npz:images", "4 x 81"),
    "too small": ({"images": np.zeros((4, 7, 7), np.uint8)}, "made.npz:images", "7x7"),
    "too large": ({"images": np.zeros((4, 513, 513), np.uint8)}, "made.npz:images", "513x513"),
    "one image": ({"images": GREY[:1]}, "made.npz:images", "1"),
    "none": ({"images": GREY[:0]}, "made.npz:images", "0"),
    "no pixels": ({"images": np.zeros((4, 0, 0), np.uint8)}, "made.npz:images", "4 x 0 x 0"),
    "too few labels": ({"images": GREY, "labels": LABELS[:5]}, "made.npz:labels", "5"),
    "several labels": ({"images": GREY, "labels": np.ones((6, 3), np.uint8)}, "made.npz:labels", "several"),
    "labels of no image": ({"images": GREY, "labels": np.zeros((6, 3), np.uint8)}, "made.npz:labels", "none"),
    "three-dimensional labels": ({"images": GREY, "labels": LABELS[:, None, None]}, "made.npz:labels", "6x1x1"),
    "float labels": ({"images": GREY, "labels": LABELS / 2}, "made.npz:labels", "float64"),
    "pickled labels": ({"images": GREY, "labels": LABELS.astype(object)}, "made.npz:labels", "objects"),
    "negative": ({"images": GREY, "labels": LABELS.astype(int) - 1, "class_names": NAMES}, "made.npz:labels", "-1"),
    "above": ({"images": GREY, "labels": LABELS + 1, "class_names": NAMES}, "made.npz:labels", "3"),
    "huge": ({"images": GREY, "labels": LABELS + np.uint64(2**63)}, "made.npz:labels", "9223372036854775810"),
    "unused name": ({"images": GREY, "labels": LABELS % 2, "class_names": NAMES}, "made.npz:labels", "'cow'"),
    "names alone": ({"images": GREY, "class_names": NAMES}, "made.npz:labels", "none"),
    "a name twice": (
        {"images": GREY, "labels": LABELS, "class_names": np.array(["ant", "ant", "cow"])},
        "made.npz:class_names",
        "'ant'",
    ),
    "an empty name": (
        {"images": GREY, "labels": LABELS, "class_names": np.array(["", "ant", "cow"])},
        "made.npz:class_names",
        "''",
    ),
    "numbers for names": (
        {"images": GREY, "labels": LABELS, "class_names": np.arange(3)},
        "made.npz:class_names",
        "int64",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused_by_name(tmp_path: Path, case: str) -> None:
    arrays, field, got = BAD[case]
    refused = refusal(tmp_path, arrays)
    assert refused.field == field
    assert got in refused.got


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.npz"
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, images=GREY, labels=LABELS)
    single = tmp_path / "single.npy"
    np.save(single, GREY)
    for content in (b"", b"rubbish", whole.read_bytes()[:-40], single.read_bytes(), b"PK\x03\x04", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"made\.npz"):
            load_source(str(path))


def test_a_test_set_is_asked_for_where_there_is_none(tmp_path: Path) -> None:
    assert refusal(tmp_path, {"images": GREY}, split="test").field == "split"
