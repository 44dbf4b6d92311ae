"""The pool of ``throughput.py``: a private Redis, workers, timed jobs, and the memory of the workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from workers.client import Client
from workers.embedded import EmbeddedRedis, WorkerProcess
from workers.jobs.pool import Pool
from workers.settings import Settings

_PATIENCE = 1800.0
_TICKS = os.sysconf("SC_CLK_TCK")


class TimedPool:
    """Client and workers with state in ``home``; worker processes are not recycled, so that memory growth shows."""

    def __init__(self, url: str, home: Path, concurrency: int, compiled: str, cache: str) -> None:
        self.settings = Settings(
            redis_url=SecretStr(url),
            root=str(home / "root"),
            state_dir=home / "state",
            cache_dir=home / "bundles",
            device="cpu",
            concurrency=concurrency,
            threads=1,
            compile=compiled,  # type: ignore[arg-type]
            compile_cache=Path(cache),
            shards_per_child=10**9,
        )
        self.home, self.workers = home, list[WorkerProcess]()
        self.client, self._pool = Client(self.settings), Pool(self.settings)

    def start_worker(self) -> float:
        """Seconds until the worker takes tickets."""
        slots, start = self._pool.ledger.slots(), time.perf_counter()
        url = self.settings.redis_url
        assert url is not None
        log = self.home / f"worker-{len(self.workers)}.log"
        self.workers.append(WorkerProcess(url.get_secret_value(), self.settings, log))
        wait_until(lambda: self._pool.ledger.slots() > slots)
        return time.perf_counter() - start

    def run(self, bundle: str, name: str, images: int, **fields: Any) -> float:
        """Seconds from the submission of a job until its dataset is committed."""
        spec = {"bundle": bundle, "destination": str(self.home / "out"), "name": name, "count": images} | fields
        start = time.perf_counter()
        build = self._submit(spec)
        wait_until((build / "manifest.json").exists)
        return time.perf_counter() - start

    def first_image(self, bundle: str, name: str) -> float:
        """Seconds from the submission of a job of one batch until its only shard has a receipt."""
        spec = {"bundle": bundle, "destination": str(self.home / "out"), "name": name, "count": 250}
        start = time.perf_counter()
        build = self._submit(spec)
        wait_until((build / "receipts" / "000000.json").exists)
        return time.perf_counter() - start

    def _submit(self, spec: dict[str, Any]) -> Path:
        return Path(self.client.submit(spec).url.removeprefix("file://"))

    def processes(self) -> list[int]:
        """Process ids of the workers' main processes and their children."""
        mains = {worker.process.pid for worker in self.workers}
        return [process for process, parent in _parents().items() if process in mains or parent in mains]

    def peak_mib(self) -> float:
        """Peak resident memory (MiB) of the largest process."""
        return max(_status_value(process, "VmHWM") for process in self.processes()) / 1024

    def processor_seconds(self) -> float:
        """Processor seconds of all processes so far."""
        return sum(_processor_seconds(process) for process in self.processes())


@contextmanager
def running_pool(home: Path, *, concurrency: int, workers: int = 1, compiled: str, cache: str) -> Iterator[TimedPool]:
    """A pool with ``workers`` running workers; everything is stopped when the block ends."""
    home.mkdir(parents=True)
    with EmbeddedRedis(home / "redis") as server:
        running = TimedPool(server.url, home, concurrency, compiled, cache)
        try:
            for _ in range(workers):
                running.start_worker()
            yield running
        finally:
            for worker in running.workers:
                worker.stop(10.0)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_PATIENCE} s")
        time.sleep(0.01)


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(_fields(path)[1])
        except OSError:  # it has just ended
            continue
    return found


def _processor_seconds(process: int) -> float:
    fields = _fields(Path(f"/proc/{process}/stat"))
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _fields(path: Path) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the state on; the name before it may contain any character."""
    return path.read_text().rpartition(")")[2].split()


def _status_value(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
