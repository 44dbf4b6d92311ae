"""Lineage: images are found by their bytes, or named by their mark; nothing is guessed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from generator.datasets.lineage import trace_build, trace_image
from generator.errors import DatasetError, IntegrityError
from generator.production.commit import BuildLocation
from generator.production.shards import read_samples
from generator.spec.canonical import sha256_hex
from tests.support.small_builds import SmallBuild
from workers.cli.main import root as command_line

MARKED, EARLIER = SmallBuild(published="2026-03-01"), SmallBuild(seed=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def builds(home: Path) -> tuple[BuildLocation, BuildLocation]:
    """A build whose images name it, and one of an earlier release, in the dataset ``home/small``."""
    return MARKED.commit(str(home))[0], EARLIER.commit(str(home))[0]


def image_of(location: BuildLocation, shard: int = 1) -> tuple[str, bytes]:
    """Key and file of the first sample of a shard."""
    archive = location.store.get(f"shards/small-{shard:06d}.tar")
    key, files = next(iter(read_samples(archive, field="shard")))
    return key, files["png"]


def test_a_build_goes_back_to_its_source(builds: tuple[BuildLocation, BuildLocation]) -> None:
    found = trace_build(builds[0].url)
    assert (found.build, found.recipe) == (builds[0].build_id, builds[0].recipe_digest)
    assert (found.published, found.source, found.model, found.signatures) == ("2026-03-01", "digits", "vae", 0)
    assert trace_build(builds[1].url).published is None


def test_an_image_is_found_in_the_build_that_it_names(home: Path, builds: tuple[BuildLocation, BuildLocation]) -> None:
    key, data = image_of(builds[0])
    found = trace_image(data, (str(home / "small"),))
    assert (found.marked, found.marked_build, found.searched) == (True, builds[0].build_id, (builds[0].url,))
    assert found.shard == "shards/small-000001.tar"
    assert found.sample is not None
    assert (found.sample["key"], found.sample["image_sha256"]) == (key, sha256_hex(data))
    assert found.build == trace_build(builds[0].url)


def test_an_image_that_names_no_build_is_searched_for(home: Path, builds: tuple[BuildLocation, BuildLocation]) -> None:
    key, data = image_of(builds[1], 2)
    found = trace_image(data, (builds[0].url, str(home / "small")))
    assert (found.marked, found.marked_build) == (True, None)
    assert found.build is not None
    assert found.build.build == builds[1].build_id
    assert found.sample is not None
    assert found.sample["key"] == key


def test_a_changed_file_still_names_its_build(home: Path, builds: tuple[BuildLocation, BuildLocation]) -> None:
    with Image.open(io.BytesIO(image_of(builds[0])[1])) as image:
        packet, out = image.info["xmp"], io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=50, xmp=packet)
    found = trace_image(out.getvalue(), (str(home / "small"),))
    assert (found.marked, found.marked_build, found.sample) == (True, builds[0].build_id, None)
    assert found.searched == (builds[0].url,)


def test_another_image_is_not_found(home: Path, builds: tuple[BuildLocation, BuildLocation]) -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(out, "PNG")
    found = trace_image(out.getvalue(), (str(home / "small"),))
    assert (found.marked, found.marked_build, found.build) == (False, None, None)
    assert set(found.searched) == {location.url for location in builds}
    assert trace_image(out.getvalue()).searched == ()


@pytest.mark.parametrize("data", [b"", b"words", b"\x89PNG\r\n\x1a\n" + b"x" * 40])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"^image: expected an image file"):
        trace_image(data)


def test_places_without_a_build_and_damaged_tables_are_named(tmp_path: Path) -> None:
    location = SmallBuild().commit(str(tmp_path))[0]
    data = image_of(location)[1]
    with pytest.raises(DatasetError, match=r"^dataset: "):
        trace_image(data, (str(tmp_path / "nowhere"),))
    location.store.put("samples/small-000000.parquet", b"x")
    with pytest.raises(IntegrityError, match=r"small-000000\.parquet"):
        trace_image(data, (location.url,))


def test_the_command(home: Path, builds: tuple[BuildLocation, BuildLocation], tmp_path: Path) -> None:
    (tmp_path / "found.png").write_bytes(image_of(builds[0])[1])
    (tmp_path / "other.png").write_bytes(image_of(builds[1])[1])

    def run(*words: object, code: int = 0) -> dict[str, object]:
        done = CliRunner().invoke(command_line, ["lineage", *map(str, words), "--json"], catch_exceptions=False)
        assert done.exit_code == code, done.output
        found: dict[str, object] = json.loads(done.stdout)
        return found

    assert run(builds[0].url)["source"] == "digits"
    assert run(tmp_path / "found.png")["marked_build"] == builds[0].build_id
    assert run(tmp_path / "found.png", "--in", home / "small")["recipe"] == builds[0].recipe_digest
    assert "recipe" not in run(tmp_path / "other.png", "--in", builds[0].url, code=1)
    with pytest.raises(DatasetError, match=r"^image: "):
        run(builds[0].url, "--in", home / "small")
