"""The same real pictures in every form are the same source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generator.sources import Source, load_source
from generator.spec.reading import Reading
from generator.store.s3_settings import S3Settings
from tests.support import source_forms as forms
from tests.support.reference_data import reference_file
from tests.support.source_forms import Picture


@pytest.fixture(scope="module")
def hands() -> list[Picture]:
    return forms.of_folder(reference_file("sign-digits") / "train", 6)


@pytest.fixture(scope="module")
def folder(hands: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return forms.as_folder(tmp_path_factory.mktemp("forms") / "hands", hands)


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    loaded = load_source(str(folder), size=32)
    assert loaded.class_names == tuple("0123456789")
    assert len(loaded) == 60
    return loaded


def expect_same(location: Path | str, source: Source, **options: object) -> Source:
    loaded = load_source(str(location), size=32, **options)  # type: ignore[arg-type]
    assert loaded.fingerprint == source.fingerprint
    assert loaded.labels_N is not None
    assert source.labels_N is not None
    np.testing.assert_array_equal(loaded.labels_N, source.labels_N)
    return loaded


@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "target", "class"])
def test_parquet_whatever_the_column_is_called(
    tmp_path: Path, hands: list[Picture], source: Source, column: str
) -> None:
    expect_same(forms.as_parquet(tmp_path / "declared.parquet", hands, column), source)
    expect_same(forms.as_parquet(tmp_path / "numbers.parquet", hands, column, declared=False), source)
    expect_same(forms.as_parquet(tmp_path / "text.parquet", hands, column, text=True), source)
    loaded = expect_same(tmp_path / "text.parquet", source, reading=Reading(label=column))
    assert loaded.facts.label_column == column


def test_a_repository_of_the_hub(tmp_path: Path, hands: list[Picture], source: Source) -> None:
    for split, pictures in (("train", hands), ("test", hands[::6])):
        forms.as_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", pictures)
        forms.as_parquet(tmp_path / "flat" / split / "0000.parquet", pictures)
    forms.write(tmp_path / "README.md", "card")
    forms.write(tmp_path / ".gitattributes", "lfs")
    assert expect_same(tmp_path / "data", source).facts.splits == ("train", "test")
    expect_same(tmp_path / "flat" / "*" / "0000.parquet", source)
    expect_same(tmp_path / "flat" / "**" / "*.parquet", source)
    assert len(load_source(f"{tmp_path}/flat/*/*.parquet", size=32, split="test")) == 10
    (tmp_path / "flat").rename(tmp_path.parent / f"{tmp_path.name}-flat")
    expect_same(tmp_path, source)


def test_beside_a_table(tmp_path: Path, hands: list[Picture], source: Source) -> None:
    loaded = expect_same(forms.as_metadata_csv(tmp_path / "hands", hands), source)
    assert loaded.facts.label_column == "label"
    assert "labels are read from metadata.csv" in loaded.facts.notices


def test_webdataset(tmp_path: Path, hands: list[Picture], source: Source) -> None:
    expect_same(forms.as_tars(tmp_path / "shards", hands, shards=3), source)
    expect_same(tmp_path / "shards" / "*.tar", source)
    expect_same(tmp_path / "shards" / "{00000..00002}.tar", source)
    expect_same(forms.as_zip(tmp_path / "hands.zip", hands), source)
    tree = forms.tar_bytes([(f"hands/{each.label}/{each.name}", each.data) for each in hands])
    expect_same(forms.write(tmp_path / "tree.tar", tree), source)


def test_the_splits_of_a_tree(tmp_path: Path, folder: Path, source: Source) -> None:
    forms.copied(folder, tmp_path / "both" / "Train")
    forms.copied(folder / "1", tmp_path / "both" / "Test" / "1")
    loaded = expect_same(tmp_path / "both", source)
    assert (loaded.facts.split, loaded.facts.splits) == ("train", ("train", "test"))
    assert load_source(str(tmp_path / "both"), size=32, split="test").class_names == ("1",)
    for label in source.class_names:
        forms.copied(folder / label, tmp_path / "inside" / label / "train")
        forms.copied(folder / label, tmp_path / "inside" / label / "val")
    assert expect_same(tmp_path / "inside", source).facts.splits == ("train", "validation")


def test_in_an_object_store(
    tmp_path: Path, hands: list[Picture], source: Source, bucket: str, s3_settings: S3Settings
) -> None:
    forms.as_folder(tmp_path / "folder of hands", hands)
    forms.as_tars(tmp_path / "shards", hands)
    forms.as_parquet(tmp_path / "table" / "data" / "train-0.parquet", hands, "labels")
    forms.as_metadata_csv(tmp_path / "listed", hands)
    numpy = tmp_path / "arrays.npz"
    np.savez(numpy, x_train=source.images_NHWC, y_train=source.labels_N)
    forms.put_files(tmp_path, bucket, s3_settings)
    for place in ("folder of hands", "shards", "shards/*.tar", "table", "listed", "arrays.npz", "table/**/*.parquet"):
        expect_same(f"{bucket}/{place}", source, s3=s3_settings)
