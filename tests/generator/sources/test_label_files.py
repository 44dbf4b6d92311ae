"""Labels that a file beside the images states: metadata.csv, metadata.jsonl, metadata.parquet, dataset.json."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from generator.errors import SourceError
from generator.sources import Source, load_source
from generator.spec.reading import Reading
from tests.support import source_forms as forms

PICTURES = forms.drawn()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for picture in PICTURES:
        forms.write(tmp_path / "pets" / forms.flat_name(picture), picture.data)
    return tmp_path / "pets"


def rows(column: str = "label") -> list[dict[str, str]]:
    return [{"file_name": forms.flat_name(picture), column: picture.label} for picture in PICTURES]


def load(root: Path, label: str | None = None) -> Source:
    return load_source(str(root), size=16, reading=Reading(label=label))


def refusal(root: Path, label: str | None = None) -> SourceError:
    with pytest.raises(SourceError) as refused:
        load(root, label)
    return refused.value


def test_every_kind_of_table_says_the_same(root: Path) -> None:
    def expect_pets() -> None:
        source = load(root)
        assert source.class_counts() == {"cat": 4, "dog": 4, "fox": 4}

    lines = "\n".join(json.dumps(row) for row in rows())
    forms.write(root / "metadata.jsonl", lines)
    expect_pets()
    (root / "metadata.jsonl").unlink()
    parquet.write_table(pa.Table.from_pylist(rows()), root / "metadata.parquet")
    expect_pets()
    (root / "metadata.parquet").unlink()
    for separator, mark in ((",", ""), (";", "\ufeff"), ("\t", "")):
        text = "\r\n".join(separator.join(row.values()) for row in [{"a": "file_name", "b": "breed"}, *rows()])
        forms.write(root / "metadata.csv", mark + text)
        expect_pets()
        assert load(root).facts.label_column == "breed"


def test_stylegan_labels_are_not_its_folders(tmp_path: Path) -> None:
    root = tmp_path / "stylegan"
    names = [f"{number // 8:05d}/img{number:08d}.png" for number in range(12)]
    for name, picture in zip(names, PICTURES, strict=True):
        forms.write(root / name, picture.data)
    labels = [[name, number % 3] for number, name in enumerate(names)]
    forms.write(root / "dataset.json", json.dumps({"labels": labels}))
    source = load(root)
    assert source.labels_N is not None
    assert source.labels_N.tolist() == [0, 1, 2] * 4
    forms.write(root / "dataset.json", json.dumps({"labels": None}))
    bare = load(root)
    assert bare.class_names == ()
    assert "unlabelled: dataset.json states no labels" in bare.facts.notices
    forms.write(root / "dataset.json", json.dumps({"labels": [[name, [0.5, 1]] for name in names]}))
    assert refusal(root).got in ("list values", "lists of labels")
    forms.write(root / "dataset.json", json.dumps({"labels": {"a": 1}}))
    assert "dataset.json names no images, and is passed over" in load(root).facts.notices


def test_a_table_without_labels_leaves_them_to_the_folders(tmp_path: Path) -> None:
    root = forms.as_folder(tmp_path / "pets", PICTURES)
    captions = [{"file_name": f"{each.label}/{each.name}", "text": f"a {each.label} {each.name}"} for each in PICTURES]
    forms.write(root / "metadata.jsonl", "\n".join(json.dumps(row) for row in captions))
    source = load(root)
    assert source.class_names == ("cat", "dog", "fox")
    assert not any("unlabelled" in notice for notice in source.facts.notices)
    licensed = [{**row, "license": "cc0" if number % 2 else "mit"} for number, row in enumerate(captions)]
    forms.write(root / "metadata.jsonl", "\n".join(json.dumps(row) for row in licensed))
    source = load(root)
    assert source.class_names == ("cat", "dog", "fox")
    assert any("--label license" in notice for notice in source.facts.notices)
    assert load(root, "license").class_names == ("cc0", "mit")


def test_tables_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    root = forms.as_folder(tmp_path / "pets", PICTURES)
    forms.write(root / "metadata.csv", "image_id,dx\nISIC_1,nv\n")
    source = load(root)
    assert source.class_names == ("cat", "dog", "fox")
    assert "metadata.csv names no images, and is passed over" in source.facts.notices
    assert load(root, "none").labels_N is None


def test_json_as_other_tools_write_it(root: Path) -> None:
    lines = [
        f'{{"file_name": "{row["file_name"]}", "label": "{row["label"]}", "x": NaN, "t": "a\u2028b"}}' for row in rows()
    ]
    forms.write(root / "metadata.jsonl", "\n".join(lines))
    assert load(root).class_counts() == {"cat": 4, "dog": 4, "fox": 4}


def test_class_names_of_a_parquet_table(root: Path) -> None:
    numbered = [{**row, "label": ["fox", "dog", "cat"].index(row["label"])} for row in rows()]
    features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["fox", "dog", "cat"]}}}}
    table = pa.Table.from_pylist(numbered).replace_schema_metadata({b"huggingface": json.dumps(features).encode()})
    parquet.write_table(table, root / "metadata.parquet")
    assert load(root).class_counts() == {"cat": 4, "dog": 4, "fox": 4}


@pytest.mark.parametrize("number", ["--5", "\u00b2", "9" * 30, "9223372036854775808", "1e3"])
def test_odd_numbers_are_text(root: Path, number: str) -> None:
    text = "\n".join(f"{forms.flat_name(each)}, {number if each.label == 'cat' else 7}" for each in PICTURES)
    forms.write(root / "metadata.csv", f"file_name, label\n{text}\n")
    assert set(load(root).class_names) == {"7", number}


def test_one_table_in_each_split(tmp_path: Path) -> None:
    for split, pictures in (("train", PICTURES), ("test", PICTURES[::2])):
        forms.as_metadata_csv(tmp_path / "hub" / split, pictures)
    assert load(tmp_path / "hub").class_counts() == {"cat": 4, "dog": 4, "fox": 4}
    assert len(load_source(str(tmp_path / "hub"), size=16, split="test")) == 6


def test_images_that_the_table_does_not_name_are_counted(root: Path) -> None:
    forms.write(root / "metadata.jsonl", "\n".join(json.dumps(row) for row in rows()[:-2]))
    source = load(root)
    assert len(source) == 10
    assert ("images without a label in metadata.jsonl", 2) in source.facts.passed_over


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"file_name": "gone.png", "label": 1}', "names of images that are there"),
        ('{"file_name": "../../etc/passwd", "label": 1}', "names of images that are there"),
        ('{"file_name": "cat-000.png", "label": 1}\n{"file_name": "./cat-000.png", "label": 2}', "every image once"),
        ('{"file_name": 7, "label": 1}', "the name of an image"),
        ("[1, 2]", "a JSON object"),
        ("{", "a JSON document"),
        ('{"file_name": "cat-000.png", "label": 1}\n{"file_name": "cat-001.png", "label": null}', "a label for every"),
    ],
)
def test_tables_that_cannot_be_right(root: Path, text: str, expected: str) -> None:
    forms.write(root / "metadata.jsonl", text)
    refused = refusal(root, "label" if "every" in expected and "null" in text else None)
    assert expected in refused.expected
    assert refused.field.startswith("pets/metadata.jsonl")


def test_comma_separated_values_that_are_none(root: Path) -> None:
    forms.write(root / "metadata.csv", 'file_name,label\n"cat-000.png,1\n')
    assert refusal(root).expected == "comma-separated values"
    forms.write(root / "metadata.csv", "file_name,label\ncat-000.png\n")
    assert refusal(root).expected == "as many fields as there are columns"
    forms.write(root / "metadata.csv", b"\xff\xfe\x00")
    assert refusal(root).expected == "a table of images"
