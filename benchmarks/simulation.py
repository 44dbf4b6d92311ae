"""Simulates pools beyond one machine: many workers, tenants and shards, on the real ledger and a real Redis.

    python benchmarks/simulation.py            all parts, about 15 minutes on one core
    python benchmarks/simulation.py --quick    small numbers, for a test

1. pool: 200 workers of 20 tenants make 100,000 shards. Decoding and the store take virtual time; claims, renewals,
   completions and commits are those of the ledger, receipts and segments those of the commit protocol, on a store in
   memory. Fairness between tenants, operations of Redis, memory of the ledger.
2. million: a ledger of 1,000,000 shards, of which the workers make the first and the last ones; the others are recorded
   as finished in one step, as after a loss of Redis. Memory of the ledger, cost of an operation.
3. commit: the commit of 1,000, 10,000 and 100,000 shards in real time, with 5 ms for each call of the store.
4. reading: a manifest of 1,000,000 shards, opened and asked for single shards by a process of its own.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.simulated_build import SimulatedBuild  # noqa: E402
from benchmarks.simulated_store import Objects, SimulatedStore  # noqa: E402
from benchmarks.simulation_commit import measure_commit, measure_reading_apart, tiny_info  # noqa: E402
from generator.production.commit import BuildLocation  # noqa: E402
from generator.production.commit.finish import finish_build  # noqa: E402
from generator.production.commit.segments import gather_segment  # noqa: E402
from generator.spec.plan import Plan  # noqa: E402
from workers.broker.address import parse_address  # noqa: E402
from workers.embedded import EmbeddedRedis  # noqa: E402
from workers.ledger.claims import Claim  # noqa: E402
from workers.ledger.ledger import Ledger  # noqa: E402
from workers.ledger.tenants import Tenants, TenantShare  # noqa: E402

_PREFIX = "latentmill:0123456789abcdef:"
_LEASE = 60.0
_RENEWED = 2.0  # virtual seconds between two renewals of a lease
_CALL = 0.02  # virtual seconds of a call of the store; a shard takes five, one after the other
_CALLS_OF_A_SHARD = 5  # is there a receipt? archive, table, receipt, run record
_DECODE = (1.5, 0.4)  # logarithm of the virtual seconds that a shard is decoded: mean and deviation; median 4.5 s
_IDLE = 1.0  # virtual seconds until a worker that found nothing asks again
_OWN_COMMANDS = ("info", "memory|usage", "scan")  # of this benchmark
_MEASURED = 5000  # shards between two looks at the memory of the ledger
_PARALLEL = 16  # reads of receipts at the same time


@dataclass(frozen=True)
class Scale:
    """Sizes of one simulation."""

    workers: int
    tenants: int
    shards: int  # of each tenant

    @property
    def total(self) -> int:
        return self.tenants * self.shards


@dataclass
class Pool:
    """Simulated workers. ``clock``: virtual seconds; ``done``: shards by tenant, ``while_all``: while all compete."""

    scale: Scale
    ledger: Ledger
    objects: Objects
    client: Any
    builds: dict[str, SimulatedBuild] = field(default_factory=dict)
    locations: dict[str, BuildLocation] = field(default_factory=dict)
    clock: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    while_all: Counter[str] | None = None
    commits: list[dict[str, Any]] = field(default_factory=list)
    claims: int = 0
    renewals: int = 0
    found_nothing: int = 0
    largest: int = 0  # bytes of the ledger

    def add_jobs(self) -> None:
        """One job of each tenant; every fourth tenant has twice the weight of the others."""
        shares = {name: TenantShare(weight=2.0) for number, name in enumerate(self.tenants) if number % 4 == 0}
        self.ledger.publish_shares(Tenants(default=TenantShare(), tenants=shares))
        for tenant in self.tenants:
            build = SimulatedBuild(f"job-{tenant}", self.scale.shards)
            self.builds[tenant] = build
            self.locations[tenant] = build.location(SimulatedStore(self.objects, tenant))
            facts = {"url": f"s3://bucket/{tenant}/builds/0123456789abcdef0123", "name": build.name, "tenant": tenant}
            facts |= {"recipe": self.locations[tenant].recipe_digest, "samples": self.locations[tenant].recipe.total}
            self.ledger.add(tenant, facts, self.scale.shards, tenant=tenant)

    @property
    def tenants(self) -> list[str]:
        return [f"tenant-{number:02d}" for number in range(self.scale.tenants)]

    def run(self, seed: int, limit: int | None = None, *, publish: bool) -> None:
        """Let the workers work until every job is committed, or ``limit`` more shards are made.

        ``publish``: whether receipts and segments are written and jobs committed.
        """
        rng, order = np.random.default_rng(seed), itertools.count()
        made, waiting = 0, list[tuple[float, int, Claim | None, float]]()
        for _ in range(self.scale.workers):
            heapq.heappush(waiting, (self.clock + float(rng.uniform(0, _IDLE)), next(order), None, 0.0))
        while waiting:
            self.clock, _, claim, began = heapq.heappop(waiting)
            later = 0.0
            if claim is not None:
                made += 1
                later = self._finish(claim, self.clock - began, publish=publish)
            if limit is not None and made + len(waiting) >= limit:
                continue
            following = self._claim()
            if following is None and not self.ledger.open_jobs():
                continue
            seconds = _IDLE
            if following is not None:
                seconds = float(rng.lognormal(*_DECODE)) + _CALLS_OF_A_SHARD * float(rng.exponential(_CALL))
            heapq.heappush(waiting, (self.clock + later + seconds, next(order), following, self.clock + later))

    def _claim(self) -> Claim | None:
        found = self.ledger.claim(_LEASE, worker="simulated")
        if found is None:
            self.found_nothing += 1
        else:
            self.claims += 1
        return found

    def _finish(self, claim: Claim, seconds: float, *, publish: bool) -> float:
        """Renew the lease as often as its keeper would have, and complete the shard. Virtual seconds until the end."""
        for count in range(int(seconds / _RENEWED)):
            self.ledger.renew(claim, _LEASE, count)
            self.renewals += 1
        location, later = self.locations[claim.job], 0.0
        segment = Plan(location.recipe).segment_of(claim.shard) if publish else None
        if publish:
            build = self.builds[claim.job]
            build.begin(location) if claim.shard == 0 else build.publish(location, claim.shard)
        outcome = self.ledger.complete(claim, segment)
        self.done[claim.job] += 1
        if sum(self.done.values()) % _MEASURED == 0 or outcome.finished:
            self.largest = max(self.largest, ledger_bytes(self.client))
        if outcome.segment_finished and segment is not None and not outcome.finished:
            gather_segment(location, segment)
            later = _CALL * (1 + len(segment) / _PARALLEL)
        if outcome.finished:
            if self.while_all is None:
                self.while_all = Counter(self.done)
            later += self._commit(claim.job) if publish else 0.0
            self.ledger.end(claim.job, "committed")
        return later

    def _commit(self, job: str) -> float:
        location = self.locations[job]
        written, calls = sum(1 for _ in location.store.list("segments/")), sum(self.objects.calls.values())
        processor = time.process_time()
        assert self.ledger.claim_commit(job, _LEASE) is not None
        finish_build(location, tiny_info())
        calls = sum(self.objects.calls.values()) - calls
        self.commits.append(
            {
                "segments_written_before": written,
                "segments": len(Plan(location.recipe).segments()),
                "processor_seconds": round(time.process_time() - processor, 2),
                "calls": calls,
            }
        )
        return _CALL * calls / _PARALLEL


def fairness(pool: Pool) -> dict[str, Any]:
    """What tenants had got when the first of them was done: shards for each unit of weight, and Jain's index of them.

    The index is 1 if all got the same, and 1 over the number of tenants if one got all.
    """
    weights = {name: 2.0 if number % 4 == 0 else 1.0 for number, name in enumerate(pool.tenants)}
    counted = pool.while_all or pool.done
    shares = np.array([counted[name] / weights[name] for name in pool.tenants])
    return {
        "jain": round(float(shares.sum() ** 2 / (len(shares) * (shares**2).sum())), 6),
        "least_over_mean": round(float(shares.min() / shares.mean()), 4),
        "most_over_mean": round(float(shares.max() / shares.mean()), 4),
        "shards_until_the_first_tenant_was_done": int(sum(counted.values())),
    }


def ledger_bytes(client: Any) -> int:
    """The memory that Redis needs for the keys of the ledger, with all that belongs to them."""
    return sum(int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter(count=1000))


class RedisCost:
    """What Redis did since this was made, but for the questions of this benchmark."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        stats, cpu = self._client.info("commandstats"), self._client.info("cpu")
        calls = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}
        return {
            "seconds": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            "commands": sum(count for name, count in calls.items() if name not in _OWN_COMMANDS),
        }

    def facts(self, shards: int) -> dict[str, float]:
        now = self._now()
        grown = {name: now[name] - self._before[name] for name in now}
        return {
            "commands_a_shard": round(grown["commands"] / shards, 1),
            "processor_us_a_shard": round(1e6 * grown["seconds"] / shards, 1),
            "shards_a_second_of_one_core": round(shards / max(grown["seconds"], 1e-9)),
        }


