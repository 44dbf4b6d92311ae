"""The ledger compared with a simple model of it, by a Hypothesis state machine on a real Redis.

Claims are never dropped: each one may be used again later, as a zombie, as a duplicate, or after its job has ended, was
added again or was lost by Redis. A lease expires only when the state machine makes it expire.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.servers import KEY_PREFIX, RedisServer
from workers.ledger.claims import Claim

JOBS = ("a", "b", "c")
SHARDS = 10  # more than one byte of the bitmap
MAX_FAULTS = 3
WORKERS = ("one.", "two.")
LATER = 4e9  # seconds since the epoch

jobs = st.sampled_from(JOBS)
shards = st.integers(0, SHARDS - 1)
some = st.sets(shards, max_size=SHARDS)


@dataclass
class Job:
    """The model of a live job. A lease without a nonce is a back-off."""

    paused: bool = False
    done: set[int] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    leases: dict[int, str] = field(default_factory=dict)
    faults: dict[int, int] = field(default_factory=dict)

    @property
    def free(self) -> set[int]:
        return set(range(SHARDS)) - self.done - self.dead - self.leases.keys()

    @property
    def outcome(self) -> tuple[bool, bool]:
        finished = len(self.done) >= SHARDS
        return finished, not finished and len(self.done) + len(self.dead) >= SHARDS


class LedgerMachine(RuleBasedStateMachine):
    server: RedisServer
    compared = 0  # how often ledger and model were compared, in all examples

    def __init__(self) -> None:
        super().__init__()
        self.redis, self.ledger = redis.Redis.from_url(self.server.url), self.server.ledger()
        self.redis.flushall()
        self.live: dict[str, Job] = {}
        self.claims: list[Claim] = []

    def held(self, claim: Claim) -> Job | None:
        """The job if this claim still holds its shard, else ``None``."""
        job = self.live.get(claim.job)
        return job if job and job.leases.get(claim.shard) == claim.nonce else None

    @rule(job=jobs, done=some, dead=some, tenant=st.sampled_from(("us", "them")), priority=st.integers(-2, 2))
    def add(self, job: str, done: set[int], dead: set[int], tenant: str, priority: int) -> None:
        before = self.live.get(job)
        added = self.ledger.add(job, {}, SHARDS, done=done, dead=dead - done, tenant=tenant, priority=priority)
        assert added == (before is None or before.paused)
        if before is None:
            self.live[job] = Job(done=set(done), dead=dead - done)
        else:
            before.paused = False

    @rule(worker=st.sampled_from(WORKERS), declined=st.sets(jobs, max_size=2))
    def claim(self, worker: str, declined: set[str]) -> None:
        claim = self.ledger.claim(LATER, declined, worker=worker)
        servable = [name for name, job in self.live.items() if not job.paused and job.free and name not in declined]
        assert (claim is None) == (not servable)
        if claim is not None:
            assert claim.job in servable
            assert claim.shard in self.live[claim.job].free
            assert claim.nonce not in {other.nonce for other in self.claims}
            self.live[claim.job].leases[claim.shard] = claim.nonce
            self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        assert self.ledger.renew(claim, LATER, made=1) == (self.held(claim) is not None)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        self.ledger.release(claim)
        if job := self.held(claim):
            del job.leases[claim.shard]

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def postpone(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        job, faults = self.held(claim), self.ledger.postpone(claim)
        if job is None:
            assert faults == 0
            return
        job.faults[claim.shard] = job.faults.get(claim.shard, 0) + 1
        assert faults == job.faults[claim.shard]
        job.leases[claim.shard] = ""
        self.redis.zadd(f"{KEY_PREFIX}lease:{claim.job}", {claim.shard: LATER})  # replaces the random back-off

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """Complete a shard, by its holder, by a zombie, or repeatedly: the receipt is stored, so the shard is done."""
        claim = data.draw(st.sampled_from(self.claims))
        first, more = data.draw(st.integers(0, claim.shard)), data.draw(st.integers(1, 20))
        segment = data.draw(st.sampled_from([None, range(first, claim.shard + more)]))
        held, outcome = self.held(claim), self.ledger.complete(claim, segment)
        if held:
            del held.leases[claim.shard]
        job = self.live.get(claim.job)
        if job is None:
            assert outcome == (False, False, False)
            return
        is_new = claim.shard not in job.done
        job.done.add(claim.shard)
        job.dead.discard(claim.shard)
        assert outcome[:2] == job.outcome
        assert outcome.segment_finished == (segment is not None and is_new and job.done.issuperset(segment))

    @rule(job=jobs, late=some)
    def expire(self, job: str, late: set[int]) -> None:
        """Some leases and back-offs expire, and a reconciler frees them."""
        model = self.live.get(job, Job())
        late &= model.leases.keys()
        for shard in late:
            self.redis.zadd(f"{KEY_PREFIX}lease:{job}", {shard: 0})
        freed, lost = self.ledger.free_expired(job, MAX_FAULTS)
        given_up, free = set[int](), 0
        for shard in late:
            was_held = model.leases.pop(shard) != ""
            if shard in model.done:
                continue
            model.faults[shard] = model.faults.get(shard, 0) + was_held
            if was_held and model.faults[shard] >= MAX_FAULTS:
                given_up.add(shard)
                model.leases[shard] = ""
                self.redis.zadd(f"{KEY_PREFIX}lease:{job}", {shard: LATER})
            else:
                free += 1
        assert (freed, set(lost)) == (free, given_up)

    @rule(job=jobs, shard=shards)
    def give_up(self, job: str, shard: int) -> None:
        outcome, model = self.ledger.give_up(job, shard), self.live.get(job)
        if model is None or shard in model.done:
            assert outcome == (False, False, False)
            return
        model.leases.pop(shard, None)
        model.dead.add(shard)
        assert outcome[:2] == model.outcome

    @rule(job=jobs)
    def revive(self, job: str) -> None:
        self.ledger.revive(job)
        if model := self.live.get(job):
            model.dead, model.faults = set(), {}

    @rule(job=jobs, done=some)
    def correct(self, job: str, done: set[int]) -> None:
        self.ledger.set_finished(job, done)
        if model := self.live.get(job):
            model.done = set(done)

    @rule(job=jobs)
    def pause(self, job: str) -> None:
        self.ledger.pause(job)
        if model := self.live.get(job):
            model.paused = True

    @rule(job=jobs, state=st.sampled_from(("cancelled", "failed", "committed")))
    def end(self, job: str, state: str) -> None:
        self.ledger.end(job, state)
        self.live.pop(job, None)

    @rule(worker=st.sampled_from(WORKERS))
    def release_all(self, worker: str) -> None:
        """A worker releases its shards; its leases of paused jobs are left to expire."""
        count = 0
        for job in self.live.values():
            ours = [shard for shard, nonce in job.leases.items() if nonce.startswith(worker) and not job.paused]
            count += len(ours)
            for shard in ours:
                del job.leases[shard]
        assert self.ledger.release_all(worker) == count

    @rule()
    def flush(self) -> None:
        self.redis.flushall()
        self.live.clear()

    @invariant()
    def agree(self) -> None:
        assert set(self.ledger.open_jobs()) == {name for name, job in self.live.items() if not job.paused}
        work = 0
        for name, job in self.live.items():
            counts = self.ledger.counts(name)
            held = len(job.leases)
            assert counts[1:2] + counts[3:6] == (held, len(job.done), len(job.dead), SHARDS)
            assert counts.running == sum(nonce != "" for nonce in job.leases.values())
            assert (counts.is_finished, counts.is_stuck) == job.outcome or not job.dead
            assert self.ledger.finished_shards(name) == sorted(job.done)
            assert self.ledger.facts(name)["state"] == ("paused" if job.paused else "open")
            free = max(0, SHARDS - len(job.done) - len(job.dead) - held)
            work += 0 if job.paused else free + counts.is_finished
        assert self.ledger.count_work(1000) == work
        LedgerMachine.compared += 1

    def teardown(self) -> None:
        """After any history, every unfinished shard of every live job can be claimed and completed."""
        for name in self.live:
            self.ledger.add(name, {}, SHARDS)
            self.ledger.revive(name)
            if held := self.redis.zrange(f"{KEY_PREFIX}lease:{name}", 0, -1):
                self.redis.zadd(f"{KEY_PREFIX}lease:{name}", dict.fromkeys(held, 0))
            self.ledger.free_expired(name, 1000)
        for _ in range(len(self.live) * SHARDS):
            if claim := self.ledger.claim(LATER):
                self.ledger.complete(claim)
        assert self.ledger.claim(LATER) is None
        assert all(self.ledger.counts(name).is_finished for name in self.live)
        leftover = {key.decode().split(":")[2] for key in self.redis.scan_iter("*")}
        assert leftover <= {"job", "jobs", "queue", "tenants", "clock", "turn", "done", "tries"}
        self.redis.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


def test_the_ledger_is_its_model(server: RedisServer) -> None:
    LedgerMachine.server, LedgerMachine.compared = server, 0
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
    assert LedgerMachine.compared > 600
