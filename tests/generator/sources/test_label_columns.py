"""Which column, array or field is taken for the labels, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from generator.errors import SourceError
from generator.sources import Source, load_source
from generator.spec.reading import Reading
from tests.support import source_forms as forms

PICTURES = forms.drawn(("a", "b", "c"), each=4)
IMAGES = forms.as_table(PICTURES).column("image")
NUMBERS = [0, 1, 2] * 4
UNIQUE = [f"{number}.png" for number in range(12)]


def load(path: Path, columns: dict[str, Any], **options: Any) -> Source:
    parquet.write_table(
        pa.table({"image": IMAGES, **{name: pa.array(values) for name, values in columns.items()}}), path
    )
    return load_source(str(path), **options)


def refusal(path: Path, columns: dict[str, Any], **options: Any) -> SourceError:
    with pytest.raises(SourceError) as refused:
        load(path, columns, **options)
    return refused.value


@pytest.mark.parametrize(
    ("columns", "taken", "names"),
    [
        ({"kind": NUMBERS, "file": UNIQUE}, "kind", ("0", "1", "2")),
        ({"kind": ["x", "y"] * 6, "id": list(range(12))}, "kind", ("x", "y")),
        ({"good": [True, False] * 6}, "good", ("false", "true")),
        ({"label": NUMBERS, "width": [20] * 12, "target": ["u", "v"] * 6}, "label", ("0", "1", "2")),
        ({"labels": NUMBERS, "width": [20] * 12}, "labels", ("0", "1", "2")),
        ({"class": [10, 20, 3] * 4}, "class", ("3", "10", "20")),
        ({"caption": UNIQUE}, None, ()),
        ({}, None, ()),
        ({"score": [0.5] * 12}, None, ()),
    ],
)
def test_the_column_is_found_by_its_type(
    tmp_path: Path, columns: dict[str, Any], taken: str | None, names: tuple[str, ...]
) -> None:
    source = load(tmp_path / "set.parquet", columns)
    assert (source.facts.label_column, source.class_names) == (taken, names)
    assert (source.labels_N is None) == (taken is None)
    told = " ".join(source.facts.notices)
    assert ("unlabelled" in told) == (taken is None)
    if taken not in (None, "label"):
        assert repr(taken) in told


def test_several_columns_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    refused = refusal(path, {"colour": NUMBERS, "shape": ["x", "y"] * 6})
    assert refused.field == "set.parquet:label"
    assert refused.got == "colour, shape"
    assert "--label colour" in refused.hint
    assert load_source(str(path), reading=Reading(label="shape")).class_names == ("x", "y")
    assert load_source(str(path), reading=Reading(label="none")).labels_N is None
    with pytest.raises(SourceError, match="Is it 'shape'"):
        load_source(str(path), reading=Reading(label="shapes"))


def test_two_declared_columns_are_listed(tmp_path: Path) -> None:
    """As in CIFAR-100: fine_label and coarse_label."""
    fine = forms.as_table(PICTURES, "fine_label")
    both = fine.append_column("coarse_label", pa.array(NUMBERS))
    metadata = fine.schema.metadata[b"huggingface"]
    coarse = b'"coarse_label": {"_type": "ClassLabel", "names": ["u", "v", "w"]}, "fine_label"'
    path = tmp_path / "cifar.parquet"
    parquet.write_table(both.replace_schema_metadata({b"huggingface": metadata.replace(b'"fine_label"', coarse)}), path)
    with pytest.raises(SourceError, match="fine_label, coarse_label"):
        load_source(str(path))
    assert load_source(str(path), reading=Reading(label="coarse_label")).class_names == ("u", "v", "w")
    assert load_source(str(path), reading=Reading(label="fine_label")).class_names == ("a", "b", "c")


def test_lists_of_labels_are_named_as_not_supported(tmp_path: Path) -> None:
    refused = refusal(tmp_path / "set.parquet", {"labels": [[0, 1]] * 12})
    assert (refused.field, refused.got) == ("set.parquet:labels", "lists of labels")
    assert "--label none" in refused.hint
    assert refusal(tmp_path / "set.parquet", {"tags": [[0]] * 12}, reading=Reading(label="tags")).got == "list values"
    assert load_source(str(tmp_path / "set.parquet"), reading=Reading(label="none")).labels_N is None


def test_the_image_column_is_found_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    data = pa.array([picture.data for picture in PICTURES])
    parquet.write_table(pa.table({"jpeg": data, "hash": pa.array([b"x"] * 12), "label": NUMBERS}), path)
    assert load_source(str(path)).facts.image_column == "jpeg"
    parquet.write_table(pa.table({"left": data, "right": data, "label": NUMBERS}), path)
    with pytest.raises(SourceError, match="left, right"):
        load_source(str(path))
    assert load_source(str(path), reading=Reading(image="right")).facts.image_column == "right"
    with pytest.raises(SourceError, match=r"a column of set\.parquet: left, right, label"):
        load_source(str(path), reading=Reading(image="image"))


def test_classes_are_chosen_and_ordered(tmp_path: Path) -> None:
    root = forms.as_folder(tmp_path / "pets", forms.drawn())
    whole = load_source(str(root), size=16)
    chosen = load_source(str(root), size=16, reading=Reading(classes=("fox", "cat")))
    assert chosen.class_counts() == {"fox": 4, "cat": 4}
    assert chosen.labels_N is not None
    np.testing.assert_array_equal(chosen.labels_N, [1] * 4 + [0] * 4)
    np.testing.assert_array_equal(chosen.images_NHWC, whole.images_NHWC[[0, 1, 2, 3, 8, 9, 10, 11]])
    with pytest.raises(SourceError, match="Is it 'fox'"):
        load_source(str(root), reading=Reading(classes=("foxes",)))
    with pytest.raises(SourceError, match="a source with labels"):
        load_source(str(root / "cat"), reading=Reading(classes=("cat",)))
    np.savez(tmp_path / "set.npz", images=whole.images_NHWC, labels=whole.labels_N)
    arrays = load_source(str(tmp_path / "set.npz"), reading=Reading(classes=("2", "0")))
    np.testing.assert_array_equal(arrays.images_NHWC, chosen.images_NHWC)


def test_a_test_set_without_a_class(tmp_path: Path) -> None:
    table = forms.as_table(PICTURES).filter(pa.compute.field("label") != 1)
    parquet.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(SourceError) as refused:
        load_source(str(tmp_path / "set.parquet"))
    assert "--allow-empty" in refused.value.hint
    source = load_source(str(tmp_path / "set.parquet"), allow_empty=True)
    assert source.class_counts() == {"a": 4, "c": 4}
    assert "classes without an image: b" in source.facts.notices


def test_two_arrays_of_labels_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=GREY, labels=LABELS, target=LABELS * 2)
    with pytest.raises(SourceError, match="labels, target"):
        load_source(str(tmp_path / "set.npz"))
    assert load_source(str(tmp_path / "set.npz"), reading=Reading(label="target")).class_names == ("0", "2", "4")


def test_arrays_of_no_split_are_the_training_set(tmp_path: Path) -> None:
    for names in (("images", "labels", "test_images", "test_labels"), ("X", "y", "X_test", "y_test")):
        arrays = dict(zip(names, (GREY, LABELS, GREY[:3], LABELS[:3]), strict=True))
        np.savez(tmp_path / "set.npz", **arrays)
        source = load_source(str(tmp_path / "set.npz"))
        assert (len(source), source.facts.split, len(source.class_names)) == (6, "train", 3)
        assert len(load_source(str(tmp_path / "set.npz"), split="test")) == 3


GREY = np.random.default_rng(0).integers(0, 256, (6, 12, 12), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        ({"x_train": GREY, "y_train": LABELS}, ("0", "1", "2")),
        ({"X_train": GREY, "Y_train": LABELS, "X_test": GREY[:3], "Y_test": LABELS[:3]}, ("0", "1", "2")),
        ({"train_images": GREY, "train_labels": LABELS[:, None], "val_images": GREY}, ("0", "1", "2")),
        ({"images": GREY, "labels": np.eye(3)[LABELS]}, ("0", "1", "2")),
        ({"images": GREY, "labels": np.eye(3, dtype=bool)[LABELS], "class_names": ["u", "v", "w"]}, ("u", "v", "w")),
        ({"images": GREY, "labels": np.array(["x", "y", "z"])[LABELS]}, ("x", "y", "z")),
        ({"images": GREY, "labels": LABELS == 1}, ("false", "true")),
        ({"images": GREY, "labels": LABELS.astype(float)}, ("0", "1", "2")),
        ({"images": GREY, "labels": LABELS * 10 + 1}, ("1", "11", "21")),
        ({"arr_0": GREY, "arr_1": LABELS}, ("0", "1", "2")),
        ({"data": GREY, "target": LABELS}, ("0", "1", "2")),
        ({"images": GREY, "labels": LABELS, "classes": ["u", "v", "w"]}, ("u", "v", "w")),
        ({"images": GREY, "labels": np.array([b"x", b"y", b"z"])[LABELS]}, ("x", "y", "z")),
        ({"images": GREY}, ()),
    ],
)
def test_arrays_under_the_names_that_people_give_them(
    tmp_path: Path, arrays: dict[str, Any], names: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    source = load_source(str(tmp_path / "set.npz"))
    np.testing.assert_array_equal(source.images_NHWC[..., 0], GREY)
    assert source.class_names == names
    if names and names != ("false", "true"):
        assert source.labels_N is not None
        assert source.labels_N.tolist() == LABELS.tolist()


def test_arrays_of_other_shapes_and_types(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 256, (5, 10, 14, 3), dtype=np.uint8)
    for number, images in enumerate(
        (
            colour,
            colour.transpose(0, 3, 1, 2),
            np.asfortranarray(colour),
            colour.astype(np.int64),
            colour.astype(np.uint16),
            colour.astype(np.float32),
            colour / 255.0,
            (colour / 255.0).astype(np.float32),
        )
    ):
        np.savez(tmp_path / f"{number}.npz", images=images)
        np.testing.assert_array_equal(load_source(str(tmp_path / f"{number}.npz")).images_NHWC, colour)
    np.save(tmp_path / "single.npy", colour)
    np.testing.assert_array_equal(load_source(str(tmp_path / "single.npy")).images_NHWC, colour)
    np.savez(tmp_path / "masks.npz", images=colour[..., 0] > 127)
    np.testing.assert_array_equal(
        load_source(str(tmp_path / "masks.npz")).images_NHWC[..., 0], (colour[..., 0] > 127) * 255
    )


def test_ten_thousand_classes_and_one_more(tmp_path: Path) -> None:
    images = np.zeros((10_001, 8, 8), np.uint8)
    np.savez(tmp_path / "set.npz", images=images[1:], labels=np.arange(10_000))
    assert len(load_source(str(tmp_path / "set.npz")).class_names) == 10_000
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(10_001))
    with pytest.raises(SourceError, match="at most 10000 classes"):
        load_source(str(tmp_path / "set.npz"))
