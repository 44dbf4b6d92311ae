"""A service for fault tests: workers reach Redis and S3 through proxies that inject faults, the observer does not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr

from tests.faults.process_reaper import ProcessReaper
from tests.faults.s3_proxy import S3Proxy, no_faults
from tests.faults.tcp_proxy import NO_FAULTS, TcpProxy
from tests.support.command_server import shared_fork_server
from tests.support.forked_worker import ForkedWorker
from tests.support.sentinels import SentinelRedis
from tests.support.servers import RedisServer, S3Server
from workers.client import Client
from workers.embedded import WorkerProcess
from workers.jobs.pool import Pool
from workers.settings import Settings

NAME = "tiny"
# Short times, so that tests do not wait long.
FAST_SETTINGS: dict[str, Any] = {
    "lease_seconds": 1.5,
    "reconcile_seconds": 0.5,
    "grace_seconds": 3.0,
    "visibility_timeout": 60,
    "s3_connect_timeout": 2.0,
    "s3_read_timeout": 1.0,
    "threads": 1,
    "redis_timeout": 1.0,
}


class FaultyService:
    """Redis, two TCP proxies, an S3 proxy and workers; all of them are stopped after the block in any case.

    ``settings``, ``client`` and ``pool`` belong to the observer, who meets no faults; ``worker_settings`` are those of
    the workers. Bytes between a worker and S3 pass ``store_tcp_proxy``, then ``s3_proxy`` (which parses HTTP).
    Workers are ``forked`` from a process that has imported torch, or start as fresh interpreters. With ``sentinel``,
    Redis is a master with a replica behind a Sentinel, without a proxy.
    """

    def __init__(
        self,
        home: Path,
        s3: S3Server,
        bucket: str,
        *,
        seed: int = 0,
        forked: bool = False,
        sentinel: bool = False,
        **settings: Any,
    ) -> None:
        self.home, self.bucket, self._s3, self._seed, self._forked = home, bucket, s3, seed, forked
        self._with_sentinel = sentinel
        self.sentinel: SentinelRedis | None = None
        self._options = FAST_SETTINGS | settings
        self.workers: list[WorkerProcess] = []
        self._started = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.watcher = stack.enter_context(ProcessReaper())
            self._start_redis(stack)
            self.redis_proxy = stack.enter_context(TcpProxy(self.redis.port, seed=self._seed))
            self.s3_proxy = stack.enter_context(S3Proxy(self._s3.port))
            self.store_tcp_proxy = stack.enter_context(TcpProxy(self.s3_proxy.port, seed=self._seed + 1))
            self.settings = self._settings(self.redis.port, self._s3.port)
            self.worker_settings = self._settings(self.redis_proxy.port, self.store_tcp_proxy.port)
            self.client, self.pool = Client(self.settings), Pool(self.settings)
            stack.callback(self._end_workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def redis(self) -> RedisServer:
        """The server; with Sentinel the present master, which a starved machine may replace more than once."""
        return self.sentinel.master() if self.sentinel else self._redis

    def stop_faults(self) -> None:
        """Inject no more faults."""
        self.redis_proxy.faults = self.store_tcp_proxy.faults = NO_FAULTS
        self.s3_proxy.plan = no_faults

    def start_worker(self, **settings: Any) -> WorkerProcess:
        """Start one more worker behind the proxies, with these settings changed."""
        log = self.home / f"worker-{self._started}.log"
        self._started += 1
        changed = self.worker_settings.model_copy(update=settings)
        url = self.sentinel.url if self.sentinel else f"redis://127.0.0.1:{self.redis_proxy.port}/0"
        worker = (
            ForkedWorker(shared_fork_server(), url, changed, log) if self._forked else WorkerProcess(url, changed, log)
        )
        self.workers.append(worker)
        return worker

    def _start_redis(self, stack: ExitStack) -> None:
        if self._with_sentinel:
            self.sentinel = SentinelRedis()
            stack.callback(self.sentinel.stop)
            for server in (*self.sentinel.servers, *self.sentinel.sentinels):
                self.watcher.note(server.pid)
            return
        self._redis = RedisServer()
        stack.callback(self._redis.stop)
        self.watcher.note(self._redis.pid)

    def master_lost(self) -> Callable[[], bool]:
        """Kill the master. Ask what is returned whether another server has its place; it then brings the lost one back,
        as a replica."""
        sentinel = self.sentinel
        assert sentinel is not None
        lost = sentinel.master()
        lost.kill()

        def is_replaced() -> bool:
            if sentinel.master() is lost:
                return False
            lost.restart()
            self.watcher.note(lost.pid)
            return True

        return is_replaced

    def restart_redis(self) -> None:
        """Start Redis again, on the same port and append-only file."""
        self.redis.restart()
        self.watcher.note(self.redis.pid)

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = 90.0, pause: float = 0.05) -> None:
        """Wait until ``condition()``, asked every ``pause`` seconds; fail with the workers' logs after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(pause)

    def logs(self) -> str:
        """The last lines of all workers' logs."""
        return "\n".join(f"=== {path.name}\n{path.read_text()[-4000:]}" for path in self.home.glob("worker-*.log"))

    def _settings(self, redis_port: int, s3_port: int) -> Settings:
        redis: dict[str, Any] = {"redis_url": SecretStr(f"redis://127.0.0.1:{redis_port}/0")}
        return Settings(
            root=f"{self.bucket}/mill",
            state_dir=self.home / "state",
            cache_dir=self.home / "cache",
            device="cpu",
            s3_endpoint_url=f"http://127.0.0.1:{s3_port}",
            s3_region=self._s3.region,
            s3_access_key=SecretStr(self._s3.access_key),
            s3_secret_key=SecretStr(self._s3.secret_key),
            **(self.sentinel.settings if self.sentinel else redis),
            **self._options,
        )

    def _end_workers(self) -> None:
        """Terminate all workers, then kill the remaining processes, including orphans."""
        self.stop_faults()
        for worker in self.workers:
            if worker.is_alive():
                send_signal(process_tree(worker), signal.SIGCONT)
                worker.process.terminate()
        deadline = time.monotonic() + 10.0
        while any(worker.is_alive() for worker in self.workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        for worker in self.workers:
            send_signal(process_tree(worker), signal.SIGKILL)
            worker.process.wait()


def process_tree(worker: WorkerProcess) -> list[int]:
    """The ids of one worker's live processes, the main process first; orphans are found by their session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _session(int(entry.name)) == worker.process.pid:
            found.append(int(entry.name))
    return sorted(found, key=lambda pid: (pid != worker.process.pid, pid))


def send_signal(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each of these processes that is still alive."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _session(pid: int) -> int | None:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[3])
