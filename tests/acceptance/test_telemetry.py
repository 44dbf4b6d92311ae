"""Metrics of real processes: a worker whose child is killed and whose Redis dies, a scheduler, and none if off."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer
from workers.client import Client
from workers.embedded import WorkerProcess, scheduler_command
from workers.settings import Settings

SHARDS, SAMPLES = 7, 150
VERSION = version("latentmill")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose shards take long enough to kill a process during one."""
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "slow", size=128, channels=3, dims=16)


@pytest.fixture
def logged_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes log their imports, which takes them a second."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")


@pytest.fixture
def settings(redis_server: RedisServer, tmp_path: Path) -> Settings:
    """Settings of a pool on directories."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Settings(
        redis_url=SecretStr(redis_server.url),
        root=str(tmp_path / "root"),
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
        device="cpu",
        concurrency=2,
        threads=1,
        lease_seconds=2.0,
        reconcile_seconds=0.5,
        redis_timeout=2.0,
        metrics_port=port,
    )


def job(bundle: Path, home: Path) -> dict[str, object]:
    return {
        "bundle": str(bundle),
        "destination": str(home / "out"),
        "name": "tiny",
        "count": SHARDS * SAMPLES,
        "shard_size": SAMPLES,
        "batch": 32,
    }


@contextmanager
def running(settings: Settings, home: Path, command: list[str] | None = None) -> Iterator[WorkerProcess]:
    assert settings.redis_url is not None
    worker = WorkerProcess(settings.redis_url.get_secret_value(), settings, home / "worker.log", command)
    try:
        yield worker
    finally:
        worker.stop(10.0)


def scrape(settings: Settings) -> dict[str, float]:
    """Samples by name and labels; empty while nothing listens."""
    try:
        with urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=10.0) as answer:
            text = answer.read().decode()
    except (URLError, ConnectionError):
        return {}
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Watcher:
    """Scrapes repeatedly; counters must never decrease."""

    def __init__(self, settings: Settings) -> None:
        self.seen: list[dict[str, float]] = []
        self._settings, self._stopped = settings, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def went_down(self) -> list[str]:
        """Counters that have decreased or disappeared."""
        pairs = zip(self.seen, self.seen[1:], strict=False)
        return [
            f"{name}: {value} -> {after.get(name)}"
            for before, after in pairs
            for name, value in before.items()
            if name.startswith("latentmill")
            and name.partition("{")[0].endswith(("_total", "_count", "_sum", "_bucket"))
            if after.get(name, -1.0) < value
        ]

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            if found := scrape(self._settings):
                self.seen.append(found)


def pool_of(worker: int) -> list[int]:
    """The processes of a worker's pool."""
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, line in commands.items() if b"spawn_main" in line and b"semaphore_tracker" not in line]


