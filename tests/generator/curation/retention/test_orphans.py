"""Orphans of crashes and abandoned builds are removed; everything that may still be needed stays."""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session
from click.testing import CliRunner

from generator.curation.retention import Orphan, find_orphans
from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import SpecError
from generator.models.bundle import load_bundle, push
from generator.production.commit import BuildLocation, locate_build
from generator.production.mill import build
from generator.store import S3Settings, Store, open_store
from tests.support.bundles import tiny_bundle
from tests.support.servers import S3Server
from tests.support.small_builds import SmallBuild
from workers.cli.sweep import sweep_command
from workers.jobs.build_intents import BuildIntents
from workers.jobs.markers import Marker, create_marker, marker_for_build, set_intent

LATER = datetime.now(UTC) + timedelta(days=1)  # all existing objects are older
STATES = ("none", "cancelled", "failed", "open", "paused", "committed")


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4().hex}/some")
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return open_store(f"{request.getfixturevalue('bucket')}/some", request.getfixturevalue("s3_settings"))


def plant_build(store: Store, state: str) -> tuple[str, str]:
    """Create a build in this state, with its marker below ``root``. Returns its id and its prefix."""
    store.put(f"root/bundles/{'1' * 64}/bundle.json", b"{}")
    small = SmallBuild(seed=STATES.index(state))
    source = f"memory://{uuid.uuid4().hex}"
    location = small.commit(source)[0] if state == "committed" else small.begin(source)
    prefix = f"out/small/builds/{location.build_id}"
    for info in location.store.list():
        store.put(f"{prefix}/{info.key}", location.store.get(info.key))
    if state not in ("none", "committed"):
        marker = create_marker(
            store.at("root"), marker_for_build(location, f"{store.url}/out", "small", "default", 0.0)
        )
        set_intent(store.at("root"), marker.job, state)  # type: ignore[arg-type]
    return location.build_id, prefix


def find_in(store: Store, location: str = "", before: datetime = LATER) -> list[Orphan]:
    """The orphans at ``location`` in ``store``, with the markers in its root."""
    return list(find_orphans(store.at(location) if location else store, before, BuildIntents(store.at("root"))))


def keys(store: Store) -> list[str]:
    return [info.key for info in store.list()]


def test_only_given_up_builds_go_and_of_marked_ones_the_recipe_stays(store: Store) -> None:
    prefixes = {state: plant_build(store, state)[1] for state in STATES}
    store.put("out/small/latest.json", b"{}")
    store.put("out/notes.txt", b"mine")
    before = keys(store)
    found = find_in(store, "out")
    assert {item.where.rpartition("/")[2] for item in found} == {
        prefixes[state].rpartition("/")[2] for state in ("none", "cancelled", "failed")
    }
    assert keys(store) == before
    removed = sum(item.remove() for item in found)
    after = keys(store)
    assert len(before) - len(after) == removed
    for state in ("open", "paused", "committed"):
        assert [key for key in before if prefixes[state] in key] == [key for key in after if prefixes[state] in key]
    for state in ("cancelled", "failed"):
        assert [key for key in after if prefixes[state] in key] == [f"{prefixes[state]}/recipe.json"]
    assert [key for key in after if prefixes["none"] in key] == []
    assert {"out/small/latest.json", "out/notes.txt"} <= set(after)
    assert find_in(store, "out") == []


def test_what_is_young_stays(store: Store) -> None:
    plant_build(store, "none")
    store.put(f"bundles/{'0' * 64}/decoder.safetensors", b"x")
    store.put("doctor/0123456789abcdef-first", b"x")
    assert find_in(store, "out", datetime.now(UTC) - timedelta(hours=1)) == []
    assert find_in(store, "", datetime.now(UTC) - timedelta(hours=1)) == []


