"""Bundles made by releases before recipe version 2 still find their source."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generator.errors import SourceError
from generator.models.bundle import BundleInfo, SourceFacts, read_info
from generator.models.bundle.real_images import load_similar_source, load_training_source
from generator.sources import load_source
from generator.spec.reading import Reading
from generator.store import open_store
from tests.support import source_forms as forms
from tests.support.bundles import tiny_bundle

PICTURES = forms.drawn(size=(16, 16))


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> BundleInfo:
    return read_info(open_store(str(tiny_bundle(tmp_path_factory.mktemp("bundle") / "b"))))[1]


def of_source(info: BundleInfo, fingerprint: str, **changes: Any) -> BundleInfo:
    facts = info.source.model_copy(update={"fingerprint": fingerprint, **changes})
    image = info.image.model_copy(update={"height": 16, "width": 16, "channels": 3})
    return info.model_copy(update={"source": facts, "image": image})


def test_names_in_another_form(tmp_path: Path) -> None:
    """The order of a tree does not depend on the form of names that a file system returns."""
    names = ["zoé", "zof", "a\u030a", "b"]
    for form in ("NFC", "NFD"):
        for name in names:
            for picture in PICTURES[:2]:
                folder = unicodedata.normalize(form, name)
                forms.write(tmp_path / form / folder / f"{folder}-{picture.name}", picture.data)
    composed, decomposed = (load_source(str(tmp_path / form), size=16) for form in ("NFC", "NFD"))
    assert composed.fingerprint == decomposed.fingerprint
    earlier = load_source(str(tmp_path / "NFD"), size=16, rules=1)
    assert earlier.fingerprint != composed.fingerprint
    assert load_source(str(tmp_path / "NFC"), size=16, rules=1).fingerprint == composed.fingerprint


def test_a_tree_with_images_that_were_left_out(tmp_path: Path, info: BundleInfo) -> None:
    root = forms.as_folder(tmp_path / "pets", PICTURES)
    bundle = of_source(info, load_source(str(root), size=16).fingerprint)
    forms.write(root / "cat" / "without-ending", PICTURES[0].data)
    assert len(load_source(str(root), size=16)) == 13
    found = load_training_source(str(root), bundle)
    assert (len(found), found.facts.rules, found.fingerprint) == (12, 1, bundle.source.fingerprint)
    assert load_similar_source(str(root), bundle, found).facts.rules == 1


def test_a_table_whose_labels_were_not_read(tmp_path: Path, info: BundleInfo) -> None:
    path = forms.as_parquet(tmp_path / "set.parquet", PICTURES, "labels", declared=False)
    unlabelled = load_source(str(path), reading=Reading(label="none"))
    found = load_training_source(str(path), of_source(info, unlabelled.fingerprint))
    assert found.labels_N is None


def test_deep_pixels_that_each_had_a_scale_of_their_own(tmp_path: Path, info: BundleInfo) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    for number in range(3):
        Image.fromarray(np.full((16, 16), 1000 * number + 5, dtype=np.uint16)).save(root / f"{number}.png")
    earlier = load_source(str(root), size=16, channels=3, rules=1)
    assert earlier.images_NHWC.max() == 8
    assert load_training_source(str(root), of_source(info, earlier.fingerprint)).images_NHWC.max() == 8


def test_another_source_is_another_source(tmp_path: Path, info: BundleInfo) -> None:
    root = forms.as_folder(tmp_path / "pets", PICTURES)
    found = load_training_source(str(root), of_source(info, "sha256:" + "0" * 64))
    assert found.facts.rules == 2
    with pytest.raises(SourceError, match="nothing of this name"):
        load_training_source(str(tmp_path / "gone"), info)


def test_later_sources_are_read_like_the_bundle_s_own(tmp_path: Path, info: BundleInfo) -> None:
    bundle = of_source(info, "sha256:" + "0" * 64, reading=Reading(white=4095, label="breed", resize="stretch"))
    path = forms.as_parquet(tmp_path / "set.parquet", PICTURES, "breed", text=True)
    assert load_similar_source(str(path), bundle).facts.label_column == "breed"
    other = forms.as_parquet(tmp_path / "other.parquet", PICTURES, "label", text=True)
    assert load_similar_source(str(other), bundle).facts.label_column == "label"
    root = tmp_path / "deep"
    root.mkdir()
    for name in "ab":
        Image.fromarray(np.full((16, 8), 819, dtype=np.uint16)).save(root / f"{name}.png")
    source = load_similar_source(str(root), bundle)
    assert np.unique(source.images_NHWC).tolist() == [51]
    assert source.size == (16, 16)


def test_what_is_usual_leaves_bundles_as_they_were() -> None:
    facts = SourceFacts(name="x", fingerprint="sha256:" + "0" * 64, images=9, holdout=1)
    assert "reading" not in facts.model_dump()
    read = SourceFacts.model_validate({**facts.model_dump(), "reading": {"white": 4095}})
    assert read.model_dump()["reading"] == {"white": 4095.0}
