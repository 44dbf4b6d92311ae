"""Loading sources by location, the options of each kind, and the bundled digits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.errors import SourceError
from generator.sources import Source, load_source


def test_digits_are_grey_squares_of_full_contrast() -> None:
    source = load_source("digits")
    assert source.images_NHWC.shape == (1797, 8, 8, 1)
    assert source.images_NHWC.dtype == np.uint8
    assert np.unique(source.images_NHWC).tolist() == [round(level * 255 / 16) for level in range(17)]
    assert source.class_names == tuple("0123456789")
    assert source.labels_N is not None
    assert np.bincount(source.labels_N).min() > 170
    assert source.name == "digits"
    assert load_source("digits").fingerprint == source.fingerprint


def test_digits_can_be_enlarged_and_coloured() -> None:
    source = load_source("digits", size=16, channels=3)
    assert source.images_NHWC.shape == (1797, 16, 16, 3)
    np.testing.assert_array_equal(source.images_NHWC[..., 0], source.images_NHWC[..., 2])


def test_the_word_digits_is_the_bundled_source_even_beside_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load_source("digits")) == 1797
    with pytest.raises(SourceError, match="class folders or images"):
        load_source("./digits")


def test_a_source_names_itself_without_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pets").mkdir()
    np.savez(tmp_path / "pets" / "small.npz", images=np.zeros((2, 8, 8), np.uint8))
    monkeypatch.chdir(tmp_path / "pets")
    assert load_source("small.npz").name == load_source(str(tmp_path / "pets" / "small.npz")).name == "small.npz"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 7}, "size"),
        ({"size": 513}, "size"),
        ({"size": 0}, "size"),
        ({"channels": 2}, "channels"),
        ({"channels": 4}, "channels"),
        ({"split": "validation"}, "split"),
        ({"split": "test"}, "split"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(SourceError) as refused:
        load_source("digits", **options)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "location", ["nowhere", "nowhere.npz", "nowhere/*.parquet", "s3://b/images", "a.tar", "x" * 5000]
)
def test_places_without_a_source_are_refused(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(SourceError) as refused:
        load_source(location)
    assert location in refused.value.field
    assert refused.value.exit_code == 2


def test_sources_are_values() -> None:
    source = load_source("digits")
    assert isinstance(source, Source)
    with pytest.raises(AttributeError):
        source.name = "other"  # type: ignore[misc]


@pytest.mark.slow
def test_real_images_come_in_without_torch() -> None:
    """Nor are the readers of other kinds of sources imported."""
    code = (
        "import sys; from generator.sources import load_source, split; "
        "assert not {'sklearn', 'pyarrow'} & set(sys.modules); load_source('digits'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
