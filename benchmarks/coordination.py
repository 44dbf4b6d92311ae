"""Measures the cost of coordination: instant shards, on a real Redis, with real Celery workers.

    python benchmarks/coordination.py            all parts, about 15 minutes
    python benchmarks/coordination.py --quick    small numbers, for a test

1. Time per shard, against the time of empty Celery tasks in the same worker, measured in turns.
2. A job of 100,000 instant shards: memory of the ledger, tickets in the broker, time to submit, to serve a ticket, to
   rebuild the ledger from the store, to commit.
3. Time from the SIGKILL of a worker until another one has made its shard, against the lease.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from pydantic import SecretStr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from generator.production.commit import BuildLocation  # noqa: E402
from generator.production.provenance.manifest import Receipt, StoredFile, receipt_key, shard_key, table_key  # noqa: E402
from generator.spec.canonical import digest_of  # noqa: E402
from generator.spec.plan import Plan  # noqa: E402
from tests.support.bundles import tiny_bundle  # noqa: E402
from workers.client import Client  # noqa: E402
from workers.embedded import EmbeddedRedis, stop_processes, worker_command, worker_environment  # noqa: E402
from workers.jobs.pool import Pool  # noqa: E402
from workers.settings import ENV_PREFIX, Settings  # noqa: E402
from workers.worker.ticket_handler import open_ticket_handler  # noqa: E402

_PATIENCE = 600.0
_SERVED = 5000  # tickets of the large job; the other shards are then read from the store


class PoolBench:
    """A Redis, a scratch directory (in memory if possible), and workers that are started and stopped."""

    def __init__(self, url: str, home: Path, **settings: Any) -> None:
        self.settings = Settings(
            redis_url=SecretStr(url),
            root=str(home / "root"),
            state_dir=home / "state",
            cache_dir=home / "cache",
            device="cpu",
            reconcile_seconds=1.0,
            shards_per_child=10**9,
            **settings,
        )
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.pool = home, Pool(self.settings)
        self.redis: Any = redis.Redis.from_url(url)

    def job(self, name: str, shards: int) -> dict[str, Any]:
        bundle = self.home / "tiny"
        if not bundle.exists():
            tiny_bundle(bundle)
        location = {"bundle": str(bundle), "destination": str(self.home / "out"), "name": name}
        return location | {"count": shards, "shard_size": 1, "batch": 1}

    @contextmanager
    def worker(self, mode: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker that has announced itself; it is killed with its children when the block ends."""
        command = [
            part if part != "workers.worker.tasks" else "coordination_app" for part in worker_command(self.settings)
        ]
        environment = worker_environment(self.settings) | {
            f"{ENV_PREFIX}BENCHMARK": mode,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "benchmarks"), str(ROOT))),
        }
        before = self.pool.ledger.slots()
        with (self.home / "worker.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: self.pool.ledger.slots() > before or process.poll() is not None)
            yield process
        finally:
            if process.poll() is None:
                stop_processes([process], 0.0)
            self.redis.delete(
                self.pool.identity.prefix() + "slots"
            )  # do not wait for the slots of dead workers to expire


def wait_until(condition: Callable[[], bool], seconds: float | None = None) -> float:
    """Wait until ``condition`` holds; returns the seconds that it took."""
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > (seconds or _PATIENCE):
            raise TimeoutError(f"not within {seconds or _PATIENCE} s")
        time.sleep(0.02)
    return time.perf_counter() - start


def time_bare_tasks(bench: PoolBench, count: int, held: int = 0) -> tuple[float, float]:
    """Seconds per empty task to publish and to run it, while ``held`` tasks never end."""
    start = time.perf_counter()
    for _ in range(count):
        bench.pool.app.send_task("benchmark.nothing", queue=bench.settings.queue)
    published = time.perf_counter() - start
    return published / count, wait_idle(bench, held) / count


def wait_idle(bench: PoolBench, held: int = 0) -> float:
    """Wait until no ticket waits and at most ``held`` are being served; returns the seconds that it took."""
    queue = bench.pool.ledger.queue_key(bench.settings.queue)
    return wait_until(
        lambda: not bench.redis.llen(queue) and bench.redis.hlen(bench.pool.ledger.queue_key("unacked")) <= held
    )


def time_shards(bench: PoolBench, name: str, count: int) -> float:
    """Seconds per shard, from submission until nearly all of the job is done; then cancels the job."""
    start = time.perf_counter()
    job = Client(bench.settings).submit(bench.job(name, count)).job
    needed = count - max(1, count // 50)  # the missing shards prevent a commit
    wait_until(lambda: bench.pool.ledger.counts(job).done >= needed)
    seconds = time.perf_counter() - start
    bench.pool.cancel(job)
    wait_idle(bench)
    return seconds / needed


def measure_cost(url: str, home: Path, tasks: int, rounds: int) -> dict[str, Any]:
    bench, facts = PoolBench(url, home), dict[str, Any]()
    for mode in ("ledger", "store"):
        rows = []
        with bench.worker(mode):
            time_bare_tasks(bench, 50)  # warm-up: starts the pool's process
            for number in range(rounds):
                published, ran = time_bare_tasks(bench, tasks)
                rows.append((published, ran, time_shards(bench, f"{mode}-{number}", tasks)))
        facts[mode] = {
            "bare_publish_ms": round(1000 * statistics.median(row[0] for row in rows), 2),
            "bare_run_ms": round(1000 * statistics.median(row[1] for row in rows), 2),
            "shard_ms": round(1000 * statistics.median(row[2] for row in rows), 2),
            "ratio_to_publish_and_run": round(statistics.median(row[2] / (row[0] + row[1]) for row in rows), 2),
            "ratio_to_run": round(statistics.median(row[2] / row[1] for row in rows), 2),
            "tasks": tasks,
            "rounds": rounds,
        }
    return facts


def write_fake_shards(location: BuildLocation, environment: str) -> None:
    """Write every shard but the first, which the preview shows: a few bytes with a matching receipt."""
    base, data, plan = Path(location.url.removeprefix("file://")), b".", Plan(location.recipe)
    for folder in ("shards", "samples", "receipts"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for shard in (plan.shard(number) for number in range(1, plan.shard_count)):
        keys = shard_key(location.name, shard.number), table_key(location.name, shard.number)
        files = [StoredFile(key=key, digest=digest_of(data), size=1) for key in keys]
        receipt = Receipt(
            recipe=location.recipe_digest,
            environment=environment,
            number=shard.number,
            samples=len(shard),
            counts=tuple(int((shard.labels_N == label).sum()) for label in range(len(location.recipe.counts))),
            refused=0,
            shard=files[0],
            table=files[1],
        )
        for key in keys:
            (base / key).write_bytes(data)
        (base / receipt_key(shard.number)).write_bytes(receipt.canonical())


def measure_large_job(url: str, home: Path, shards: int) -> dict[str, Any]:
    """A job of ``shards`` shards, served ticket by ticket in this process; all but the first are instant.

    After some thousand tickets, the ledger is rebuilt from the receipts; only the commit is left then.
    """
    bench = PoolBench(url, home)
    handler = open_ticket_handler(bench.settings)
    spec = bench.job("large", shards)
    bench.redis.flushall()
    before = bench.redis.info("memory")["used_memory"]
    start = time.perf_counter()
    job = Client(bench.settings).submit(spec).job
    submitted = time.perf_counter() - start
    marker = bench.pool.marker(job)
    assert marker is not None
    location = marker.location(bench.settings.s3)
    write_fake_shards(location, handler.decoders.maker(location).environment.digest)
    handler.serve()
    ledger, tickets, served = [0], [0], min(shards // 2, _SERVED)
    start, processor = time.perf_counter(), time.process_time()
    for number in range(served):
        handler.serve()
        bench.redis.lpop(bench.pool.ledger.queue_key(bench.settings.queue))
        if number % 10 == 0:
            handler.pool.top_up()
            ledger.append(bench.redis.info("memory")["used_memory"] - before)
            tickets.append(bench.redis.llen(bench.pool.ledger.queue_key(bench.settings.queue)))
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    start = time.perf_counter()
    handler.pool.correct_ledger(marker)
    rebuilt, start = time.perf_counter() - start, time.perf_counter()
    summary = handler.serve().summary
    if "committed" not in summary:
        raise RuntimeError(summary)
    return {
        "shards": shards,
        "submit_seconds": round(submitted, 2),
        "served": served,
        "serve_ms": round(1000 * seconds / served, 2),
        "serve_processor_ms": round(1000 * processor / served, 2),
        "rebuild_seconds": round(rebuilt, 2),
        "commit_seconds": round(time.perf_counter() - start, 1),
        "redis_mib_at_most": round(max(ledger) / 2**20, 2),
        "tickets_at_most": max(tickets),
        "window": 2 * bench.settings.tickets_per_slot,
        "manifest_mib": round(_manifest_bytes(bench, job) / 2**20, 1),
    }


def _manifest_bytes(bench: PoolBench, job: str) -> int:
    path = Path(bench.pool.ledger.facts(job)["url"].removeprefix("file://")) / "manifest.json"
    return path.stat().st_size


def measure_recovery(url: str, home: Path, lease: float, trials: int) -> dict[str, Any]:
    """Seconds from the SIGKILL of the holder until another, idle worker has done the shard."""
    seconds, bench = [], PoolBench(url, home, lease_seconds=lease)
    for number in range(trials):
        bench.redis.flushall()
        with bench.worker("hold") as holder:
            job = Client(bench.settings).submit(bench.job(f"lost-{lease:.0f}-{number}", 1)).job
            wait_until(lambda job=job: bench.pool.ledger.counts(job).running == 1)  # type: ignore[misc]
            with bench.worker("ledger"):
                time_bare_tasks(bench, 5, held=1)
                os.killpg(holder.pid, signal.SIGKILL)
                holder.wait()
                seconds.append(wait_until(lambda job=job: bench.pool.ledger.counts(job).done == 1))  # type: ignore[misc]
                bench.pool.cancel(job)
    return {
        "lease_seconds": lease,
        "reconcile_seconds": bench.settings.reconcile_seconds,
        "trials": trials,
        "median_seconds": round(statistics.median(seconds), 2),
        "longest_seconds": round(max(seconds), 2),
        "longest_over_lease": round(max(seconds) / lease, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--shards", type=int, default=100_000, help="shards of the large job")
    parser.add_argument("--tasks", type=int, default=2000, help="tasks per turn when the cost is measured")
    parser.add_argument("--parts", default="cost,large,recovery", help="which of the three parts to measure")
    args = parser.parse_args()
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as home,
        EmbeddedRedis(Path(home) / "redis") as server,
    ):
        home_path = Path(home)
        if "cost" in args.parts:
            tasks, rounds = (60, 1) if args.quick else (args.tasks, 5)
            show("cost", measure_cost(server.url, home_path / "cost", tasks, rounds))
        if "large" in args.parts:
            show("large", measure_large_job(server.url, home_path / "large", 200 if args.quick else args.shards))
        if "recovery" in args.parts:
            leases, trials = ((1.0,), 1) if args.quick else ((2.0, 5.0, 20.0), 3)
            show("recovery", [measure_recovery(server.url, home_path / "lost", lease, trials) for lease in leases])


def show(part: str, facts: Any) -> None:
    print(json.dumps({part: facts}, indent=2), flush=True)


if __name__ == "__main__":
    main()
