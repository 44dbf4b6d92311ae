"""Exports to S3: the same files as in a directory, the end last, resumed after a crash, refused where others are."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from generator.datasets.exports import Target, export_build
from generator.errors import BucketMissing, IntegrityError, SpecError
from generator.store import S3Settings, Store, open_store
from tests.support.servers import S3Server
from tests.support.small_builds import SmallBuild
from workers.cli.main import root as command_line

TARGETS: tuple[Target, ...] = ("hf-folder", "lance", "mds")


@pytest.fixture
def build(tmp_path: Path) -> str:
    return SmallBuild(published="2026-03-01").commit(str(tmp_path / "sets"))[0].url


@pytest.fixture
def out(bucket: str) -> str:
    return f"{bucket}/exports/small"


def contents(store: Store) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list()}


class Killed(BaseException):
    """Stands for a process that ends without another word."""


def stop_after_one(_: int) -> None:
    raise Killed


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_to_s3_holds_what_a_directory_would(
    target: Target, build: str, out: str, s3_settings: S3Settings, tmp_path: Path
) -> None:
    done = export_build(build, target, out, s3_settings)
    assert (done.samples, done.shards, done.resumed, done.existed) == (13, 3, 0, False)
    found = contents(open_store(out, s3_settings))
    files = {key: data for key, data in found.items() if not key.startswith("_export/")}
    if target == "lance":
        import lance

        for key, data in files.items():
            (tmp_path / "copy" / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "copy" / key).write_bytes(data)
        rows = lance.dataset(str(tmp_path / "copy" / "small.lance")).to_table().to_pylist()
        assert [row["index"] for row in rows] == list(range(13))
    else:
        export_build(build, target, tmp_path / "local")
        local = {
            path.relative_to(tmp_path / "local").as_posix(): path.read_bytes()
            for path in (tmp_path / "local").rglob("*")
            if path.is_file() and ".export" not in path.parts
        }
        assert files == local
    again = export_build(build, target, out, s3_settings)
    assert (again.samples, again.existed) == (13, True)
    assert contents(open_store(out, s3_settings)) == found


@pytest.mark.parametrize("target", TARGETS)
def test_an_interrupted_export_goes_on_and_leaves_no_strays(
    target: Target, build: str, out: str, s3_settings: S3Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(Killed):
        export_build(build, target, out, s3_settings, on_shard=stop_after_one)
    store = open_store(out, s3_settings)
    begun = contents(store)
    assert "_export/shards/000000.json" in begun
    assert "_export/whole.json" not in begun
    assert not {"index.json", "README.md"} & set(begun)  # what readers begin with
    store.put("data/stray.bin", b"of an upload that was cut off")
    done = export_build(build, target, out, s3_settings)
    assert (done.resumed, done.samples, done.existed) == (1, 13, False)
    assert "data/stray.bin" not in contents(store)
    assert export_build(build, target, out, s3_settings).existed
    assert not list((tmp_path / "temporary").iterdir())  # nothing is left on this machine


def test_what_was_uploaded_is_compared_with_its_digests(build: str, out: str, s3_settings: S3Settings) -> None:
    export_build(build, "mds", out, s3_settings)
    store = open_store(out, s3_settings)
    shard = next(key for key in contents(store) if key.endswith("000001.mds"))
    store.put(shard, b"altered")
    with pytest.raises(IntegrityError, match=r"000001\.mds"):
        export_build(build, "mds", out, s3_settings)
    store.delete("_export/whole.json")
    assert export_build(build, "mds", out, s3_settings).resumed == 2  # the altered one is made again
    store.delete("_export/shards/000002.json")
    with pytest.raises(IntegrityError, match=r"shards/000002\.json"):
        export_build(build, "mds", out, s3_settings)


def test_a_place_with_something_else_is_refused_and_left_alone(
    build: str, out: str, s3_settings: S3Settings, tmp_path: Path
) -> None:
    store = open_store(out, s3_settings)
    store.put("mine.txt", b"mine")
    with pytest.raises(SpecError, match=r"mine\.txt"):
        export_build(build, "mds", out, s3_settings)
    assert contents(store) == {"mine.txt": b"mine"}
    store.delete("mine.txt")
    export_build(build, "mds", out, s3_settings)
    before = contents(store)
    other = SmallBuild(name="other", seed=5).commit(str(tmp_path / "sets"))[0].url
    for url, target in ((build, "hf-folder"), (other, "mds")):
        with pytest.raises(SpecError, match="with an export of build"):
            export_build(url, target, out, s3_settings)  # type: ignore[arg-type]
    store.put("_export/export.json", b"{}")
    with pytest.raises(SpecError, match="other objects"):
        export_build(build, "mds", out, s3_settings)
    assert {**contents(store), "_export/export.json": b""} == {**before, "_export/export.json": b""}


def test_what_s3_cannot_hold_is_refused_before_work_starts(
    build: str, bucket: str, s3_settings: S3Settings, s3_server: S3Server
) -> None:
    with pytest.raises(SpecError, match="energon") as caught:
        export_build(build, "energon", f"{bucket}/x", s3_settings)
    assert caught.value.field == "out"
    with pytest.raises(BucketMissing):
        export_build(build, "mds", "s3://no-such-bucket-of-anybody/x", s3_settings)
    with pytest.raises(SpecError, match="url"):
        export_build(build, "mds", "s3://", s3_settings)
    assert contents(open_store(f"{bucket}/x", s3_settings)) == {}


def test_the_command_exports_to_s3(build: str, out: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("ENDPOINT_URL", s3_server.settings.endpoint_url),
        ("REGION", s3_server.region),
        ("ACCESS_KEY", s3_server.access_key),
        ("SECRET_KEY", s3_server.secret_key),
    ):
        monkeypatch.setenv(f"LATENTMILL_S3_{name}", str(value))
    words: list[Any] = ["export", build, "--to", "mds", "--out", out, "--json"]
    done = CliRunner().invoke(command_line, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["out"] == out
