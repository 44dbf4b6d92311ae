"""A whole service for tests: real Redis, a store, real worker processes that can be killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from generator.publish import BuildPlace, committed
from generator.store import open_store
from tests.servers import RedisServer, S3Server
from workers.client import Client
from workers.embedded import WorkerProcess
from workers.pool import Pool
from workers.settings import Settings


class Service:
    """Settings, client and workers on one Redis and one S3; ``workers`` are ended when the block ends."""

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
        """A job on this service: 12 shards unless ``fields`` say otherwise."""
        return {
            "bundle": str(bundle),
            "destination": f"{self.bucket}/datasets",
            "name": "tiny",
            "count": 600,
            "shard_size": 50,
            "batch": 32,
        } | fields

    def start_worker(self) -> WorkerProcess:
        log = self.home / f"worker-{len(self._workers)}.log"
        self._workers.append(WorkerProcess(self.redis.url, self.settings, log))
        return self._workers[-1]

    def kill_worker(self, worker: WorkerProcess) -> None:
        """SIGKILL for the worker and its children: a machine that is gone."""
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()

    def until(self, wanted: Callable[[], bool], *, seconds: float = 90.0) -> None:
        """Wait until ``wanted`` holds; fail with the workers' logs when it does not."""
        deadline = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def place(self, url: str, name: str) -> BuildPlace:
        """A build that has begun, by its URL."""
        from generator.publish import found_place

        return found_place(open_store(url, self.settings.s3), name)

    def is_committed(self, url: str) -> bool:
        return committed(self.place(url, "tiny")) is not None

    def logs(self) -> str:
        return "\n".join(path.read_text()[-6000:] for path in sorted(self.home.glob("worker-*.log")))

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop(10.0)


@contextmanager
def running_service(redis: RedisServer, s3: S3Server, bucket: str, home: Path) -> Iterator[Service]:
    """A service without workers yet."""
    service = Service(redis, s3, bucket, home)
    try:
        yield service
    finally:
        service.stop()
