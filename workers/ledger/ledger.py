"""The ledger: claims, leases, attempts and progress in Redis. It is a cache for speed; the store is authoritative.

All keys begin with ``latentmill:<id of the pool>:``. Those of a job are ``<part>:<job id>``:

- ``job``: a hash of its facts; ``cursor`` is the first shard that was never claimed
- ``todo``: a list of shards that were released
- ``lease``: a sorted set of leased shards by expiry (seconds); ``nonce``: the holder of each lease
- ``made``: the images made so far under each lease
- ``done``: a bitmap of finished shards; ``dead``: the set of shards that were given up
- ``tries``: the outside faults of each shard; ``committing``: the holder of the right to commit

So a job takes a few bytes for each leased shard and one bit for every other. Keys of the pool:

- ``jobs``: the open jobs by when they were last served; ``queue:<tenant>``: a tenant's open jobs in service order
- ``tenants``, ``clock``: the fair queueing between tenants; ``shares``: the tenants' weights and limits
- ``admitted:<tenant>``, ``images:<tenant>:<day>``: what counts against a tenant's quotas
- ``slots``: the registered workers; ``turn:<duty>``: which reconciler duties were done lately
- ``abandoned``: the store root names another pool now

Leases are random nonces that are compared for equality.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from generator.spec.recipe import MAX_SHARDS
from workers.broker.address import RedisAddress
from workers.broker.connection import broker_errors, connect
from workers.broker.identity import broker_prefix
from workers.ledger import scripts as lua
from workers.ledger.bitmaps import pack, unpack
from workers.ledger.claims import (
    Allowance,
    Claim,
    JobCounts,
    JobOutcome,
    PoolSnapshot,
    QuotaRefusal,
    ShardStates,
)
from workers.ledger.tenants import Tenants

ENDED_JOB_TTL = 30 * 24 * 3600  # seconds that the facts of an ended job are kept
MAX_ERROR = 4000  # characters of an error that are kept
_ADMISSION_SECONDS = 60
_MAX_FAULTY = 1000  # shards whose faults ``shard_states`` tells, about
_ABANDONED_SECONDS = 60
_GIVE_UP_SECONDS = 30.0  # for a reconciler to give up the shard that it got from ``free_expired``

Facts = Mapping[str, str | int | float]


class Ledger:
    """The ledger of one pool's jobs in Redis. Every method raises ``BrokerUnavailable`` when Redis does not answer.

    ``prefix`` tells what the pool's keys begin with; what it raises (it may have to read the store) is raised too.
    """

    def __init__(self, address: RedisAddress, prefix: Callable[[], str], timeout: float = 10.0) -> None:
        self._address, self._prefix = address, prefix
        self._redis: Any = connect(address, timeout)  # redis-py types every result as a possible awaitable
        self._scripts = {
            script: self._redis.register_script(script) for script in (*lua.SHARD_SCRIPTS, *lua.JOB_SCRIPTS)
        }

    def ping(self) -> None:
        with broker_errors(self._address):
            self._redis.ping()

    # Jobs

    def add(
        self,
        job: str,
        facts: Facts,
        total: int,
        *,
        done: Iterable[int] = (),
        dead: Iterable[int] = (),
        tenant: str = "default",
        priority: int = 0,
    ) -> bool:
        """Open ``job`` with its finished and dead shards; return ``False`` if it was open already.

        A live job keeps its state in the ledger, so several processes may add it at the same time; a paused one is
        opened again. The priority is set in any case.
        """
        dead_shards, pairs = list(dead), [part for fact in {**facts, "shards": total}.items() for part in fact]
        arguments = (job, tenant, priority, pack(done), len(dead_shards), *dead_shards, *pairs)
        return bool(self._run_script(lua.ADD, *arguments))

    def pause(self, job: str) -> None:
        """Pause ``job``: running shards are finished, no new ones are claimed until it is added again."""
        self._run_script(lua.PAUSE, job)

    def end(self, job: str, state: str, error: str = "", facts: Facts | None = None) -> None:
        """End ``job`` as ``committed``, ``cancelled`` or ``failed``; its facts are kept for 30 days.

        For a job that is not in the ledger, ``facts`` are stored. A job that has ended already keeps its state and
        error, unless it is committed now.
        """
        pairs = [part for fact in (facts or {}).items() for part in fact]
        self._run_script(lua.END, job, state, error[:MAX_ERROR], ENDED_JOB_TTL, *pairs)

    def set_finished(self, job: str, done: Iterable[int]) -> None:
        """Replace the finished shards of a live job by ``done``, the shards that the store holds."""
        self._run_script(lua.SET_FINISHED, job, pack(done))

    def revive(self, job: str) -> None:
        """Free the dead shards of a live job and reset its fault counts."""
        self._run_script(lua.REVIVE, job)

    def record_error(self, job: str, error: str) -> None:
        """Store the last error of a live job, for its status."""
        with broker_errors(self._address):
            self._redis.hset(self._key("job", job), "error", error[:MAX_ERROR])

    def open_jobs(self) -> list[str]:
        """Open jobs, the least recently served first."""
        with broker_errors(self._address):
            return list(self._redis.zrange(self._prefix() + "jobs", 0, -1))

    def known_jobs(self) -> list[str]:
        """All jobs in the ledger, the ended ones of the last 30 days included; sorted."""
        with broker_errors(self._address):
            keys = self._redis.scan_iter(match=self._key("job", "*"), count=500)
            return sorted(key.removeprefix(self._key("job", "")) for key in keys)

    def facts(self, job: str) -> dict[str, str]:
        """The stored facts of a job; empty if it is unknown."""
        items = iter(self._run_script(lua.FACTS, job))
        return dict(zip(items, items, strict=True))

    def owners(self) -> dict[str, tuple[str, float]]:
        """The tenant of each job in the ledger, and when it was submitted (seconds since the epoch)."""
        jobs = self.known_jobs()
        with broker_errors(self._address), self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hmget(self._key("job", job), "tenant", "submitted")
            found = dict(zip(jobs, pipe.execute(), strict=True))
        return {job: (tenant, float(submitted or 0.0)) for job, (tenant, submitted) in found.items() if tenant}

    def counts(self, job: str) -> JobCounts:
        """The shard counts of a live job."""
        held, running, done, dead, total, images, committing = map(int, self._run_script(lua.COUNTS, job))
        free = max(0, total - done - dead - held)
        return JobCounts(free, held, running, done, dead, total, images, bool(committing))

    def finished_shards(self, job: str) -> list[int]:
        """The numbers of the finished shards of a live job."""
        with broker_errors(self._address):
            bitmap = self._redis.execute_command(
                "GETRANGE", self._key("done", job), 0, MAX_SHARDS // 8, NEVER_DECODE=True
            )
        return unpack(bitmap or b"")

    def shard_states(self, job: str) -> ShardStates:
        """The states of the shards of a live job."""
        done = self.finished_shards(job)
        with broker_errors(self._address), self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.zrange(self._key("lease", job), 0, -1, withscores=True)
            pipe.hgetall(self._key("made", job))
            pipe.smembers(self._key("dead", job))
            pipe.hscan(self._key("tries", job), 0, count=_MAX_FAULTY)
            (seconds, fraction), leases, made, dead, (_, tries) = pipe.execute()
        now, finished = seconds + fraction / 1e6, set(done)
        valid = {int(shard) for shard, until in leases if until > now and shard in made}
        return ShardStates(
            done=done,
            running={shard: int(made[str(shard)]) for shard in sorted(valid)},
            waiting=sorted({int(shard) for shard, _ in leases} - valid - finished),
            dead=sorted(int(shard) for shard in dead),
            faults={int(shard): int(count) for shard, count in sorted(tries.items()) if shard.isdigit()},
        )

    def count_work(self, enough: int) -> int:
        """The number of tickets that would find work now, at most ``enough``."""
        return int(self._run_script(lua.COUNT_WORK, enough))

    def job_to_commit(self, declined: Iterable[str] = ()) -> str | None:
        """An open job, not in ``declined``, that is finished and that no worker commits; ``None`` if there is none."""
        found = self._run_script(lua.JOB_TO_COMMIT, *declined)
        return str(found) if found else None

    # Shards

    def claim(self, lease_seconds: float, declined: Iterable[str] = (), *, worker: str = "") -> Claim | None:
        """Claim the next free shard, of any job but the ``declined`` ones; ``None`` if there is none.

        Tenants take turns by weight; of one tenant's jobs the highest priority goes first, then the least recently
        served one. The lease's nonce begins with ``worker``.
        """
        nonce = worker + secrets.token_hex(16)
        found = self._run_script(lua.CLAIM, lease_seconds, nonce, *declined)
        return Claim(found[0], int(found[1]), nonce, found[2], found[3]) if found else None

    def renew(self, claim: Claim, lease_seconds: float, made: int) -> bool:
        """Extend the lease and record ``made`` images; ``False`` if it is lost or the job is no longer live."""
        return bool(self._run_script(lua.RENEW, claim.job, claim.shard, claim.nonce, lease_seconds, made))

    def release(self, claim: Claim) -> None:
        """Release a shard: it is free at once. No effect if the lease is no longer ours."""
        self._run_script(lua.RELEASE, claim.job, claim.shard, claim.nonce)

    def release_all(self, worker: str) -> int:
        """Release all shards whose nonces begin with ``worker``; return their number."""
        return int(self._run_script(lua.RELEASE_ALL, worker))

    def postpone(self, claim: Claim, *, base: float = 1.0, cap: float = 60.0) -> int:
        """Release a shard after a fault; it is free after a back-off with full jitter (``base``, ``cap`` in seconds).

        Returns the shard's number of faults so far; 0 if the lease is no longer ours.
        """
        return int(self._run_script(lua.POSTPONE, claim.job, claim.shard, claim.nonce, random.random(), base, cap))

    def give_up(self, job: str, shard: int) -> JobOutcome:
        """Give up a shard of ``job``: it is not claimed again before the job is revived."""
        return _outcome(self._run_script(lua.GIVE_UP, job, shard))

    def complete(self, claim: Claim, segment: range | None = None) -> JobOutcome:
        """Record a shard whose receipt is stored as finished, even if the lease was lost.

        ``segment``: the shards of its segment, to tell whether it was the last of them.
        """
        bounds = (-1, -1) if segment is None else (segment.start, segment.stop)
        code, last = self._run_script(lua.COMPLETE, claim.job, claim.shard, claim.nonce, *bounds)
        return _outcome(code)._replace(segment_finished=bool(last))

    def free_expired(self, job: str, max_faults: int) -> tuple[int, list[int]]:
        """Free the shards of ``job`` whose lease or back-off has expired.

        An expired lease counts as a fault. Returns the number of freed shards, and the shards that have ``max_faults``
        faults: they are not freed, and the caller has to give them up.
        """
        freed, *exhausted = self._run_script(lua.FREE_EXPIRED, job, max_faults, _GIVE_UP_SECONDS)
        return int(freed), [int(shard) for shard in exhausted]

    # The commit

    def claim_commit(self, job: str, seconds: float) -> Claim | None:
        """Claim the right to commit ``job`` for ``seconds``; ``None`` while another worker holds it."""
        nonce = secrets.token_hex(16)
        with broker_errors(self._address):
            free = self._redis.set(self._key("committing", job), nonce, nx=True, px=round(seconds * 1000))
        return Claim(job, -1, nonce) if free else None

    def renew_commit(self, claim: Claim, seconds: float) -> bool:
        """Extend the right to commit by ``seconds``; ``False`` if it is lost."""
        return bool(self._run_script(lua.RENEW_COMMIT, claim.job, claim.nonce, round(seconds * 1000)))

    def postpone_commit(self, job: str, *, base: float = 1.0, cap: float = 60.0) -> int:
        """Block the next commit of ``job`` for a back-off with full jitter; return its failed commits so far."""
        with broker_errors(self._address):
            faults = int(self._redis.hincrby(self._key("tries", job), "commit", 1))
            delay = min(cap, base * 2**faults) * random.random()
            self._redis.set(self._key("committing", job), "1", px=max(1, round(delay * 1000)))
        return faults

    # Tenants

    def publish_shares(self, tenants: Tenants) -> None:
        """Replace the weights and limits of all tenants."""
        shares = {"*": tenants.default, **tenants.tenants}
        over_http = {"destinations", "channels"}  # of no concern to workers
        texts = {name: share.model_dump_json(exclude_none=True, exclude=over_http) for name, share in shares.items()}
        key = self._prefix() + "shares"
        with broker_errors(self._address), self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.hset(key, mapping=texts)
            pipe.execute()

    def admit(self, tenant: str, job: str, images: int, *, fresh: bool) -> QuotaRefusal | None:
        """Count ``job`` against the quotas of ``tenant``, or return the quota that it exceeds.

        The images count against today's quota if the job is ``fresh``, that is, not submitted before. The admission
        expires after a minute unless the job is added.
        """
        refusal = QuotaRefusal(*self._run_script(lua.ADMIT, tenant, job, images, int(fresh), _ADMISSION_SECONDS))
        return refusal if refusal.quota else None

    def withdraw(self, tenant: str, job: str) -> None:
        """Undo the admission of a job that could not be submitted."""
        self._run_script(lua.WITHDRAW, tenant, job)

    # Workers

    def register_worker(self, worker: str, slots: int, seconds: float) -> None:
        """Register a worker with ``slots`` processes; the entry expires after ``seconds`` unless repeated."""
        self._run_script(lua.REGISTER_WORKER, worker, slots, seconds)

    def unregister_worker(self, worker: str, slots: int) -> None:
        """Remove a worker: it takes no more tickets."""
        with broker_errors(self._address):
            self._redis.zrem(self._prefix() + "slots", f"{slots}:{worker}")

    def allowance(self, tenant: str) -> Allowance:
        """The running shards of ``tenant``, and their limit."""
        return Allowance(*self._run_script(lua.ALLOWANCE, tenant))

    def slots(self) -> int:
        """The number of processes of all registered workers."""
        return int(self._run_script(lua.SLOTS))

    def pool_snapshot(self, queue: str) -> PoolSnapshot:
        """A snapshot of the pool: jobs by state, slots, waiting tickets, running and waiting shards."""
        states = self._job_states()
        live = [job for job, state in states.items() if state in ("open", "paused")]
        found = self._run_script(lua.POOL_SNAPSHOT, self.queue_key(queue), *live)
        return PoolSnapshot(Counter(states.values()), *map(int, found))

    def take_turn(self, duty: str, seconds: float) -> bool:
        """Take the reconcilers' ``duty`` for ``seconds``; ``False`` while another reconciler has it."""
        with broker_errors(self._address):
            return bool(self._redis.set(self._key("turn", duty), "1", nx=True, px=round(seconds * 1000)))

    def free_turn(self, duty: str) -> None:
        """Make ``duty`` available at once, so that the next reconciler takes it."""
        with broker_errors(self._address):
            self._redis.delete(self._key("turn", duty))

    def abandon(self) -> None:
        """Tell all workers of this pool, for a minute, that the store root names another one."""
        with broker_errors(self._address):
            self._redis.set(self._prefix() + "abandoned", "1", ex=_ABANDONED_SECONDS)

    def is_abandoned(self) -> bool:
        """Whether a reconciler has found that the store root names another pool."""
        with broker_errors(self._address):
            return bool(self._redis.exists(self._prefix() + "abandoned"))

    def missing_tickets(self, queue: str, for_each_slot: int, least_slots: int) -> int:
        """The number of tickets to publish.

        The broker should hold ``for_each_slot`` tickets for each slot (of ``least_slots`` at least), but no more than
        there is work. 0 while it holds more than half of them.
        """
        return int(self._run_script(lua.MISSING_TICKETS, self.queue_key(queue), for_each_slot, least_slots))

    def queue_key(self, queue: str) -> str:
        """The list in which the broker keeps the tickets of ``queue``."""
        return broker_prefix(self._prefix()) + queue

    def _job_states(self) -> dict[str, str]:
        jobs = self.known_jobs()
        with broker_errors(self._address), self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hget(self._key("job", job), "state")
            return {job: state or "" for job, state in zip(jobs, pipe.execute(), strict=True)}

    def _run_script(self, script: str, *arguments: str | float | bytes) -> Any:
        with broker_errors(self._address):
            return self._scripts[script](args=[self._prefix(), *arguments])

    def _key(self, part: str, job: str) -> str:
        return f"{self._prefix()}{part}:{job}"


def _outcome(code: int) -> JobOutcome:
    return JobOutcome(code == 1, code == 2)
