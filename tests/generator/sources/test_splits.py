"""Training, validation and test sets are told apart, wherever their names stand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from generator.errors import SourceError
from generator.sources import Source, load_source
from generator.sources.splits import split_of_path
from tests.support import source_forms as forms

PICTURES = forms.drawn()


def load(location: Path | str, split: str | None = None) -> Source:
    return load_source(str(location), size=16, split=split)


def refusal(location: Path | str, split: str | None = None) -> SourceError:
    with pytest.raises(SourceError) as refused:
        load(location, split)
    return refused.value


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("plain_text/test-00000-of-00001.parquet", "test"),
        ("mnist/validation/0000.parquet", "validation"),
        ("Training/part.parquet", "train"),
        ("data/my_dataset_val_3.parquet", "validation"),
        ("shards/train.000.tar", "train"),
        ("trainer/contest.parquet", None),
        ("latest/0.parquet", None),
        ("0.parquet", None),
    ],
)
def test_words_in_paths(path: str, split: str | None) -> None:
    assert split_of_path(path) == split


def test_one_split_is_read_without_a_question(tmp_path: Path) -> None:
    forms.as_parquet(tmp_path / "test" / "0.parquet", PICTURES)
    source = load(tmp_path)
    assert (len(source), source.facts.split) == (12, None)
    assert load(tmp_path, "test").fingerprint == source.fingerprint
    refused = refusal(tmp_path, "train")
    assert (refused.field, refused.got) == ("split", "'train'")


def test_without_a_training_set_the_split_must_be_named(tmp_path: Path) -> None:
    for split in ("val", "test"):
        forms.as_parquet(tmp_path / f"{split}.parquet", PICTURES)
    assert "--split" in refusal(tmp_path).hint
    assert load(tmp_path, "validation").facts.splits == ("validation", "test")
    assert load(tmp_path, "dev").name == f"{tmp_path.name}:validation"


def test_tables_of_no_split_beside_splits_are_not_guessed(tmp_path: Path) -> None:
    for name in ("train", "test", "extra"):
        forms.as_parquet(tmp_path / f"{name}.parquet", PICTURES)
    assert "extra.parquet beside the splits train, test" in refusal(tmp_path).got
    assert "train-*.parquet" in refusal(tmp_path).hint


def test_words_that_no_split_has() -> None:
    assert refusal("digits", "everything").field == "split"


def test_tars_of_splits(tmp_path: Path) -> None:
    forms.as_tars(tmp_path / "train", PICTURES)
    forms.as_tars(tmp_path / "val", PICTURES[:4], shards=1)
    assert len(load(tmp_path)) == 12
    assert len(load(tmp_path, "val")) == 4
    assert len(load(tmp_path / "**" / "*.tar", "validation")) == 4


def test_folders_of_splits(tmp_path: Path) -> None:
    forms.as_folder(tmp_path / "hub" / "data" / "train", PICTURES)
    forms.as_folder(tmp_path / "hub" / "data" / "test", PICTURES[:8])
    forms.write(tmp_path / "hub" / "logo.png", PICTURES[0].data)
    source = load(tmp_path / "hub")
    assert (source.class_names, source.facts.split) == (("cat", "dog", "fox"), "train")
    assert ("images of no split", 1) in source.facts.passed_over
    assert load(tmp_path / "hub", "test").class_names == ("cat", "dog")


def test_splits_without_classes(tmp_path: Path) -> None:
    for picture in PICTURES:
        forms.write(tmp_path / "both" / "train" / forms.flat_name(picture), picture.data)
        forms.write(tmp_path / "both" / "test" / forms.flat_name(picture), picture.data)
    source = load(tmp_path / "both")
    assert (len(source), source.class_names, source.facts.splits) == (12, (), ("train", "test"))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train_images", "test_images"),
        ("seg_train", "seg_test"),
        ("train-images", "t10k-images"),
        ("train", "test1"),
        ("Training_Set", "Test_Set"),
        ("train2017", "val2017"),
    ],
)
def test_folders_that_are_called_like_splits(tmp_path: Path, train: str, test: str) -> None:
    for folder, count in ((train, 12), (test, 5)):
        for picture in PICTURES[:count]:
            forms.write(tmp_path / "set" / folder / forms.flat_name(picture), picture.data)
    source = load(tmp_path / "set")
    assert (len(source), source.class_names, source.facts.split) == (12, (), "train")


def test_files_of_no_split_beside_a_test_set(tmp_path: Path) -> None:
    forms.as_parquet(tmp_path / "data.parquet", PICTURES)
    forms.as_parquet(tmp_path / "test.parquet", PICTURES[:4])
    source = load(tmp_path)
    assert (len(source), source.facts.splits) == (12, ("train", "test"))
    assert len(load(tmp_path, "test")) == 4


def test_a_column_that_says_the_split(tmp_path: Path) -> None:
    table = forms.as_table(PICTURES).append_column("split", pa.array(["train", "test", "train"] * 4))
    parquet.write_table(table, tmp_path / "set.parquet")
    source = load(tmp_path / "set.parquet")
    assert (len(source), source.class_names, source.facts.label_column) == (8, ("cat", "dog", "fox"), "label")
    assert len(load(tmp_path / "set.parquet", "test")) == 4
    with pytest.raises(SourceError, match="one of the splits"):
        load(tmp_path / "set.parquet", "validation")


def test_general_names_are_no_classes(tmp_path: Path) -> None:
    for picture in PICTURES:
        forms.write(tmp_path / "yolo" / "train" / "images" / forms.flat_name(picture), picture.data)
    assert load(tmp_path / "yolo").class_names == ()


def test_a_class_called_like_a_split_stays_a_class(tmp_path: Path) -> None:
    root = forms.as_folder(tmp_path / "vehicles", forms.drawn(("boat", "train")))
    assert load(root).class_names == ("boat", "train")


def test_a_folder_in_a_folder(tmp_path: Path) -> None:
    """As archives unpack them."""
    forms.as_folder(tmp_path / "pets" / "pets" / "images", PICTURES)
    source = load(tmp_path / "pets")
    assert source.class_names == ("cat", "dog", "fox")
    assert any("pets/images/" in notice for notice in source.facts.notices)
