"""Claims, leases, attempts and progress in Redis: a hint that makes things fast. The store knows the truth.

Keys, below ``latentmill:``, of each job: ``job:<id>`` (its facts; ``cursor`` is the first shard that nobody has had),
``todo`` (a list of shards handed back), ``lease`` (shards by expiry, seconds), ``nonce`` (who holds each lease),
``made`` (images made under each lease), ``done`` (a bitmap), ``dead`` (shards given up), ``tries`` (outside faults by
shard), ``committing`` (who commits it). So a job takes a few bytes for each shard in flight and a bit for every other.
``jobs`` are the open jobs by when they were served; ``queue:<tenant>`` those of a tenant in the order of service;
``tenants`` and ``clock`` share the pool among tenants; ``shares`` are their limits; ``admitted:<tenant>`` and
``images:<tenant>:<day>`` count against them. Leases are random nonces compared for equality.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from generator.spec.recipe import MAX_SHARDS
from workers.broker.connection import broker_errors, connect
from workers.ledger import scripts as lua
from workers.ledger.bitmaps import pack, unpack
from workers.ledger.claims import Allowance, Claim, JobCounts, JobOutcome, PoolSnapshot, QuotaRefusal
from workers.ledger.tenants import Tenants

KEY_PREFIX = "latentmill:"
ENDED_JOB_TTL = 30 * 24 * 3600  # seconds that the facts of an ended job are kept
MAX_ERROR = 4000  # characters of an error that are kept
_ADMISSION_SECONDS = 60
_GIVE_UP_SECONDS = 30.0

Facts = Mapping[str, str | int | float]


class Ledger:
    """One Redis, seen as a ledger of jobs. Every method raises ``BrokerUnavailable`` when Redis does not answer."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url
        self._redis: Any = connect(url, timeout)  # redis-py annotates every answer as perhaps awaitable
        self._scripts = {
            script: self._redis.register_script(script) for script in (*lua.SHARD_SCRIPTS, *lua.JOB_SCRIPTS)
        }

    def ping(self) -> None:
        with broker_errors(self.url):
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
        """Open ``job`` with its finished and dead shards; ``False`` where it was open already and nothing changed.

        What the ledger knows of a live job stays, so that any number of processes may add it at the same time; a
        paused one goes on. The priority is set in any case.
        """
        buried, pairs = list(dead), [part for fact in {**facts, "shards": total}.items() for part in fact]
        arguments = (job, tenant, priority, pack(done), len(buried), *buried, *pairs)
        return bool(self._run_script(lua.ADD, *arguments))

    def pause(self, job: str) -> None:
        """No shard of ``job`` is claimed until it is added again; those that are being made are finished."""
        self._run_script(lua.PAUSE, job)

    def end(self, job: str, state: str, error: str = "", facts: Facts | None = None) -> None:
        """Take ``job`` off the live ones (``committed``, ``cancelled``, ``failed``); its facts stay for a month.

        A job that the ledger does not know is remembered by ``facts``; one that has ended before keeps its error.
        """
        pairs = [part for fact in (facts or {}).items() for part in fact]
        self._run_script(lua.END, job, state, error[:MAX_ERROR], ENDED_JOB_TTL, *pairs)

    def set_finished(self, job: str, done: Iterable[int]) -> None:
        """The store has exactly these shards of a live job, whatever was believed before."""
        self._run_script(lua.SET_FINISHED, job, pack(done))

    def revive(self, job: str) -> None:
        """The dead shards of a live job are free again, and its faults are forgotten."""
        self._run_script(lua.REVIVE, job)

    def record_error(self, job: str, error: str) -> None:
        """What went wrong last in a live job, for whoever asks how it stands."""
        with broker_errors(self.url):
            self._redis.hset(self._key("job", job), "error", error[:MAX_ERROR])

    def open_jobs(self) -> list[str]:
        """Open jobs, the least recently served first."""
        with broker_errors(self.url):
            return list(self._redis.zrange(KEY_PREFIX + "jobs", 0, -1))

    def known_jobs(self) -> list[str]:
        """All jobs whose facts are kept."""
        with broker_errors(self.url):
            found = self._redis.scan_iter(match=self._key("job", "*"), count=500)
            return sorted(key.removeprefix(self._key("job", "")) for key in found)

    def facts(self, job: str) -> dict[str, str]:
        """What is known of a job; empty where nothing is."""
        found = iter(self._run_script(lua.FACTS, job))
        return dict(zip(found, found, strict=True))

    def counts(self, job: str) -> JobCounts:
        """How a live job stands."""
        held, running, done, dead, total, images, committing = map(int, self._run_script(lua.COUNTS, job))
        free = max(0, total - done - dead - held)
        return JobCounts(free, held, running, done, dead, total, images, bool(committing))

    def finished_shards(self, job: str) -> list[int]:
        """The numbers of the finished shards of a live job."""
        with broker_errors(self.url):
            bitmap = self._redis.execute_command(
                "GETRANGE", self._key("done", job), 0, MAX_SHARDS // 8, NEVER_DECODE=True
            )
        return unpack(bitmap or b"")

    def count_work(self, enough: int) -> int:
        """How many tickets would find something to do now; counted up to ``enough``."""
        return int(self._run_script(lua.COUNT_WORK, enough))

    def job_to_commit(self, declined: Iterable[str] = ()) -> str | None:
        """An open job that waits for somebody to commit it, and is not ``declined``."""
        found = self._run_script(lua.JOB_TO_COMMIT, *declined)
        return str(found) if found else None

    # Shards

    def claim(self, lease_seconds: float, declined: Iterable[str] = (), *, worker: str = "") -> Claim | None:
        """The next free shard that is not of a ``declined`` job; its nonce begins with ``worker``.

        Tenants take turns by weight; of one tenant's jobs the higher priority goes first, then who waited longest.
        """
        nonce = worker + secrets.token_hex(16)
        found = self._run_script(lua.CLAIM, lease_seconds, nonce, *declined)
        return Claim(found[0], int(found[1]), nonce, found[2], found[3]) if found else None

    def renew(self, claim: Claim, lease_seconds: float, made: int) -> bool:
        """Extend the lease and record ``made`` images; ``False`` once it is lost or the job is no longer live."""
        return bool(self._run_script(lua.RENEW, claim.job, claim.shard, claim.nonce, lease_seconds, made))

    def release(self, claim: Claim) -> None:
        """Hand a shard back at once; nothing happens where the lease is no longer ours."""
        self._run_script(lua.RELEASE, claim.job, claim.shard, claim.nonce)

    def release_all(self, worker: str) -> int:
        """Hand back every shard that ``worker`` holds; how many."""
        return int(self._run_script(lua.RELEASE_ALL, worker))

    def postpone(self, claim: Claim, *, base: float = 1.0, cap: float = 60.0) -> int:
        """Hand a shard back after a fault, to be free after a back-off with full jitter; its number of faults."""
        return int(self._run_script(lua.POSTPONE, claim.job, claim.shard, claim.nonce, random.random(), base, cap))

    def give_up(self, job: str, shard: int) -> JobOutcome:
        """Give a shard of ``job`` up: it is not claimed again before the job is revived."""
        return _outcome(self._run_script(lua.GIVE_UP, job, shard))

    def complete(self, claim: Claim) -> JobOutcome:
        """Record a shard whose receipt is stored, whoever holds the lease now."""
        return _outcome(self._run_script(lua.COMPLETE, claim.job, claim.shard, claim.nonce))

    def free_expired(self, job: str, max_faults: int) -> tuple[int, list[int]]:
        """Shards of ``job`` whose lease or back-off is over are free again: how many.

        A worker lost with its lease is a fault; the shards that had ``max_faults`` are returned, to be buried.
        """
        freed, *lost = self._run_script(lua.FREE_EXPIRED, job, max_faults, _GIVE_UP_SECONDS)
        return int(freed), [int(shard) for shard in lost]

    # The commit

    def claim_commit(self, job: str, seconds: float) -> Claim | None:
        """The right to commit ``job``; nobody else has it until ``seconds`` pass without a renewal."""
        nonce = secrets.token_hex(16)
        with broker_errors(self.url):
            free = self._redis.set(self._key("committing", job), nonce, nx=True, px=round(seconds * 1000))
        return Claim(job, -1, nonce) if free else None

    def renew_commit(self, claim: Claim, seconds: float) -> bool:
        """Extend the right to commit; ``False`` once it is lost."""
        return bool(self._run_script(lua.RENEW_COMMIT, claim.job, claim.nonce, round(seconds * 1000)))

    def postpone_commit(self, job: str, *, base: float = 1.0, cap: float = 60.0) -> int:
        """The commit failed: nobody tries again before a back-off is over; the number of faults so far."""
        with broker_errors(self.url):
            faults = int(self._redis.hincrby(self._key("tries", job), "commit", 1))
            delay = min(cap, base * 2**faults) * random.random()
            self._redis.set(self._key("committing", job), "1", px=max(1, round(delay * 1000)))
        return faults

    # Tenants

    def publish_shares(self, tenants: Tenants) -> None:
        """What tenants may have, from now on."""
        shares = {"*": tenants.default, **tenants.tenants}
        texts = {name: share.model_dump_json(exclude_none=True) for name, share in shares.items()}
        with broker_errors(self.url), self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(KEY_PREFIX + "shares")
            pipe.hset(KEY_PREFIX + "shares", mapping=texts)
            pipe.execute()

    def admit(self, tenant: str, job: str, images: int, *, fresh: bool) -> QuotaRefusal | None:
        """Count ``job`` against the quotas of ``tenant``, or say which one it is over; ``fresh`` images count today.

        Its place is held for a minute, and until it ends once it is added.
        """
        refusal = QuotaRefusal(*self._run_script(lua.ADMIT, tenant, job, images, int(fresh), _ADMISSION_SECONDS))
        return refusal if refusal.quota else None

    def withdraw(self, tenant: str, job: str) -> None:
        """A job that was admitted could not be submitted: it does not count."""
        self._run_script(lua.WITHDRAW, tenant, job)

    # Workers

    def register_worker(self, worker: str, slots: int, seconds: float) -> None:
        """This worker has ``slots`` processes, and will say so again within ``seconds``."""
        self._run_script(lua.REGISTER_WORKER, worker, slots, seconds)

    def unregister_worker(self, worker: str, slots: int) -> None:
        """This worker takes no more tickets."""
        with broker_errors(self.url):
            self._redis.zrem(KEY_PREFIX + "slots", f"{slots}:{worker}")

    def allowance(self, tenant: str) -> Allowance:
        """How many shards of ``tenant`` are being made, and how many may be."""
        return Allowance(*self._run_script(lua.ALLOWANCE, tenant))

    def slots(self) -> int:
        """Processes of all workers that announced themselves lately."""
        return int(self._run_script(lua.SLOTS))

    def pool_snapshot(self, queue: str) -> PoolSnapshot:
        """The pool at a glance: what every job that is known is, and what of it is under way."""
        states = self._job_states()
        live = [job for job, state in states.items() if state in ("open", "paused")]
        return PoolSnapshot(Counter(states.values()), *map(int, self._run_script(lua.POOL_SNAPSHOT, queue, *live)))

    def take_turn(self, duty: str, seconds: float) -> bool:
        """Whether it is the caller's turn to do what one reconciler need do in ``seconds``."""
        with broker_errors(self.url):
            return bool(self._redis.set(self._key("turn", duty), "1", nx=True, px=round(seconds * 1000)))

    def free_turn(self, duty: str) -> None:
        """Whose turn it is next should not wait."""
        with broker_errors(self.url):
            self._redis.delete(self._key("turn", duty))

    def missing_tickets(self, queue: str, for_each_slot: int, least_slots: int) -> int:
        """How many tickets the broker lacks of its window, or of the work there is; none while half of it waits."""
        return int(self._run_script(lua.MISSING_TICKETS, queue, for_each_slot, least_slots))

    def _job_states(self) -> dict[str, str]:
        jobs = self.known_jobs()
        with broker_errors(self.url), self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hget(self._key("job", job), "state")
            return {job: state or "" for job, state in zip(jobs, pipe.execute(), strict=True)}

    def _run_script(self, script: str, *arguments: str | float | bytes) -> Any:
        with broker_errors(self.url):
            return self._scripts[script](args=[KEY_PREFIX, *arguments])

    def _key(self, part: str, job: str) -> str:
        return f"{KEY_PREFIX}{part}:{job}"


def _outcome(code: int) -> JobOutcome:
    return JobOutcome(code == 1, code == 2)