def measure_pool(url: str, scale: Scale) -> dict[str, Any]:
    client: Any = redis.Redis.from_url(url)
    client.flushall()
    ledger = Ledger(parse_address(url), lambda: _PREFIX)
    cost, pool = RedisCost(client), Pool(scale, ledger, Objects(), client)
    start, processor = time.perf_counter(), time.process_time()
    pool.add_jobs()
    pool.run(seed=1, publish=True)
    requests = pool.claims + pool.found_nothing + pool.renewals + scale.total
    return {
        "workers": scale.workers,
        "tenants": scale.tenants,
        "shards": scale.total,
        "virtual_seconds": round(pool.clock),
        "fairness": fairness(pool),
        "redis": cost.facts(scale.total),
        "ledger_bytes_at_most": pool.largest,
        "ledger_bits_a_shard": round(8 * pool.largest / scale.total, 2),
        "requests_a_shard": round(requests / scale.total, 2),
        "requests_a_virtual_second": round(requests / pool.clock, 1),
        "store_calls_a_shard": round(sum(pool.objects.calls.values()) / scale.total, 2),
        "commits": len(pool.commits),
        "segments_missing_at_commits": sum(each["segments"] - each["segments_written_before"] for each in pool.commits),
        "commit_processor_seconds": float(np.median([each["processor_seconds"] for each in pool.commits])),
        "real_seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
    }


