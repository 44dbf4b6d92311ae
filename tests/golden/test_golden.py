"""A bundle and two builds of an earlier commit: they are made again byte for byte, and still read, verified, replayed.

A change of code that changes a byte of a bundle, a shard, a table, a receipt, a manifest, a card or a Croissant file
fails here. A change that is wanted belongs to a new ``recipe_version``, beside the old one; then make a further set of
files, and leave these alone.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from generator import open_dataset
from tests.golden.make import BUILDS, BUNDLE, build, digests, latentmill, make

HERE = Path(__file__).parent
DIGESTS: dict[str, str] = json.loads((HERE / "digests.json").read_text())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the earlier commit made."""
    return Path(shutil.copytree(HERE / "kept", tmp_path_factory.mktemp("golden") / "kept"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, made by today's code."""
    directory = tmp_path_factory.mktemp("golden") / "made"
    directory.mkdir()
    make(directory)
    return directory


def build_of(directory: Path, name: str) -> Path:
    (found,) = (directory / "builds" / name / "builds").iterdir()
    return found


def expect_environment(directory: Path) -> None:
    """Skip where this machine cannot make these bytes at all; CI has the pinned libraries and no such excuse."""
    ours, theirs = (
        json.loads((build_of(place, "plain") / "environment.json").read_text()) for place in (directory, HERE / "kept")
    )
    if ours != theirs and "CI" not in os.environ:
        pytest.skip(f"other libraries than the pinned ones: {ours} instead of {theirs}")
    assert ours == theirs


def test_the_kept_files_are_whole(kept: Path) -> None:
    assert digests(kept) == DIGESTS


def test_the_same_bytes_are_made(made: Path) -> None:
    expect_environment(made)
    found = digests(made)
    assert {name: found.get(name) for name in DIGESTS} == DIGESTS
    assert found.keys() == DIGESTS.keys()


def test_kept_builds_verify_and_replay(kept: Path, made: Path) -> None:
    expect_environment(made)
    verifications = [["verify", f"builds/{name}"] for name in BUILDS]
    replays = [
        ["replay", f"builds/{name}", index, "--bundle", BUNDLE, "--device", "cpu"]
        for name in BUILDS
        for index in ("0", "41")
    ]
    results = latentmill(kept, *verifications, *replays)
    for facts in results[: len(BUILDS)]:
        assert facts["intact"]
        assert (facts["samples"], facts["shards"], facts["problems"]) == (60, 3, [])
    assert [facts["identical"] for facts in results[len(BUILDS) :]] == [True] * 4


@pytest.mark.parametrize("name", BUILDS)
def test_a_kept_build_is_read(kept: Path, name: str) -> None:
    samples = list(open_dataset(str(kept / "builds" / name)))
    assert np.bincount([sample.label for sample in samples]).tolist() == [6] * 10
    assert {sample.image.shape for sample in samples} == {(8, 8, 1)}
    assert sorted(sample.provenance["index"] for sample in samples) == list(range(60))


def test_a_kept_build_goes_on_where_it_stopped(kept: Path, made: Path, tmp_path: Path) -> None:
    expect_environment(made)
    directory = Path(shutil.copytree(kept, tmp_path / "interrupted"))
    unfinished = build_of(directory, "screened")
    for key in ("manifest.json", "receipts/000001.json", "receipts/000002.json", "shards/screened-000002.tar"):
        (unfinished / key).unlink()
    latentmill(directory, build(directory, "screened"))
    assert digests(directory) == DIGESTS
