"""The storm: random faults of every kind, drawn from a seed, during a whole job.

Workers are killed (the whole worker, its pool process, its main process), terminated, and stopped for longer than their
lease; Redis is killed and restarted, flushed, disconnected; tickets are lost and duplicated; three in ten requests to
the store fail. Meanwhile a reader tries to open the dataset. Afterwards every object is compared with that of an
undisturbed build.
"""

from __future__ import annotations

import heapq
import json
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import redis

from generator.datasets.builds import read_manifest
from generator.datasets.torch_dataset import open_dataset
from generator.errors import DatasetError
from generator.store import open_store
from tests.faults.build_comparison import ReferenceBuild, build_reference, compare_build, job_fields, stray_keys
from tests.faults.faulty_service import FaultyService, process_tree, send_signal
from tests.faults.reader import ReaderProcess, digest_of_samples
from tests.faults.s3_proxy import Fault, RandomFaults
from tests.support.servers import S3Server
from workers.broker.app import TICKET_TASK
from workers.embedded import WorkerProcess

# Three in ten requests fail; one in a hundred is sent twice.
FAULT_CHANCES = {
    Fault.ERROR_500: 0.07,
    Fault.SLOW_DOWN: 0.07,
    Fault.DROPPED: 0.04,
    Fault.ANSWER_LOST: 0.04,
    Fault.CUT: 0.03,
    Fault.LATE_412: 0.03,
    Fault.LATE_409: 0.01,
    Fault.SILENT: 0.01,
}
_KINDS = {  # the relative frequency of each event
    "worker killed": 3,
    "pool process killed": 2,
    "main process killed": 1,
    "worker asked to leave": 2,
    "worker stopped past its lease": 2,
    "Redis killed and restarted": 2,
    "tickets lost": 1,
    "tickets twice": 2,
    "Redis connections reset": 1,
}
_FLUSH = "Redis flushed"
_PATIENCE = 60.0  # seconds, for whatever should end soon after the storm


@dataclass(frozen=True)
class StormSettings:
    """The size of the job, the number of workers, the mean pause between events, and the time limits."""

    shards: int = 200
    samples: int = 10  # in a shard
    workers: int = 3
    concurrency: int = 1
    pause: float = 3.0  # mean seconds between two events if a worker starts within 6 s; longer on a slower machine
    storm_seconds: float = 900.0  # after that only the store continues to fail
    limit_seconds: float = 1500.0
    forked: bool = False  # workers are forks of a process that has imported torch, instead of fresh interpreters
    failover: bool = False  # Redis is behind a Sentinel, and its master is lost once instead of restarted
    attempts: int = 25  # of a shard, or of the commit: a storm has many more faults than a real cluster


class StormTarget:
    """The expected result of all storms, built once."""

    def __init__(self, bundle: Path, options: StormSettings) -> None:
        self.bundle, self.options = bundle, options
        home = f"memory://{uuid.uuid4().hex}"
        self.build: ReferenceBuild = build_reference(self.fields("unused"), home)
        self.digest = digest_of_samples(open_dataset(self.build.store.url))

    def fields(self, bucket: str) -> dict[str, Any]:
        """The fields of the job, for a destination in ``bucket``."""
        return job_fields(self.bundle, bucket, shards=self.options.shards, samples=self.options.samples)


def run_storm(seed: int, target: StormTarget, s3: S3Server, home: Path) -> dict[str, Any]:
    """Run one storm; return its outcome as plain JSON. ``problems`` is empty if nothing was lost, doubled or wrong."""
    bucket = s3.make_bucket(f"storm-{seed}-{uuid.uuid4().hex[:12]}")
    home.mkdir(parents=True, exist_ok=True)
    options = target.options
    with FaultyService(
        home,
        s3,
        bucket,
        seed=seed,
        forked=options.forked,
        sentinel=options.failover,
        concurrency=options.concurrency,
        max_shard_attempts=options.attempts,
        s3_read_timeout=1.5,
    ) as scene:
        outcome = _Storm(seed, target, scene).run()
    outcome["problems"] += [f"process {pid} outlived its worker" for pid in scene.watcher.left]
    outcome["state"] = "whole" if not outcome["problems"] else "FAILED"
    return outcome