def measure_million(url: str, scale: Scale, made: int) -> dict[str, Any]:
    """A ledger of ``scale``: the workers make ``made`` shards; all but as many are recorded at once; then the end."""
    client: Any = redis.Redis.from_url(url)
    client.flushall()
    ledger = Ledger(parse_address(url), lambda: _PREFIX)
    pool = Pool(scale, ledger, Objects(), client)
    pool.add_jobs()
    beginning = RedisCost(client)
    pool.run(seed=2, limit=made, publish=False)
    first, fair = beginning.facts(made), fairness(pool)
    kept = made // scale.tenants
    for tenant in pool.tenants:
        ledger.set_finished(tenant, range(scale.shards - kept))
    full, end, before = ledger_bytes(client), RedisCost(client), sum(pool.done.values())
    pool.run(seed=3, publish=False)
    last = end.facts(sum(pool.done.values()) - before)
    assert not ledger.open_jobs()
    return {
        "shards": scale.total,
        "made": sum(pool.done.values()),
        "fairness_of_the_first": fair,
        "first": first,
        "last": last,
        "ledger_bytes": full,
        "ledger_bits_a_shard": round(8 * full / scale.total, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--parts", default="pool,million,commit,reading", help="which of the four parts to measure")
    args = parser.parse_args()
    parts, quick = args.parts.split(","), args.quick
    with tempfile.TemporaryDirectory() as home, EmbeddedRedis(Path(home) / "redis") as server:
        if "pool" in parts:
            show("pool", measure_pool(server.url, Scale(20, 4, 1100) if quick else Scale(200, 20, 5000)))
        if "million" in parts:
            scale, made = (Scale(20, 4, 3000), 800) if quick else (Scale(200, 20, 50_000), 50_000)
            show("million", measure_million(server.url, scale, made))
    if "commit" in parts:
        sizes = (1001,) if quick else (1000, 10_000, 100_000)
        show("commit", [measure_commit(shards, 0.005, gathered=True) for shards in sizes])
        show("commit_without_segments", measure_commit(1001 if quick else 10_000, 0.005, gathered=False))
    if "reading" in parts:
        show("reading", measure_reading_apart(2000 if quick else 999_000))


def show(part: str, facts: Any) -> None:
    print(json.dumps({part: facts}, indent=2), flush=True)


if __name__ == "__main__":
    main()
