"""A bundle and two builds of an earlier commit: they are made again byte for byte, and still read, verified, replayed.

A change of code that changes a byte of a bundle, a shard, a table, a receipt, a manifest, a card or a Croissant file
fails here. A change that is wanted belongs to a new ``recipe_version``, beside the old one; then make a further set of
files, and leave these alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from generator import open_dataset
from tests.golden.make import BUILDS, BUNDLE, build, describe_machine, digests, latentmill, make

HERE = Path(__file__).parent
DIGESTS: dict[str, str] = json.loads((HERE / "digests.json").read_text())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the earlier commit made."""
    return Path(shutil.copytree(HERE / "kept", tmp_path_factory.mktemp("golden") / "kept"))


@pytest.fixture(scope="module")
def same_machine() -> None:
    """Skips where libraries or processor cannot make these bytes, as they say themselves: no code of ours is asked."""
    ours, stated = describe_machine(), json.loads((HERE / "machine.json").read_text())
    different = [
        f"{name} {ours.get(name)} instead of {stated[name]}" for name in stated if ours.get(name) != stated[name]
    ]
    if different:
        pytest.skip(f"other bytes come of {', '.join(different)}")


@pytest.fixture(scope="module")
def made(same_machine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, made by today's code."""
    directory = tmp_path_factory.mktemp("golden") / "made"
    directory.mkdir()
    make(directory)
    return directory


def build_of(directory: Path, name: str) -> Path:
    (found,) = (directory / "builds" / name / "builds").iterdir()
    return found


def test_the_kept_files_are_whole(kept: Path) -> None:
    assert digests(kept) == DIGESTS


def test_the_same_bytes_are_made(made: Path) -> None:
    found = digests(made)
    assert {name: found.get(name) for name in DIGESTS} == DIGESTS
    assert found.keys() == DIGESTS.keys()


def test_kept_builds_verify(kept: Path) -> None:
    for facts in latentmill(kept, *(["verify", f"builds/{name}"] for name in BUILDS)):
        assert facts["intact"]
        assert (facts["samples"], facts["shards"], facts["problems"]) == (60, 3, [])


def test_kept_builds_replay(kept: Path, same_machine: None) -> None:
    replays = [
        ["replay", f"builds/{name}", index, "--bundle", BUNDLE, "--device", "cpu"]
        for name in BUILDS
        for index in ("0", "41")
    ]
    assert [facts["identical"] for facts in latentmill(kept, *replays)] == [True] * 4


@pytest.mark.parametrize("name", BUILDS)
def test_a_kept_build_is_read(kept: Path, name: str) -> None:
    samples = list(open_dataset(str(kept / "builds" / name)))
    assert np.bincount([sample.label for sample in samples]).tolist() == [6] * 10
    assert {sample.image.shape for sample in samples} == {(8, 8, 1)}
    assert sorted(sample.provenance["index"] for sample in samples) == list(range(60))


def test_a_kept_build_goes_on_where_it_stopped(kept: Path, same_machine: None, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(kept, tmp_path / "interrupted"))
    unfinished = build_of(directory, "screened")
    for key in ("manifest.json", "receipts/000001.json", "receipts/000002.json", "shards/screened-000002.tar"):
        (unfinished / key).unlink()
    latentmill(directory, build(directory, "screened"))
    assert digests(directory) == DIGESTS