class _Storm:
    """One storm on one faulty service."""

    def __init__(self, seed: int, target: StormTarget, scene: FaultyService) -> None:
        self._seed, self._target, self._scene, self._options = seed, target, scene, target.options
        self._draw = random.Random(seed)
        self._events: Counter[str] = Counter()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._stopped: set[int] = set()  # main processes that are stopped
        self._redis_away, self._starting = False, 0
        self._actions: dict[str, Callable[[], bool]] = {  # each returns whether it happened
            "worker killed": lambda: self._kill(lambda pids: pids),
            "pool process killed": lambda: self._kill(lambda pids: pids[-1:]),
            "main process killed": lambda: self._kill(lambda pids: pids[:1]),
            "worker asked to leave": self._ask_to_leave,
            "worker stopped past its lease": self._stop_for_a_while,
            "Redis killed and restarted": self._kill_redis,
            "tickets lost": lambda: self._on_tickets(lambda client, queue: client.delete(queue)),
            "tickets twice": lambda: self._on_tickets(self._send_again),
            "Redis connections reset": self._reset_redis,
            _FLUSH: lambda: self._on_tickets(lambda client, _: client.flushall()),
        }

    def run(self) -> dict[str, Any]:
        scene, begun = self._scene, time.monotonic()
        for _ in range(self._options.workers):
            scene.start_worker()
        job = scene.client.submit(self._target.fields(scene.bucket))
        reader = ReaderProcess([job.url, job.url.partition("/builds/")[0]], scene.settings.s3, self._target.digest)
        scene.s3_proxy.plan = RandomFaults(self._seed, FAULT_CHANCES | {Fault.TWICE: 0.01})
        self._await_a_worker()
        problems = self._rage(job.job, job.url, begun)
        committed_after = round(time.monotonic() - begun, 1)
        problems += self._calm_down()
        problems += self._end(job.job)
        seen = reader.stop()
        stored = compare_build(job.url, scene.settings.s3, self._target.build)
        problems += list(stored.problems) + seen["findings"]
        problems += [f"outside any plan: {key}" for key in stray_keys(scene.bucket, scene.settings.s3, job.url)]
        if not problems and seen["read"] != 2:
            problems.append("the reader did not read the committed build under both of its URLs")
        return {
            "seed": self._seed,
            "shards": self._options.shards,
            "seconds": committed_after,
            "failover": self._options.failover,
            "pause": round(self._mean_pause, 1),
            "events": dict(sorted(self._events.items())),
            "requests": scene.s3_proxy.counts["requests"],
            "faults": {fault: scene.s3_proxy.counts[fault] for fault in Fault if scene.s3_proxy.counts[fault]},
            "objects_equal": stored.equal,
            "objects": stored.expected,
            "looks": seen["absent"] + seen["whole"],
            "whole_looks": seen["whole"],
            "problems": problems,
        }

    def _await_a_worker(self) -> None:
        """Wait for the first worker; the slower it starts, the longer the pauses, so that workers get to work."""
        begun = time.monotonic()
        self._scene.wait_until(lambda: any(map(_is_ready, self._scene.workers)), seconds=240.0)
        self._mean_pause = self._options.pause * max(1.0, (time.monotonic() - begun) / 6.0)

    def _rage(self, job: str, url: str, begun: float) -> list[str]:
        """Cause events until the build is committed or the time limit is reached; return the problems."""
        # Each kind happens once before any kind is repeated.
        deck = [*_KINDS, _FLUSH]
        self._draw.shuffle(deck)
        if self._options.failover:  # the fail-over comes first: a short storm may not get far
            deck.append(deck.pop(deck.index("Redis killed and restarted")))
        next_event = begun + self._pause()
        while not self._is_committed(url):
            now = time.monotonic()
            if now - begun > self._options.limit_seconds:
                status = self._scene.client.status(job)
                self._scene.home.joinpath("logs.txt").write_text(self._scene.logs())
                return [f"not committed: {status.state}, {status.shards_done} shards done; {status.error}"[:600]]
            self._catch_up(now)
            if now >= next_event and now - begun < self._options.storm_seconds:
                kind = deck.pop() if deck else self._draw.choices(list(_KINDS), list(_KINDS.values()))[0]
                self._events[kind] += self._actions[kind]()
                next_event = time.monotonic() + self._pause()
            time.sleep(0.2)
        return []

    def _pause(self) -> float:
        return min(self._draw.expovariate(1 / self._mean_pause), 3 * self._mean_pause)

    def _catch_up(self, now: float) -> None:
        """Run the delayed actions that are due, and replace workers that have ended."""
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        if len(self._living()) + self._starting < self._options.workers:
            self._starting += 1
            self._put_off(self._draw.uniform(0.2, 1.5), self._start_worker)

    def _start_worker(self) -> None:
        self._starting -= 1
        self._scene.start_worker()

    def _put_off(self, seconds: float, action: Callable[[], Any]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def _living(self) -> list[WorkerProcess]:
        return [worker for worker in self._scene.workers if worker.is_alive()]

    def _victim(self) -> WorkerProcess | None:
        """A worker that is ready; ``None`` if there is none, and mostly ``None`` if there is only one.

        Otherwise, on a slow machine, the storm would hit only workers that are still starting.
        """
        awake = [worker for worker in self._living() if worker.process.pid not in self._stopped]
        ready = list(filter(_is_ready, awake))
        spared = len(ready) < 2 and self._draw.random() < 0.75
        return self._draw.choice(ready) if ready and not spared else None

    def _kill(self, whom: Callable[[list[int]], list[int]]) -> bool:
        if victim := self._victim():
            send_signal(whom(process_tree(victim)), signal.SIGKILL)
        return victim is not None

    def _ask_to_leave(self) -> bool:
        if victim := self._victim():
            victim.process.terminate()
        return victim is not None

    def _stop_for_a_while(self) -> bool:
        victim = self._victim()
        if victim is None:
            return False
        pids = process_tree(victim)
        send_signal(pids, signal.SIGSTOP)
        self._stopped.add(victim.process.pid)

        def go_on() -> None:
            send_signal(pids, signal.SIGCONT)
            self._stopped.discard(victim.process.pid)

        self._put_off(self._scene.settings.lease_seconds * self._draw.uniform(1.5, 3.0), go_on)
        return True

    def _reset_redis(self) -> bool:
        if self._options.failover:
            return self._on_tickets(lambda client, _: client.execute_command("CLIENT", "KILL", "TYPE", "normal"))
        return self._scene.redis_proxy.reset() > 0

    def _lose_master(self) -> bool:
        if self._events["Redis killed and restarted"]:
            return False
        is_replaced = self._scene.master_lost()
        self._redis_away = True

        def look() -> None:
            if is_replaced():
                self._redis_away = False
            else:
                self._put_off(0.5, look)

        self._put_off(0.5, look)
        return True

    def _kill_redis(self) -> bool:
        if self._options.failover:
            return self._lose_master()
        if self._redis_away:
            return False
        self._scene.redis.kill()
        self._redis_away = True

        def back() -> None:
            self._scene.restart_redis()
            self._redis_away = False

        self._put_off(self._draw.uniform(0.1, 4.0), back)
        return True

    def _on_tickets(self, change: Callable[[redis.Redis, str], Any]) -> bool:
        if self._redis_away:  # wait for Redis, so that the event is not skipped
            self._put_off(1.0, lambda: self._on_tickets(change))
            return True
        try:
            with redis.Redis.from_url(self._scene.redis.url) as client:
                change(client, self._scene.pool.ledger.queue_key(self._scene.settings.queue))
        except (redis.exceptions.ReadOnlyError, redis.exceptions.ConnectionError):
            # Sentinels name a replica a moment before it is the master, and a lost master until they miss it.
            if not self._options.failover:
                raise
            self._put_off(1.0, lambda: self._on_tickets(change))
        return True

    def _send_again(self, client: redis.Redis, queue: str) -> None:
        """Publish copies of all messages, waiting or held by workers, and some new ones."""
        again = [*client.lrange(queue, 0, -1)]
        again += [
            json.dumps(json.loads(held)[0]).encode()
            for held in client.hvals(self._scene.pool.ledger.queue_key("unacked"))
        ]
        if again:
            client.rpush(queue, *again)
        for _ in range(self._draw.randint(1, 10)):
            self._scene.pool.app.send_task(TICKET_TASK, queue=self._scene.settings.queue)

    def _calm_down(self) -> list[str]:
        """End all faults and run the delayed actions; return a problem if one of them is never done."""
        self._scene.stop_faults()
        deadline = time.monotonic() + _PATIENCE
        while self._later and time.monotonic() < deadline:
            action = heapq.heappop(self._later)[2]
            if action != self._start_worker:
                action()
                time.sleep(0.1)  # it may have put itself off again
        for worker in self._living():
            send_signal(process_tree(worker), signal.SIGCONT)
        return [f"{len(self._later)} delayed events are left {_PATIENCE:.0f} s after the storm"] if self._later else []

    def _end(self, job: str) -> list[str]:
        """Wait until the job is committed and its marker deleted, then for one lease, so that zombies can act."""
        scene, problems = self._scene, []
        if not self._living():
            scene.start_worker()
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if scene.client.status(job).state == "committed" and scene.pool.marker(job) is None:
                break
            time.sleep(0.2)
        else:
            problems.append(f"after the storm the job is {scene.client.status(job).state}, or its marker is left")
        time.sleep(scene.settings.lease_seconds)
        return problems

    def _is_committed(self, url: str) -> bool:
        try:
            read_manifest(open_store(url, self._scene.settings.s3))
        except DatasetError:
            return False
        return True


def _is_ready(worker: WorkerProcess) -> bool:
    return " ready." in worker.log.read_text(errors="replace")
