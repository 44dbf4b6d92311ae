"""The server of `latentmill up`: its port, what it shows, and why it could not start."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from generator.errors import SettingsError
from generator.models.bundle import bundle_store, load_bundle
from generator.production.commit import begin_build, locate_build
from generator.spec.canonical import digest_of
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from workers.cli.server_of_up import local_datasets, take_bundles, with_server_settings
from workers.embedded import WorkerProcess
from workers.settings import DEFAULT_SERVER_PORT, Settings


@contextmanager
def taken(port: int = 0) -> Iterator[int]:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with_port = other.connect_ex(("127.0.0.1", port)) == 0 if port else False
        if not with_port:
            other.bind(("127.0.0.1", port))
            other.listen()
        yield port or other.getsockname()[1]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return Settings(root=str(tmp_path / "root"), state_dir=tmp_path / "state")


def test_a_port_that_was_asked_for_and_is_taken_is_an_error_that_says_what_changes_it(settings: Settings) -> None:
    with taken() as port, pytest.raises(SettingsError) as caught:
        with_server_settings(settings.model_copy(update={"server_port": port}))
    assert caught.value.field == "LATENTMILL_SERVER_PORT"
    assert str(port) in caught.value.got
    assert "--port" in caught.value.hint


def test_without_one_the_next_that_is_free_is_taken(settings: Settings) -> None:
    with taken(DEFAULT_SERVER_PORT):
        found = with_server_settings(settings).server_port
    assert found not in (None, DEFAULT_SERVER_PORT)


def test_settings_that_a_server_cannot_start_with_are_refused_before_anything_starts(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "tenants.yaml").write_text("tenants: [")
    for wrong, field in (
        ({"server_host": "0.0.0.0"}, "LATENTMILL_SERVER_NAMES"),
        ({"server_cert_file": tmp_path / "none.pem"}, "LATENTMILL_SERVER_KEY_FILE"),
        ({"server_proxies": "*"}, "LATENTMILL_SERVER_PROXIES"),
        ({"tenants_file": tmp_path / "tenants.yaml"}, "LATENTMILL_TENANTS_FILE"),
        ({"destinations": str(tmp_path / "root")}, "destinations"),
        ({"destinations": "s3://x/y"}, "LATENTMILL_DESTINATIONS"),
    ):
        with pytest.raises(SettingsError) as caught:
            with_server_settings(settings.model_copy(update=wrong))
        assert caught.value.field == field
    assert not list(tmp_path.glob("root/*"))


def test_this_directory_is_shown_at_a_loopback_address_where_no_places_are_set(
    settings: Settings, tmp_path: Path
) -> None:
    found = with_server_settings(settings)
    assert found.server_directory == tmp_path
    with local_datasets(found) as shown:
        assert str(tmp_path) in shown["shows"]
    for update in ({"destinations": "s3://data/y"}, {"server_host": "0.0.0.0", "server_names": "mill.example"}):
        other = with_server_settings(settings.model_copy(update=update))
        assert other.server_directory is None
        with local_datasets(other) as shown:
            assert shown == {}


@pytest.mark.parametrize("where", ["digits.bundle", "root/bundles/x"])
def test_bundles_that_lie_beside_the_datasets_are_taken_into_the_root(
    settings: Settings, bundle: Path, tmp_path: Path, where: str
) -> None:
    digest = digest_of((bundle / "bundle.json").read_bytes())
    demo, root = tmp_path / "demo", open_store(settings.root)
    shutil.copytree(bundle, demo / where)
    order = Order(destination=str(demo / "datasets"), name="digits")
    (demo / "datasets").mkdir()
    take_bundles(settings, tmp_path)
    assert not list(root.list("bundles/"))  # no build here is of it
    begin_build(locate_build(JobSpec(recipe=Recipe(bundle=digest, counts=(5,)), order=order)))
    take_bundles(settings, tmp_path)
    assert list(root.children("bundles/")) == [digest.removeprefix("sha256:")]
    assert load_bundle(bundle_store(root, digest), digest).digest == digest


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "print('INFO x'); print('error: LATENTMILL_ROOT: expected 1, got 2'); print('later'); exit(2)",
            "LATENTMILL_ROOT: exp",
        ),
        ("raise SystemExit('nothing to be done')", "nothing to be done"),
        ("exit(3)", "exit code 3"),
        ("print('x'); import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ],
    ids=["error", "text", "silent", "killed"],
)
def test_a_process_that_ends_has_said_why(tmp_path: Path, script: str, words: str) -> None:
    log = tmp_path / "server.log"
    log.write_text("error: of an earlier one\n")
    process = WorkerProcess("redis://localhost", Settings(), log, [sys.executable, "-c", script])
    process.process.wait(30)
    assert process.last_words().startswith(words)
