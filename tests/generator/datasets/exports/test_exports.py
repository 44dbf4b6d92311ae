"""Exports: whole or absent, resumed after a crash, checked when they are complete; wrong input is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from generator.datasets.exports import Target, export_build
from generator.datasets.exports import export as export_module
from generator.datasets.torch_dataset import open_dataset
from generator.errors import IntegrityError, SpecError
from generator.production.shards import mds_format, read_samples
from generator.spec.canonical import digest_of, sha256_hex
from generator.spec.recipe import Recipe, ShardFormatName
from generator.store import S3Settings, open_store
from tests.support.certificates import written_credentials
from tests.support.small_builds import SmallBuild
from workers.cli.main import root as command_line

TARGETS: tuple[Target, ...] = ("energon", "hf-folder", "lance", "mds")
FORMATS: tuple[ShardFormatName, ...] = ("webdataset", "parquet", "mds")
SMALL = SmallBuild(published="2026-03-01")  # 13 samples in 3 shards


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return committed(tmp_path)


def committed(home: Path, **fields: Any) -> Path:
    location, _ = SmallBuild(published="2026-03-01", **fields).commit(str(home))
    return Path(location.url.removeprefix("file://"))


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


class Killed(BaseException):
    """Stands for a process that ends without another word."""


def after(shards: int) -> Callable[[int], None]:
    def stop(done: int) -> None:
        if done == shards:
            raise Killed

    return stop


@pytest.mark.parametrize("target", TARGETS)
def test_an_interrupted_export_goes_on_where_it_stopped(target: Target, build: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        export_build(str(build), target, out, on_shard=after(2))
    assert not out.exists()
    kept = contents(tmp_path / "out.partial")
    found = export_build(str(build), target, out)
    assert (found.samples, found.shards, found.resumed, found.existed) == (13, 3, 2, False)
    assert not (tmp_path / "out.partial").exists()
    whole = contents(out)
    assert kept.keys() - whole.keys() <= {".export/lock"}
    assert all(whole[path] == data for path, data in kept.items() if path in whole)


@pytest.mark.parametrize("target", TARGETS)
def test_a_partial_file_of_an_interrupted_export_is_made_again(target: Target, build: Path, tmp_path: Path) -> None:
    """A crash of the machine may lose the end of a file whose shard is marked as finished."""
    with pytest.raises(Killed):
        export_build(str(build), target, tmp_path / "out", on_shard=after(2))
    mark = json.loads((tmp_path / "out.partial" / ".export" / "shards" / "000001.json").read_text())
    cut = tmp_path / "out.partial" / sorted(mark["files"])[0]
    cut.write_bytes(cut.read_bytes()[:-1])
    assert export_build(str(build), target, tmp_path / "out").resumed == 1
    assert export_build(str(build), target, tmp_path / "out").existed


@pytest.mark.parametrize("target", TARGETS)
def test_a_complete_export_is_checked_and_left_alone(target: Target, build: Path, tmp_path: Path) -> None:
    export_build(str(build), target, tmp_path / "out")
    before = contents(tmp_path / "out")
    found = export_build(str(build), target, tmp_path / "out")
    assert (found.existed, found.samples) == (True, 13)
    assert contents(tmp_path / "out") == before
    for path in before:
        if not path.startswith(".export/"):
            (tmp_path / "out" / path).write_bytes(before[path] + b"x")
            with pytest.raises(IntegrityError) as caught:
                export_build(str(build), target, tmp_path / "out")
            assert caught.value.field.endswith(path)
            assert f"remove {tmp_path / 'out'}" in caught.value.hint
            (tmp_path / "out" / path).write_bytes(before[path])


@pytest.mark.slow
def test_a_killed_process_leaves_no_directory_that_looks_whole(build: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from generator.datasets.exports import export_build\n"
        "def wait(done):\n    print(done, flush=True); time.sleep(60 if done == 2 else 0)\n"
        "export_build(sys.argv[1], 'hf-folder', Path(sys.argv[2]), on_shard=wait)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(build), str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(2)] == ["1", "2"]
    with pytest.raises(SpecError, match="no other export writes to"):
        export_build(str(build), "hf-folder", tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out").exists()
    assert export_build(str(build), "hf-folder", tmp_path / "out").resumed == 2


@pytest.mark.parametrize("target", TARGETS)
def test_damage_of_the_build_is_found_and_exports_nothing(target: Target, build: Path, tmp_path: Path) -> None:
    shard = build / "shards" / "small-000001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(IntegrityError) as caught:
        export_build(str(build), target, tmp_path / "out")
    assert "small-000001.tar" in caught.value.field
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", [".", "shards", "export", "../other/../{}/export"])
def test_a_place_inside_the_build_is_refused(build: Path, place: str) -> None:
    before = contents(build)
    with pytest.raises(SpecError, match="outside of the build") as caught:
        export_build(str(build), "mds", build / place.format(build.name))
    assert caught.value.field == "out"
    assert contents(build) == before


def test_a_directory_with_something_else_is_refused_and_left_alone(build: Path, tmp_path: Path) -> None:
    other = committed(tmp_path, seed=1)
    export_build(str(other), "mds", tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(Killed):
        export_build(str(other), "mds", tmp_path / "half", on_shard=after(1))
    before = contents(tmp_path)
    for name in ("other", "mine", "half"):
        with pytest.raises(SpecError) as caught:
            export_build(str(build), "mds", tmp_path / name)
        assert caught.value.field == "out"
    with pytest.raises(SpecError):
        export_build(str(other), "energon", tmp_path / "other")
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert export_build(str(build), "mds", tmp_path / "empty").samples == 13


@pytest.mark.parametrize("target", TARGETS)
def test_a_build_of_an_earlier_release_is_exported(target: Target, tmp_path: Path) -> None:
    location, _ = SmallBuild(recipe_version=1).commit(str(tmp_path))
    assert export_build(location.url, target, tmp_path / "out").samples == 13


@pytest.mark.parametrize("out", ["/", ".."])
def test_a_directory_that_cannot_be_made_anew_is_refused(
    out: str, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(SpecError) as caught:
        export_build(str(build), "mds", Path(out))
    assert caught.value.field == "out"


def test_a_directory_that_cannot_be_written_is_a_typed_error(build: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError) as caught:
        export_build(str(build), "mds", tmp_path / "file" / "out")
    assert caught.value.field == "out"


@pytest.mark.parametrize("source", FORMATS)
def test_images_are_copied_byte_for_byte_whatever_the_format(source: ShardFormatName, tmp_path: Path) -> None:
    build = committed(tmp_path, format=source)
    stated = open_dataset(str(build)).table(["key", "image_sha256"]).to_pylist()
    export_build(str(build), "hf-folder", tmp_path / "folder")
    found = {path.stem: sha256_hex(path.read_bytes()) for path in (tmp_path / "folder").rglob("*.png")}
    assert found == {row["key"]: row["image_sha256"] for row in stated}
    export_build(str(build), "energon", tmp_path / "energon")
    tars = [path.read_bytes() for path in sorted((tmp_path / "energon").glob("*.tar"))]
    assert [(key, sha256_hex(files["png"])) for data in tars for key, files in read_samples(data, field="tar")] == [
        (row["key"], row["image_sha256"]) for row in stated
    ]


def test_shards_of_the_same_format_are_copied(tmp_path: Path) -> None:
    for source, target, suffix in (("webdataset", "energon", "tar"), ("mds", "mds", "mds")):
        build = committed(tmp_path / f"of-{source}", format=source)
        export_build(str(build), target, tmp_path / target)  # type: ignore[arg-type]
        shards = {path.name: path.read_bytes() for path in (build / "shards").glob(f"*.{suffix}")}
        assert {path.name: path.read_bytes() for path in (tmp_path / target).glob(f"*.{suffix}")} == shards
        if target == "mds":
            assert (tmp_path / "mds" / "index.json").read_bytes() == (build / "shards" / "index.json").read_bytes()


def test_mds_of_another_format_holds_the_samples_of_the_build(build: Path, tmp_path: Path) -> None:
    export_build(str(build), "mds", tmp_path / "out")
    form = mds_format(Recipe.model_validate_json((build / "recipe.json").read_bytes()))
    found = [
        sample
        for path in sorted((tmp_path / "out").glob("*.mds"))
        for sample in form.read_samples(path.read_bytes(), field=path.name)
    ]
    tars = [path.read_bytes() for path in sorted((build / "shards").glob("*.tar"))]
    assert found == [sample for data in tars for sample in read_samples(data, field="tar")]


def test_a_lance_export_is_one_version_with_every_row(build: Path, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    with pytest.raises(Killed):
        export_build(str(build), "lance", tmp_path / "out", on_shard=after(1))
    stray = tmp_path / "out.partial" / "small.lance" / "data" / "stray.lance"
    stray.write_bytes(b"of a shard that was not finished")
    export_build(str(build), "lance", tmp_path / "out")
    dataset = lance.dataset(str(tmp_path / "out" / "small.lance"))
    assert (dataset.version, dataset.count_rows()) == (1, 13)
    assert not list((tmp_path / "out").rglob("stray.lance"))
    rows = dataset.to_table().to_pylist()
    assert [row["index"] for row in rows] == list(range(13))
    assert all(sha256_hex(row["image"]) == row["image_sha256"] for row in rows)


def test_a_build_in_s3_is_exported(bucket: str, s3_settings: S3Settings, build: Path, tmp_path: Path) -> None:
    source, target = open_store(str(build)), open_store(f"{bucket}/small", s3_settings)
    for info in source.list():
        target.put(f"builds/{build.name}/{info.key}", source.get(info.key))
    assert export_build(f"{bucket}/small", "mds", tmp_path / "out", s3_settings).samples == 13


def test_a_missing_package_is_a_typed_error(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lance", "c2pa"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SpecError, match="pylance"):
        export_build(str(build), "lance", tmp_path / "out")
    paths = written_credentials(tmp_path)
    with pytest.raises(SpecError, match="c2pa-python"):
        export_build(str(build), "hf-folder", tmp_path / "out", credentials=paths)
    assert not list(tmp_path.glob("out*"))


def test_shards_that_mds_cannot_hold_are_refused_before_work_starts(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "MAX_MDS_BYTES", 1000)
    with pytest.raises(SpecError) as caught:
        export_build(str(build), "mds", tmp_path / "out")
    assert caught.value.field == "to"
    assert not list(tmp_path.glob("out*"))


def test_the_command_exports_and_says_what_it_did(build: Path, tmp_path: Path) -> None:
    def run(*words: object) -> Any:
        return CliRunner().invoke(command_line, [str(word) for word in words])

    done = run("export", build, "--to", "mds", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["samples"], facts["shards"], facts["existed"]) == (13, 3, False)
    assert json.loads(run("export", build, "--to", "mds", "--out", tmp_path / "out", "--json").stdout)["existed"]
    assert run("export", build, "--to", "zip", "--out", tmp_path / "x").exit_code == 2
    refused = run("export", build, "--to", "hf-folder", "--out", tmp_path / "x", "--c2pa-cert", tmp_path / "chain.pem")
    assert isinstance(refused.exception, SpecError)
    assert refused.exception.field == "c2pa-key"


def test_an_export_names_the_manifest_that_it_was_made_of(build: Path, tmp_path: Path) -> None:
    export_build(str(build), "mds", tmp_path / "out")
    stated = json.loads((tmp_path / "out" / ".export" / "export.json").read_text())
    assert stated["manifest"] == digest_of((build / "manifest.json").read_bytes())
    assert stated["target"] == "mds"