def until(condition: object, log: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        lines = [line for line in log.read_text().splitlines() if "import time:" not in line]
        assert time.monotonic() < deadline, "\n".join(lines[-60:])
        time.sleep(0.05)


def test_counts_outlive_a_killed_process_and_a_dead_redis(
    settings: Settings, redis_server: RedisServer, bundle: Path, tmp_path: Path
) -> None:
    client, log = Client(settings), tmp_path / "worker.log"
    submitted = client.submit(job(bundle, tmp_path))
    with running(settings, tmp_path) as worker, Watcher(settings) as watcher:
        until(lambda: 1 <= client.status(submitted.job).shards_done < SHARDS - 3, log)
        killed = pool_of(worker.process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: client.status(submitted.job).ended, log)
        until(lambda: len(pool_of(worker.process.pid)) == 2, log)
        assert client.status(submitted.job).state == "committed"
        assert killed not in pool_of(worker.process.pid)
        time.sleep(1.2)  # a response is cached for a second
        found = scrape(settings)
        done = found["latentmill_shards_total{outcome=made}"] + found["latentmill_shards_total{outcome=found}"]
        assert done >= SHARDS
        assert found["latentmill_images_total"] == SAMPLES * found["latentmill_shards_total{outcome=made}"]
        assert found["latentmill_shard_seconds_count"] == found["latentmill_shards_total{outcome=made}"]
        assert found["latentmill_commits_total{outcome=committed}"] == 1
        assert found["latentmill_stage_seconds_total{stage=decode}{time=clock}"] > 0.0
        assert (found["latentmill_redis_up"], found["latentmill_slots"]) == (1, 2)
        assert found["latentmill_jobs{state=committed}"] == 1
        assert found["latentmill_shards_running"] == 0
        assert max(seen.get("latentmill_shards_running", 0.0) for seen in watcher.seen) <= 2
        assert {name for name in found if "role" in name} == {f"latentmill_info{{role=worker}}{{version={VERSION}}}"}
        assert not [name for name in found if "pid" in name]
        redis_server.kill()
        time.sleep(1.2)
        begun = time.monotonic()
        without = scrape(settings)
        assert time.monotonic() - begun < settings.redis_timeout
        assert without["latentmill_redis_up"] == 0
        assert without["latentmill_images_total"] == found["latentmill_images_total"]
        assert "latentmill_slots" not in without
        redis_server.restart()
        until(lambda: scrape(settings).get("latentmill_redis_up") == 1, log)
        assert list(settings.metrics_dir.glob("worker-*/counter_*.db"))
    assert watcher.went_down() == []
    assert len(watcher.seen) > 10
    assert list(settings.metrics_dir.glob("worker-*")) == []
    assert scrape(settings) == {}


def test_shards_in_the_making_are_counted(settings: Settings, bundle: Path, tmp_path: Path) -> None:
    """Both pool processes are stopped while each makes a shard, so that the count does not change meanwhile."""
    long_lease = settings.model_copy(update={"lease_seconds": 120.0})
    client, log = Client(long_lease), tmp_path / "worker.log"
    submitted = client.submit(job(bundle, tmp_path))
    with running(long_lease, tmp_path) as worker:
        until(lambda: stopped(worker.process.pid, lambda: client.status(submitted.job).shards_running == 2), log)
        pool = pool_of(worker.process.pid)
        try:
            until(lambda: scrape(long_lease).get("latentmill_shards_running") == 2, log)
            assert client.status(submitted.job).shards_running == 2
        finally:
            for process in pool:
                os.kill(process, signal.SIGCONT)
        until(lambda: client.status(submitted.job).ended, log)
        until(lambda: scrape(long_lease).get("latentmill_shards_running") == 0, log)
        assert client.status(submitted.job).state == "committed"


def stopped(worker: int, condition: Callable[[], bool]) -> bool:
    """Stops the processes of a worker's pool; continues them unless ``condition`` holds then."""
    pool = pool_of(worker)
    for process in pool:
        os.kill(process, signal.SIGSTOP)
    if pool and condition():
        return True
    for process in pool:
        os.kill(process, signal.SIGCONT)
    return False


@pytest.mark.usefixtures("logged_imports")
def test_where_metrics_are_off_nothing_listens_and_nothing_is_imported(
    settings: Settings, bundle: Path, tmp_path: Path
) -> None:
    off = settings.model_copy(update={"metrics_port": None, "concurrency": 1})
    client = Client(off)
    submitted = client.submit(job(bundle, tmp_path) | {"count": 10, "shard_size": 10})
    with running(off, tmp_path) as worker:
        until(lambda: client.status(submitted.job).state == "committed", tmp_path / "worker.log")
        assert scrape(settings) == {}
        assert listening(worker.process.pid) == 0
    log = (tmp_path / "worker.log").read_text()
    assert "workers.telemetry" in log
    assert "generator.production.mill" in log
    assert "prometheus_client" not in log
    assert not off.metrics_dir.exists()


def listening(pid: int) -> int:
    """Number of TCP sockets that a process listens on."""
    held = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "0A" and f"socket:[{row[9]}]" in held for row in rows)


def test_a_worker_whose_port_is_taken_takes_no_ticket(settings: Settings, tmp_path: Path) -> None:
    port = settings.metrics_port
    assert port is not None
    with socket.create_server(("127.0.0.1", port)), running(settings, tmp_path) as worker:
        assert worker.process.wait(60) == 2
    log = (tmp_path / "worker.log").read_text()
    assert f"error: LATENTMILL_METRICS_PORT: expected a free port on this machine, got 127.0.0.1:{port}" in log
    assert list(settings.metrics_dir.glob("worker-*")) == []


@pytest.mark.usefixtures("logged_imports")
def test_a_scheduler_tells_of_the_pool_and_of_itself(
    settings: Settings, redis_server: RedisServer, tmp_path: Path
) -> None:
    with running(settings, tmp_path, scheduler_command()):
        until(lambda: scrape(settings), tmp_path / "worker.log")
        found = scrape(settings)
        assert found["latentmill_redis_up"] == 1
        assert found[f"latentmill_info{{role=scheduler}}{{version={VERSION}}}"] == 1
        assert 0.0 <= found["latentmill_scheduler_silent_seconds"] < 30.0
        assert found["process_resident_memory_bytes"] > 0
        assert "latentmill_images_total" not in found
    assert "prometheus_client" in (tmp_path / "worker.log").read_text()
