"""Bundles and builds of earlier commits: they are made again byte for byte, and still read, verified, replayed.

A change of code that changes a byte of a bundle, a shard, a table, a receipt, a manifest, a card or a Croissant file
fails here. A change that is wanted belongs to a new ``recipe_version``, beside the old ones; then make a further set of
files, and leave these alone.

The bundle of the version 1 builds has no map, which training has written since version 2. So these builds are made of
the kept bundle, and training is held against it file by file; the two bundles differ by the map alone.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from generator import open_dataset
from generator.production.images import marked_build
from generator.spec.canonical import canonical_json, sha256_hex
from tests.golden.make import (
    BUILDS,
    BUILDS_OF_VERSION_2,
    BUILDS_WITH_PUBLICATION,
    BUNDLE,
    build,
    describe_machine,
    describe_processor,
    digests,
    latentmill,
    make,
)

HERE = Path(__file__).parent
MAP = "map.safetensors"


@dataclass(frozen=True)
class Golden:
    """What was kept of one version: its builds by name, and the sha256 of every file."""

    builds: tuple[str, ...]
    digests: dict[str, str]


VERSIONS: dict[int | str, Golden] = {
    1: Golden(tuple(BUILDS), json.loads((HERE / "digests.json").read_text())),
    2: Golden(tuple(BUILDS_OF_VERSION_2), json.loads((HERE / "digests_version_2.json").read_text())),
    "publication": Golden(tuple(BUILDS_WITH_PUBLICATION), json.loads((HERE / "digests_publication.json").read_text())),
}
EVERY_BUILD = [(version, name) for version, golden in VERSIONS.items() for name in golden.builds]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[int | str, Path]:
    """For each set, a copy of what the earlier commit made. Version 2 keeps the files that version 1 lacks, the builds
    with facts of publication are of its bundle."""
    directory = tmp_path_factory.mktemp("golden")
    first = Path(shutil.copytree(HERE / "kept", directory / "kept"))
    second, third = directory / "kept_version_2", directory / "kept_publication"
    shutil.copytree(first / BUNDLE, second / BUNDLE)
    shutil.copytree(HERE / "kept_version_2", second, dirs_exist_ok=True)
    shutil.copytree(second / BUNDLE, third / BUNDLE)
    shutil.copytree(HERE / "kept_publication", third, dirs_exist_ok=True)
    return {1: first, 2: second, "publication": third}


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
    """The bundle and the version 2 builds, made by today's code."""
    directory = tmp_path_factory.mktemp("golden") / "made"
    directory.mkdir()
    make(directory)
    return directory


def build_of(directory: Path, name: str) -> Path:
    (found,) = (directory / "builds" / name / "builds").iterdir()
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kept_files_are_whole(kept: dict[int | str, Path], version: int | str) -> None:
    assert digests(kept[version]) == VERSIONS[version].digests


def made_by_training() -> dict[str, str]:
    """Digests of what this kind of processor makes; of the kept files for kinds that are not known."""
    known: dict[str, dict[str, str]] = json.loads((HERE / "digests_by_processor.json").read_text())
    return known.get(describe_processor(), VERSIONS[2].digests)


def test_the_same_bytes_are_made(made: Path) -> None:
    found, expected = digests(made), made_by_training()
    assert {Path(name).name for name in found} == {Path(name).name for name in expected}
    weights = f"{BUNDLE}/{MAP}"
    if expected is VERSIONS[2].digests and found[weights] != expected[weights]:
        pytest.skip("training on this kind of processor has never been kept; builds of the kept bundle are held below")
    assert {name: found.get(name) for name in expected} == expected
    assert found.keys() == expected.keys()


def test_training_gives_the_bundle_of_version_1_and_a_map(made: Path) -> None:
    if made_by_training() != VERSIONS[2].digests:
        pytest.skip("the bundle of version 1 was trained on another kind of processor")
    expected = {name: digest for name, digest in VERSIONS[1].digests.items() if name.startswith(BUNDLE)}
    found = {name: digest for name, digest in digests(made).items() if name.startswith(BUNDLE)}
    info = json.loads((made / BUNDLE / "bundle.json").read_text())
    assert f"{BUNDLE}/{MAP}" in found
    del info["files"][MAP], found[f"{BUNDLE}/{MAP}"]
    assert found | {f"{BUNDLE}/bundle.json": sha256_hex(canonical_json(info))} == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_builds_are_made_of_the_kept_bundle(
    kept: dict[int | str, Path], same_machine: None, tmp_path: Path, version: int | str
) -> None:
    shutil.copytree(kept[version] / BUNDLE, tmp_path / BUNDLE)
    latentmill(tmp_path, *(build(tmp_path, name) for name in VERSIONS[version].builds))
    assert digests(tmp_path) == VERSIONS[version].digests


@pytest.mark.parametrize("version", VERSIONS)
def test_kept_builds_verify(kept: dict[int | str, Path], version: int | str) -> None:
    names = VERSIONS[version].builds
    for facts in latentmill(kept[version], *(["verify", "--deep", f"builds/{name}"] for name in names)):
        assert facts["intact"]
        assert (facts["samples"], facts["shards"], facts["problems"]) == (60, 3, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_kept_builds_replay(kept: dict[int | str, Path], same_machine: None, version: int | str) -> None:
    replays = [
        ["replay", f"builds/{name}", index, "--bundle", BUNDLE, "--device", "cpu"]
        for name in VERSIONS[version].builds
        for index in ("0", "41")
    ]
    assert [facts["identical"] for facts in latentmill(kept[version], *replays)] == [True] * len(replays)


@pytest.mark.parametrize(("version", "name"), EVERY_BUILD)
def test_a_kept_build_is_read(kept: dict[int | str, Path], version: int | str, name: str) -> None:
    samples = list(open_dataset(str(kept[version] / "builds" / name)))
    assert np.bincount([sample.label for sample in samples]).tolist() == [6] * 10
    assert {sample.image.shape for sample in samples} == {(8, 8, 1)}
    assert sorted(sample.provenance["index"] for sample in samples) == list(range(60))


@pytest.mark.parametrize(("version", "name"), [(1, "screened"), (2, "mapped"), ("publication", "cited")])
def test_a_kept_build_goes_on_where_it_stopped(
    kept: dict[int | str, Path], same_machine: None, tmp_path: Path, version: int | str, name: str
) -> None:
    directory = Path(shutil.copytree(kept[version], tmp_path / "interrupted"))
    unfinished = build_of(directory, name)
    for key in ("manifest.json", "receipts/000001.json", "receipts/000002.json", f"shards/{name}-000002.tar"):
        (unfinished / key).unlink()
    latentmill(directory, build(directory, name))
    assert digests(directory) == VERSIONS[version].digests


def test_the_facts_of_publication_are_in_recipe_card_croissant_and_images(kept: dict[int | str, Path]) -> None:
    stated = BUILDS_WITH_PUBLICATION["cited"]
    home = build_of(kept["publication"], "cited")
    recipe, croissant = (json.loads((home / name).read_text()) for name in ("recipe.json", "croissant.json"))
    assert {name: recipe[name] for name in ("published", "license", "creator", "citation")} == {
        name: stated[name] for name in ("published", "license", "creator", "citation")
    }
    assert croissant["datePublished"] == stated["published"]
    assert croissant["creator"]["name"] == stated["creator"]["name"]
    assert stated["citation"] in (home / "README.md").read_text()
    with tarfile.open(home / "shards" / "cited-000000.tar") as shard:
        data = shard.extractfile(next(name for name in shard.getnames() if name.endswith(".jpg")))
        assert data is not None
        assert marked_build(data.read()) == home.name
