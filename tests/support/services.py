"""Services for tests: one with real Redis, S3 and worker processes that can be killed, and one without Celery."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis as redis_py
from pydantic import SecretStr

from generator.production.commit import BuildLocation, find_manifest
from generator.store import open_store
from tests.support.command_server import shared_fork_server
from tests.support.forked_worker import ForkedWorker
from tests.support.servers import RedisServer, S3Server
from workers.client import Client
from workers.embedded import WorkerProcess
from workers.jobs.pool import Pool
from workers.jobs.status import JobStatus
from workers.settings import Settings
from workers.worker.reconciler import Reconciler
from workers.worker.ticket_handler import TicketHandler, open_ticket_handler


class LiveService:
    """Settings, client and workers on one Redis and one S3; ``stop`` kills the workers."""

    def __init__(self, redis: RedisServer, s3: S3Server, bucket: str, home: Path) -> None:
        self.redis, self.bucket, self.home = redis, bucket, home
        self.settings = Settings(
            redis_url=SecretStr(redis.url),
            root=f"{bucket}/mill",
            state_dir=home / "state",
            cache_dir=home / "cache",
            lease_seconds=2.0,
            reconcile_seconds=0.5,
            grace_seconds=5.0,
            s3_endpoint_url=s3.endpoint_url,
            s3_region=s3.region,
            s3_access_key=SecretStr(s3.access_key),
            s3_secret_key=SecretStr(s3.secret_key),
        )
        self.client, self.pool = Client(self.settings), Pool(self.settings)
        self._workers: list[WorkerProcess] = []

    def spec(self, bundle: Path, **fields: Any) -> dict[str, Any]:
        """The fields of a job on this service, with 12 shards; ``fields`` override them."""
        return {
            "bundle": str(bundle),
            "destination": f"{self.bucket}/datasets",
            "name": "tiny",
            "count": 600,
            "shard_size": 50,
            "batch": 32,
        } | fields

    def start_worker(self, module: str = "workers.worker.tasks") -> WorkerProcess:
        log = self.home / f"worker-{len(self._workers)}.log"
        self._workers.append(ForkedWorker(shared_fork_server(), self.redis.url, self.settings, log, module))
        return self._workers[-1]

    def kill_worker(self, worker: WorkerProcess) -> None:
        """Send SIGKILL to the worker and its children, as if the machine were lost."""
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = 90.0) -> None:
        """Wait until ``condition()``; fail with the workers' logs after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def location(self, url: str, name: str) -> BuildLocation:
        """The location of a build that was begun, by its URL."""
        from generator.production.commit import read_build_location

        return read_build_location(open_store(url, self.settings.s3), name)

    def is_committed(self, url: str) -> bool:
        return find_manifest(self.location(url, "tiny")) is not None

    def logs(self) -> str:
        return "\n".join(path.read_text()[-6000:] for path in sorted(self.home.glob("worker-*.log")))

    def stop(self) -> None:
        """Kill all workers: to leave in order takes seconds, and nothing is looked at afterwards."""
        for worker in self._workers:
            if worker.is_alive():
                self.kill_worker(worker)


@contextmanager
def running_service(redis: RedisServer, s3: S3Server, bucket: str, home: Path) -> Iterator[LiveService]:
    """A service, without workers at first; its workers are killed after the block."""
    service = LiveService(redis, s3, bucket, home)
    try:
        yield service
    finally:
        service.stop()


class ManualService:
    """A client, a reconciler and one ticket handler on local directories; each step is called explicitly."""

    def __init__(self, server: RedisServer, bundle: Path, home: Path) -> None:
        redis_py.Redis.from_url(server.url).flushall()
        self.redis, self.bundle, self.home = redis_py.Redis.from_url(server.url), bundle, home
        self.settings = Settings(
            redis_url=SecretStr(server.url),
            root=str(home / "root"),
            state_dir=home / "state",
            cache_dir=home / "cache",
            device="cpu",
            lease_seconds=1.0,
        )
        self.client, self.ticket_handler = Client(self.settings), open_ticket_handler(self.settings)

    def spec(self, name: str = "tiny", **fields: object) -> dict[str, Any]:
        """The fields of a job with two shards; ``fields`` override them."""
        defaults = {"bundle": str(self.bundle), "destination": str(self.home / "out"), "name": name, "count": 60}
        return defaults | {"shard_size": 30, "batch": 16} | fields

    def submit(self, name: str = "tiny", **fields: object) -> JobStatus:
        return self.client.submit(self.spec(name, **fields))

    def serve(self, tickets: int, handler: TicketHandler | None = None) -> list[str]:
        """Serve this many tickets, and end every back-off before each; returns their summaries."""
        summaries = []
        for _ in range(tickets):
            for job in self.ticket_handler.pool.ledger.open_jobs():
                self.redis.delete(self.key(f"committing:{job}"))
                if waiting := self.redis.zrange(self.key(f"lease:{job}"), 0, -1):
                    self.redis.zadd(self.key(f"lease:{job}"), dict.fromkeys(waiting, 0.0))
                self.ticket_handler.pool.ledger.free_expired(job, 5)
            summaries.append((handler or self.ticket_handler).serve().summary)
        return summaries

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Meanwhile a worker answers queries, and makes shards."""
        ledger, stop = self.ticket_handler.pool.ledger, threading.Event()

        def serve() -> None:
            while not stop.wait(0.01):
                self.ticket_handler.serve()

        thread = threading.Thread(target=serve)
        ledger.register_worker("answering", 1, 60.0)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            ledger.unregister_worker("answering", 1)

    def reconcile(self) -> None:
        """Run one pass of a new reconciler that has all duties."""
        for key in self.redis.scan_iter(self.key("turn:*")):
            self.redis.delete(key)
        Reconciler(self.settings).run_once()

    def key(self, name: str) -> str:
        """A key of this pool in Redis."""
        return self.ticket_handler.pool.identity.prefix() + name

    def state(self, job: JobStatus) -> str:
        return self.client.status(job.job).state
