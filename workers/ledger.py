"""Claims, leases, attempts and progress in Redis: a hint that makes things fast. The store knows the truth.

Keys, below ``latentmill:``: ``jobs`` is a sorted set of active jobs by when they were last served; each job has
``job:<id>`` (its facts), ``todo:<id>`` (a list of free shards), ``lease:<id>`` (shards by expiry, seconds),
``nonce:<id>`` (who holds each lease), ``made:<id>`` (images made under each lease), ``done:<id>`` (a bitmap of
finished shards), ``tries:<id>`` (outside faults by shard) and ``committing:<id>`` (somebody commits it). Leases are
random nonces compared for equality.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from workers.broker import broker_errors, connect
from workers.ledger_scripts import CLAIM, COMPLETE, EXPIRE, POSTPONE, RELEASE, RENEW

PREFIX = "latentmill:"
FINISHED_TTL = 30 * 24 * 3600  # seconds that the facts of an ended job are kept
_CHUNK = 10_000
_ADDING_SECONDS = 5
_PARTS = ("todo", "lease", "nonce", "made", "done", "tries", "committing")


@dataclass(frozen=True)
class Claim:
    """A shard that this process may make until ``lease_seconds`` pass without a renewal."""

    job: str
    shard: int
    nonce: str


class Counts(NamedTuple):
    """How an active job stands: shards free, held (by a worker or a back-off), being made and done, of how many."""

    free: int
    held: int
    running: int
    done: int
    total: int
    made: int  # images made so far under the running leases
    committing: bool  # somebody commits it, or waits to try again

    @property
    def finished(self) -> bool:
        return 0 < self.total <= self.done


class Ledger:
    """One Redis, seen as a ledger of jobs. Every method raises ``BrokerUnavailable`` when Redis does not answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis: Any = connect(url)  # redis-py annotates every answer as perhaps awaitable
        self._scripts = {
            script: self._redis.register_script(script)
            for script in (CLAIM, COMPLETE, EXPIRE, POSTPONE, RELEASE, RENEW)
        }

    def ping(self) -> None:
        with broker_errors(self.url):
            self._redis.ping()

    def add(
        self, job: str, facts: Mapping[str, str | int | float], todo: Iterable[int], done: Iterable[int], total: int
    ) -> None:
        """Make ``job`` active with its free and finished shards; what was known of it before is replaced.

        Of several processes that add the same job within a few seconds, the first one does it.
        """
        todo, done = list(todo), list(done)
        with broker_errors(self.url):
            if not self._redis.set(self._key("adding", job), "1", nx=True, ex=_ADDING_SECONDS):
                return
        with broker_errors(self.url), self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(*(self._key(part, job) for part in _PARTS if part != "tries"))
            for start in range(0, len(todo), _CHUNK):
                pipe.rpush(self._key("todo", job), *todo[start : start + _CHUNK])
            for shard in done:
                pipe.setbit(self._key("done", job), shard, 1)
            pipe.hset(self._key("job", job), mapping={**dict(facts), "shards": total, "state": "open", "error": ""})
            pipe.persist(self._key("job", job))
            pipe.zadd(PREFIX + "jobs", {job: 0.0})
            pipe.execute()

    def end(self, job: str, state: str, error: str = "", facts: Mapping[str, str | int | float] | None = None) -> None:
        """Take ``job`` off the active ones (``committed``, ``cancelled``, ``failed``); its facts stay for a month.

        A job that the ledger does not know is remembered by ``facts``; one that has ended before keeps its error.
        """
        key = self._key("job", job)
        with broker_errors(self.url), self._redis.pipeline(transaction=True) as pipe:
            known, active = self._redis.hexists(key, "shards"), self._redis.zscore(PREFIX + "jobs", job) is not None
            pipe.zrem(PREFIX + "jobs", job)
            if active or not known:
                done = self._redis.bitcount(self._key("done", job))
                kept = {**dict(facts or {}), "state": state, "error": error, "ended_shards": done}
                if known or facts:
                    pipe.hset(key, mapping=kept)
            pipe.expire(key, FINISHED_TTL)
            pipe.delete(*(self._key(part, job) for part in (*_PARTS, "adding")))
            pipe.execute()

    def note(self, job: str, error: str) -> None:
        """What went wrong last in an active job, for whoever asks how it stands."""
        with broker_errors(self.url):
            self._redis.hset(self._key("job", job), "error", error[:4000])

    def active(self) -> list[str]:
        """Active jobs, the least recently served first."""
        with broker_errors(self.url):
            return list(self._redis.zrange(PREFIX + "jobs", 0, -1))

    def known(self) -> list[str]:
        """All jobs whose facts are kept."""
        with broker_errors(self.url):
            found = self._redis.scan_iter(match=self._key("job", "*"), count=500)
            return sorted(key.removeprefix(self._key("job", "")) for key in found)

    def facts(self, job: str) -> dict[str, str]:
        """What is known of a job; empty where nothing is."""
        with broker_errors(self.url):
            return dict(self._redis.hgetall(self._key("job", job)))

    def counts(self, job: str) -> Counts:
        """How an active job stands."""
        with broker_errors(self.url), self._redis.pipeline(transaction=True) as pipe:
            pipe.llen(self._key("todo", job))
            pipe.zcard(self._key("lease", job))
            pipe.bitcount(self._key("done", job))
            pipe.hvals(self._key("made", job))
            pipe.hget(self._key("job", job), "shards")
            pipe.exists(self._key("committing", job))
            free, held, done, made, total, committing = pipe.execute()
        images = sum(int(count) for count in made)
        return Counts(free, held, len(made), done, int(total or 0), images, bool(committing))

    def finished(self, job: str) -> list[int]:
        """The numbers of the finished shards of an active job."""
        with broker_errors(self.url):
            packed = self._redis.execute_command("GET", self._key("done", job), NEVER_DECODE=True)
        return _set_bits(packed or b"")

    def claim(self, lease_seconds: float, declined: Iterable[str] = ()) -> Claim | None:
        """The next free shard of the least recently served job that is not ``declined``."""
        nonce = secrets.token_hex(16)
        found = self._run(CLAIM, lease_seconds, nonce, *declined)
        return Claim(found[0], int(found[1]), nonce) if found else None

    def renew(self, claim: Claim, lease_seconds: float, made: int) -> bool:
        """Extend the lease and record ``made`` images; ``False`` once it is lost or the job is no longer active."""
        return bool(self._run(RENEW, claim.job, claim.shard, claim.nonce, lease_seconds, made))

    def release(self, claim: Claim) -> None:
        """Hand a shard back at once; nothing happens where the lease is no longer ours."""
        self._run(RELEASE, claim.job, claim.shard, claim.nonce)

    def postpone(self, claim: Claim, *, base: float = 1.0, cap: float = 60.0) -> int:
        """Hand a shard back after a fault, to be free after a back-off with full jitter; its number of faults."""
        return int(self._run(POSTPONE, claim.job, claim.shard, claim.nonce, random.random(), base, cap))

    def complete(self, claim: Claim) -> bool:
        """Record a shard whose receipt is stored; ``True`` when the job has no unfinished shard left."""
        return bool(self._run(COMPLETE, claim.job, claim.shard, claim.nonce))

    def free_expired(self, job: str) -> tuple[int, int]:
        """Shards of ``job`` whose lease or back-off is over are free again: how many, and the most faults of any."""
        freed, most = self._run(EXPIRE, job)
        return int(freed), int(most)

    def claim_commit(self, job: str, seconds: float) -> bool:
        """Whether the caller may try to commit ``job``; nobody else may, for ``seconds``."""
        with broker_errors(self.url):
            return bool(self._redis.set(self._key("committing", job), "1", nx=True, px=round(seconds * 1000)))

    def postpone_commit(self, job: str, *, base: float = 1.0, cap: float = 60.0) -> int:
        """The commit failed: nobody tries again before a back-off is over; the number of faults so far."""
        with broker_errors(self.url):
            faults = int(self._redis.hincrby(self._key("tries", job), "commit", 1))
            delay = min(cap, base * 2**faults) * random.random()
            self._redis.set(self._key("committing", job), "1", px=max(1, round(delay * 1000)))
        return faults

    def announce(self, worker: str, slots: int, seconds: float) -> None:
        """This worker has ``slots`` processes, and will say so again within ``seconds``."""
        with broker_errors(self.url), self._redis.pipeline(transaction=True) as pipe:
            pipe.zadd(PREFIX + "slots", {f"{slots}:{worker}": time.time() + seconds})
            pipe.zremrangebyscore(PREFIX + "slots", "-inf", time.time())
            pipe.execute()

    def slots(self) -> int:
        """Processes of all workers that announced themselves lately."""
        with broker_errors(self.url):
            workers = self._redis.zrangebyscore(PREFIX + "slots", time.time(), "+inf")
        return sum(int(worker.partition(":")[0]) for worker in workers)

    def waiting_tickets(self, queue: str) -> int:
        """Tickets in the broker that no worker has taken."""
        with broker_errors(self.url):
            return int(self._redis.llen(queue))

    def _run(self, script: str, *arguments: str | float) -> Any:
        with broker_errors(self.url):
            return self._scripts[script](args=[PREFIX, *arguments])

    def _key(self, part: str, job: str) -> str:
        return f"{PREFIX}{part}:{job}"


def _set_bits(packed: bytes) -> list[int]:
    return [8 * byte + bit for byte, value in enumerate(packed) for bit in range(8) if value & (0x80 >> bit)]