def test_a_store_root_keeps_whole_bundles_and_loses_unfinished_ones(store: Store, tmp_path: Path) -> None:
    root = store.at("root")
    push(open_store(str(tiny_bundle(tmp_path / "tiny"))), root)
    whole = keys(root)
    root.put(f"bundles/{'0' * 64}/decoder.safetensors", b"x")
    root.put("bundles/notes/decoder.safetensors", b"x")
    root.put("doctor/0123456789abcdef-first", b"x")
    root.put("doctor/notes", b"x")
    found = find_in(store, "root")
    assert sorted(item.kind for item in found) == ["bundle", "temporary"]
    assert [item.remove() for item in found] == [1, 1]
    assert set(keys(root)) == {*whole, "bundles/notes/decoder.safetensors", "doctor/notes"}


@pytest.mark.parametrize("location", ["out", "out/small", "out/small/builds/{id}"])
def test_a_build_is_found_from_destination_dataset_and_itself(location: str) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    build_id, _ = plant_build(store, "none")
    (found,) = find_in(store, location.format(id=build_id))
    assert found.kind == "build"


def test_unfinished_uploads_and_probes_in_a_bucket(s3_server: S3Server, bucket: str, s3_settings: S3Settings) -> None:
    client = Session(s3_server.access_key, s3_server.secret_key, region_name=s3_server.region).client(
        "s3", endpoint_url=s3_server.endpoint_url
    )
    name, store = bucket.removeprefix("s3://"), open_store(f"{bucket}/mill", s3_settings)
    for key in ("mill/big", "mill/deep/big", "elsewhere/big"):
        upload = client.create_multipart_upload(Bucket=name, Key=key)["UploadId"]
        client.upload_part(Bucket=name, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 1000)
    client.put_object(Bucket=name, Key=f"mill/.latentmill-probe-{'0' * 16}", Body=b"probe")
    client.put_object(Bucket=name, Key="mill/.hidden", Body=b"not ours")
    found = find_in(store)
    assert sorted(item.kind for item in found) == ["temporary", "upload", "upload"]
    began = max(upload["Initiated"] for upload in client.list_multipart_uploads(Bucket=name)["Uploads"])
    before = [item.kind for item in find_in(store, "", began + timedelta(seconds=1))]
    assert before.count("upload") == 2
    assert "upload" not in [item.kind for item in find_in(store, "", began - timedelta(hours=1))]
    for item in found * 2:  # twice: removing a missing object is no error
        item.remove()
    assert find_in(store) == []
    left = client.list_multipart_uploads(Bucket=name)["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/big"]
    objects = client.list_objects_v2(Bucket=name)["Contents"]
    assert [item["Key"] for item in objects] == ["mill/.hidden"]


