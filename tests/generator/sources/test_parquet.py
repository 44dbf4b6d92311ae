"""Hugging Face image Parquet, valid and invalid."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from generator.errors import SourceError
from generator.sources import load_source

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def described(names: object) -> dict[bytes, bytes]:
    label = {"_type": "ClassLabel", "names": names}
    return {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": label}}}).encode()}


def table(
    images: list[Any] | None = None,
    labels: Any = LABELS,
    *,
    metadata: dict[bytes, bytes] | None = None,
    column: str = "image",
) -> pa.Table:
    images = [{"bytes": png(p), "path": f"{n}.png"} for n, p in enumerate(PIXELS)] if images is None else images
    columns: dict[str, Any] = {column: pa.array(images, IMAGE_TYPE)}
    if labels is not None:
        columns["label"] = labels if isinstance(labels, pa.Array) else pa.array(labels)
    return pa.table(columns).replace_schema_metadata(described(["ant", "bee", "cow"]) if metadata is None else metadata)


def saved(path: Path, made: pa.Table) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made, path, row_group_size=4)
    return str(path)


def refusal(location: str, **options: Any) -> SourceError:
    with pytest.raises(SourceError) as refused:
        load_source(location, **options)
    return refused.value


def test_images_labels_and_names_are_read(tmp_path: Path) -> None:
    source = load_source(saved(tmp_path / "set.parquet", table()))
    np.testing.assert_array_equal(source.images_NHWC, PIXELS)
    assert source.labels_N is not None
    assert source.labels_N.dtype == np.int64
    assert source.labels_N.tolist() == LABELS
    assert source.class_names == ("ant", "bee", "cow")
    assert source.name == "set.parquet"


def test_files_of_one_split_follow_each_other(tmp_path: Path) -> None:
    whole = load_source(saved(tmp_path / "whole.parquet", table()))
    for part, rows in enumerate((slice(0, 1), slice(1, 6))):
        made = table().slice(rows.start, rows.stop - rows.start)
        saved(tmp_path / "data" / f"train-{part:05d}-of-00002.parquet", made)
    folder = load_source(str(tmp_path / "data"))
    assert (folder.fingerprint, folder.name) == (whole.fingerprint, "data")
    saved(tmp_path / "data" / "test-00000-of-00001.parquet", table().slice(0, 3))
    assert load_source(str(tmp_path / "data")).fingerprint == whole.fingerprint
    assert len(load_source(str(tmp_path / "data"), split="test")) == 3
    pattern = load_source(str(tmp_path / "data" / "train-*.parquet"))
    assert (pattern.fingerprint, pattern.name) == (whole.fingerprint, "train-*.parquet")


def test_labels_and_their_names_are_optional(tmp_path: Path) -> None:
    bare = load_source(saved(tmp_path / "bare.parquet", table(labels=None, metadata={})))
    assert bare.labels_N is None
    assert bare.class_names == ()
    for metadata in ({}, {b"huggingface": b'{"info": {"features": {"label": {"_type": "Value"}}}}'}):
        numbered = load_source(saved(tmp_path / "numbered.parquet", table(metadata=metadata, column="img")))
        assert numbered.class_names == ("0", "1", "2")


def test_the_layout_that_the_datasets_library_writes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    rows = {"image": [Image.fromarray(p) for p in PIXELS], "label": [0, 1] * 3}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "written.parquet"))
    source = load_source(str(tmp_path / "written.parquet"))
    np.testing.assert_array_equal(source.images_NHWC, PIXELS)
    assert source.class_names == ("x", "y")


def test_grey_tables_are_grey_until_one_picture_is_not(tmp_path: Path) -> None:
    images = [{"bytes": png(p[..., 0]), "path": None} for p in PIXELS]
    assert load_source(saved(tmp_path / "grey.parquet", table(images))).channels == 1
    images[5] = {"bytes": png(PIXELS[5]), "path": None}
    assert load_source(saved(tmp_path / "one.parquet", table(images))).channels == 3


def test_mixed_and_oblong_sizes_need_a_size(tmp_path: Path) -> None:
    images = [{"bytes": png(PIXELS[n]), "path": None} for n in range(5)]
    images.append({"bytes": png(np.zeros((20, 20, 3), np.uint8)), "path": None})
    location = saved(tmp_path / "mixed.parquet", table(images))
    refused = refusal(location, skip_bad=True)
    assert (refused.field, refused.got) == ("mixed.parquet row 5", "20x20")
    assert load_source(location, size=16).images_NHWC.shape == (6, 16, 16, 3)
    oblong = [{"bytes": png(p[:10]), "path": None} for p in PIXELS]
    assert load_source(saved(tmp_path / "oblong.parquet", table(oblong))).size == (16, 10)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {"bytes": None, "path": "/etc/hostname"},
        {"bytes": b"", "path": "x.png"},
        {"bytes": b"text", "path": "x.png"},
        {"bytes": png(PIXELS[0])[:300], "path": "x.png"},
    ],
)
def test_a_broken_row_is_named_and_can_be_skipped(tmp_path: Path, bad: dict[str, Any] | None) -> None:
    images: list[Any] = [{"bytes": png(p), "path": f"{n}.png"} for n, p in enumerate(PIXELS)]
    images[4] = bad
    location = saved(tmp_path / "set.parquet", table(images))
    assert refusal(location).field.startswith("set.parquet row 4")
    source = load_source(location, skip_bad=True)
    np.testing.assert_array_equal(source.images_NHWC, PIXELS[[0, 1, 2, 3, 5]])
    assert source.labels_N is not None
    assert source.labels_N.tolist() == [0, 1, 2, 0, 2]
    assert len(source.skipped) == 1


BAD = {
    "no image column": (pa.table({"label": LABELS}), "set.parquet:image"),
    "text for images": (pa.table({"image": ["a", "b"]}), "set.parquet:image"),
    "float labels": (table(labels=[0.5] * 6), "set.parquet:label"),
    "a label missing": (table(labels=[0, 1, 2, None, 1, 2]), "set.parquet:label"),
    "unlabelled test set": (table(labels=[-1] * 6), "set.parquet:label"),
    "a label too many": (table(labels=[0, 1, 2, 3, 1, 2]), "set.parquet:label"),
    "a class without image": (table(labels=[0, 1, 0, 1, 0, 1]), "set.parquet:label"),
    "a name twice": (table(metadata=described(["a", "a", "b"])), "info.features.label.names"),
    "names that are none": (table(metadata=described([1, 2, 3])), "info.features.label.names"),
    "no list of names": (table(metadata=described("abc")), "info.features.label.names"),
    "broken metadata": (table(metadata={b"huggingface": b"{"}), "set.parquet:huggingface"),
    "one image": (table().slice(0, 1), "set.parquet"),
    "no image": (table().slice(0, 0), "set.parquet"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_by_name(tmp_path: Path, case: str) -> None:
    made, field = BAD[case]
    refused = refusal(saved(tmp_path / "set.parquet", made))
    assert field in refused.field
    assert str(tmp_path) not in str(refused)


def test_files_must_agree_on_their_classes(tmp_path: Path) -> None:
    saved(tmp_path / "0.parquet", table())
    saved(tmp_path / "1.parquet", table(metadata=described(["bee", "ant", "cow"])))
    assert refusal(str(tmp_path)).field == "1.parquet:class_names"
    saved(tmp_path / "1.parquet", table(labels=None))
    assert refusal(str(tmp_path)).field == "1.parquet:label"


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    whole = Path(saved(tmp_path / "set.parquet", table())).read_bytes()
    for content in (b"", b"rubbish", whole[:-9], whole[:4] + bytes(len(whole) - 12) + whole[-8:]):
        (tmp_path / "set.parquet").write_bytes(content)
        assert refusal(str(tmp_path / "set.parquet")).field == "set.parquet"
