"""``latentmill up``, ``demo`` and ``health`` as processes: they tell where they are, and leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import urllib3

from generator.errors import BrokerUnavailable
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.command_server import run_command
from tests.support.running_command import Running, descendants, lives, until
from tests.support.small_builds import SmallBuild
from workers.broker.connection import connect, embedded_root, redis_address
from workers.client import Client
from workers.server.access.keys import read_keys
from workers.settings import Settings

DIGITS = tuple("0123456789")


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Running]:
    def start(*words: str, **environment: str) -> Running:
        running = Running(tmp_path / "a home", *words, **environment)
        request.addfinalizer(running.clean_up)
        return running

    return start


def test_up_tells_clients_its_root(run: Callable[..., Running]) -> None:
    up = run("up", "--workers", "2", "--root", "my root")
    up.until_served(up.state / "redis.json")
    client = Settings(state_dir=up.state, redis_url=None)
    assert embedded_root(client) == (up.home / "my root").as_uri()
    second = run_command(["up"], cwd=up.home, env=up.environment, timeout=60)
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


def redis_of(up: Running) -> int:
    """The process of the redis-server of ``up``."""
    found = [pid for pid in descendants(up.process.pid) if b"-server" in name_of(pid)]
    assert len(found) == 1
    return found[0]


def name_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def answers(settings: Settings) -> bool:
    """Whether the Redis of a running ``up`` answers."""
    try:
        with connect(redis_address(settings)) as client:
            return bool(client.ping())
    except BrokerUnavailable:
        return False


def test_up_starts_a_redis_again_that_died_and_finishes_its_jobs(run: Callable[..., Running], tmp_path: Path) -> None:
    up = run("up", "--no-serve", "--root", "my root", LATENTMILL_DEVICE="cpu")
    up.until_served(up.state / "redis.json")
    settings = Settings(state_dir=up.state, redis_url=None, root=str(up.home / "my root"))
    address, server = redis_address(settings), redis_of(up)
    with connect(address) as client:
        client.set("kept", "yes")
    os.kill(server, signal.SIGKILL)
    words = "redis-server ended (SIGKILL): starting it again with its data"
    until(lambda: words in up.log.read_text() and answers(settings), up.log.read_text)
    with connect(address) as client:  # whoever knew it reaches it
        assert client.get("kept") == "yes"
    assert redis_of(up) != server
    bundle = tiny_bundle(tmp_path / "tiny")
    spec = {"bundle": str(bundle), "count": 20, "shard_size": 20, "destination": str(tmp_path / "out"), "name": "made"}
    job = Client(settings).submit(spec)
    until(lambda: Client(settings).status(job.job).state == "committed", up.log.read_text)
    up.process.send_signal(signal.SIGTERM)
    assert up.ended() == 0, up.log.read_text()
    assert not list(filter(lives, up.children))


def test_up_ends_with_the_reason_when_its_redis_dies_again_and_again(run: Callable[..., Running]) -> None:
    up = run("up", "--no-serve", "--root", "my root")
    up.until_served(up.state / "redis.json")
    settings = Settings(state_dir=up.state, redis_url=None)
    for count in range(4):
        until(lambda: up.log.read_text().count("starting it again") == count and answers(settings), up.log.read_text)  # noqa: B023
        os.kill(redis_of(up), signal.SIGKILL)
    assert up.ended() == 1
    words = "error: redis: expected an embedded redis-server that keeps running, got one that ended 4 times in 10 min"
    assert words in up.log.read_text()
    assert "Traceback" not in up.log.read_text()
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


def test_a_host_without_a_worker_is_unhealthy(run: Callable[..., Running]) -> None:
    health = run("health", "--json")
    assert health.ended() == 1
    assert json.loads(health.log.read_text()) == {"healthy": False}