def test_hidden_things_of_a_directory(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    ours = {
        "out/x/.tmp-0123456789abcdef": b"half",
        ".latentmill-probe-0123456789abcdef": b"",
        ".0123456789abcdef/decoder.safetensors": b"pulled",
        ".digits.bundle-k3_x9abc/bundle.json": b"{}",
    }
    others = {
        ".git/config": b"",
        ".tmp-notes": b"",
        ".0123456789abcdef.txt": b"",
        ".fedcba9876543210/thesis.docx": b"precious",
        ".fedcba9876543211/inner/bundle.json": b"",
        ".lock": b"",
        "out/.lock": b"",
        "decoder.safetensors": b"",
        ".hidden/.tmp-0123456789abcdef": b"in somebody's directory",
    }
    for name, data in (ours | others).items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(data)
    (cache / "link").symlink_to(tmp_path)
    (tmp_path / ".tmp-0123456789abcdef").write_bytes(b"above")
    found = list(find_orphans(open_store(str(cache)), LATER, lambda _: None))
    assert {item.where.removeprefix(cache.as_uri() + "/") for item in found} == {
        name if name.count("/") == 2 or "/" not in name else name.partition("/")[0] for name in ours
    }
    assert sum(item.remove() for item in found) == len(ours)
    left = {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and not path.is_symlink()}
    assert left >= set(others)
    assert not left & set(ours)
    assert (tmp_path / ".tmp-0123456789abcdef").exists()


def test_a_build_that_is_resumed_meanwhile_is_left_alone() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    _, prefix = plant_build(store, "cancelled")
    (found,) = find_in(store, "out")
    job = keys(store.at("root/open"))[0].removesuffix(".json")
    set_intent(store.at("root"), job, "open")
    before = keys(store)
    assert found.remove() == 0
    assert keys(store) == before
    assert f"{prefix}/receipts/000000.json" in before


def test_a_root_without_anything_says_nothing_about_builds(store: Store) -> None:
    """An empty root is most likely the wrong one, and the markers are elsewhere."""
    plant_build(store, "none")
    intents = BuildIntents(store.at("another-root"))
    assert list(find_orphans(store.at("out"), LATER, intents)) == []
    assert intents.root_is_empty


def test_while_a_marker_cannot_be_read_no_build_is_touched(store: Store) -> None:
    plant_build(store, "none")
    plant_build(store, "cancelled")
    store.put("root/open/damaged.json", b"no marker")
    intents = BuildIntents(store.at("root"))
    assert list(find_orphans(store.at("out"), LATER, intents)) == []
    assert intents.unreadable == ("damaged",)


@pytest.fixture
def cancelled(tmp_path: Path) -> tuple[BuildLocation, Marker, dict[str, Any]]:
    """A real build, cancelled before its manifest was written, with its marker in ``root``."""
    fields = {"bundle": str(tiny_bundle(tmp_path / "tiny")), "destination": str(tmp_path / "out"), "name": "real"}
    location = locate_build(resolve_draft(parse_draft(fields | {"count": 60, "shard_size": 20, "batch": 16}))[0])
    build(location, load_bundle(open_store(fields["bundle"])), device="cpu")
    location.store.delete("manifest.json")
    root = open_store(str(tmp_path / "root"))
    push(open_store(fields["bundle"]), root)
    marker = create_marker(root, marker_for_build(location, str(tmp_path / "out"), "real", "default", 0.0))
    set_intent(root, marker.job, "cancelled")
    past = time.time() - 3 * 86400
    for path in tmp_path.rglob("*"):
        if path.is_file():
            os.utime(path, (past, past))
    return location, marker, fields


def test_the_command_and_a_build_from_its_beginning_after_it(
    cancelled: tuple[BuildLocation, Marker, dict[str, Any]], tmp_path: Path
) -> None:
    location, _, fields = cancelled
    before = {info.key: location.store.get(info.key) for info in location.store.list()}
    arguments = [str(tmp_path / "out"), "--root", str(tmp_path / "root")]
    run = CliRunner().invoke
    dry = json.loads(run(sweep_command, [*arguments, "--json"]).stdout)
    assert (dry["dry_run"], dry["totals"]["build"]["removed"]) == (True, 0)
    assert dry["totals"]["build"]["objects"] == len(before)
    assert keys(location.store) == sorted(before)
    assert "a dry run" in run(sweep_command, arguments).stdout
    young = json.loads(run(sweep_command, [*arguments, "--json", "--older-than", "7d", "--delete"]).stdout)
    assert young["totals"] == {}
    done = json.loads(run(sweep_command, [*arguments, "--json", "--delete"]).stdout)
    assert done["totals"]["build"]["removed"] == len(before) - 1
    assert keys(location.store) == ["recipe.json"]
    build(location, load_bundle(open_store(fields["bundle"])), device="cpu")
    again = {
        info.key: location.store.get(info.key) for info in location.store.list() if not info.key.startswith("runs/")
    }
    assert {key: data for key, data in before.items() if not key.startswith("runs/")} == {
        key: data for key, data in again.items() if key != "manifest.json"
    }
    assert verify_dataset(location.url, deep=True).problems == ()


@pytest.mark.parametrize("age", ["0s", "59s", "1", "-1d", "1w", "1d ", "9999999999d", "1.5d", "\u0661d"])
def test_an_age_that_is_none_is_refused(tmp_path: Path, age: str) -> None:
    refused = CliRunner().invoke(sweep_command, [str(tmp_path), "--root", str(tmp_path), f"--older-than={age}"])
    assert isinstance(refused.exception, SpecError)
