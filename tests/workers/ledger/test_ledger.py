"""The ledger on a real Redis: claims, leases, outcomes, and corrections."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import redis

from generator.errors import BrokerUnavailable, SettingsError
from tests.support.servers import KEY_PREFIX, RedisServer
from workers.broker.address import parse_address, redacted_url
from workers.broker.connection import ping
from workers.ledger.claims import Claim, nonce_prefix
from workers.ledger.ledger import Ledger

FACTS = {"name": "tiny", "samples": 100, "submitted": 1.0}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer(password="secret")
    yield server
    server.stop()


@pytest.fixture
def ledger(server: RedisServer) -> Ledger:
    redis.Redis.from_url(server.url).flushall()
    return server.ledger()


def add(ledger: Ledger, job: str, shards: int, done: tuple[int, ...] = (), **fields: Any) -> None:
    ledger.add(job, FACTS, shards, done=done, **fields)


def claimed(ledger: Ledger, lease: float = 60.0) -> Claim:
    claim = ledger.claim(lease)
    assert claim is not None
    return claim


def test_every_shard_is_claimed_once_and_then_none(ledger: Ledger) -> None:
    add(ledger, "a", 50, done=(3, 7))
    with ThreadPoolExecutor(8) as threads:
        claims = [claim for claim in threads.map(lambda _: ledger.claim(60.0), range(60)) if claim]
    assert sorted(claim.shard for claim in claims) == [number for number in range(50) if number not in (3, 7)]
    assert len({claim.nonce for claim in claims}) == 48
    assert ledger.counts("a") == (0, 48, 48, 2, 0, 50, 0, False)


def test_jobs_take_turns(ledger: Ledger) -> None:
    for job in ("a", "b", "c"):
        add(ledger, job, 4)
    served = [claimed(ledger).job for _ in range(12)]
    assert all(sorted(served[start : start + 3]) == ["a", "b", "c"] for start in range(0, 12, 3))


def test_declined_jobs_are_passed_over(ledger: Ledger) -> None:
    add(ledger, "a", 2)
    add(ledger, "b", 1)
    claim = ledger.claim(60.0, declined=["a"])
    assert claim is not None
    assert claim.job == "b"
    assert ledger.claim(60.0, declined=["a"]) is None


def test_the_last_completion_says_so(ledger: Ledger) -> None:
    add(ledger, "a", 3, done=(1,))
    first, second = claimed(ledger), claimed(ledger)
    assert ledger.complete(first) == (False, False, False)
    assert ledger.complete(second).finished
    assert ledger.finished_shards("a") == [0, 1, 2]
    assert ledger.complete(second).finished  # a repeated completion changes nothing
    assert ledger.counts("a").is_finished


def test_a_lease_is_kept_while_it_is_renewed_and_lost_when_it_runs_out(ledger: Ledger) -> None:
    add(ledger, "a", 1)
    claim = claimed(ledger, lease=0.2)
    assert ledger.renew(claim, 60.0, made=17)
    assert ledger.free_expired("a", 5) == (0, [])
    assert ledger.counts("a") == (0, 1, 1, 0, 0, 1, 17, False)
    assert ledger.renew(claim, 0.01, made=18)
    time.sleep(0.05)
    assert ledger.free_expired("a", 5) == (1, [])
    assert ledger.renew(claim, 60.0, made=19) is False
    assert claimed(ledger).nonce != claim.nonce


def test_a_zombie_changes_nothing_but_what_is_done(ledger: Ledger) -> None:
    add(ledger, "a", 2)
    zombie = claimed(ledger, lease=0.01)
    time.sleep(0.05)
    ledger.free_expired("a", 5)
    claimed(ledger)
    again = claimed(ledger)
    assert again.shard == zombie.shard
    ledger.release(zombie)
    assert ledger.postpone(zombie) == 0
    assert ledger.renew(again, 60.0, made=1)
    ledger.complete(zombie)  # its receipt is stored, so the shard is done
    assert ledger.finished_shards("a") == [zombie.shard]
    assert ledger.renew(again, 60.0, made=2)  # the new holder may finish: it makes the same bytes


def test_a_released_shard_is_free_at_once_and_a_postponed_one_later(ledger: Ledger) -> None:
    add(ledger, "a", 1)
    ledger.release(claimed(ledger))
    assert [ledger.postpone(claimed_after(ledger), base=0.01, cap=0.01) for _ in range(3)] == [1, 2, 3]
    assert not ledger.counts("a").is_finished  # the shard waits for the end of its back-off


def claimed_after(ledger: Ledger) -> Claim:
    """The next claim, after the back-off."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        ledger.free_expired("a", 5)
        if claim := ledger.claim(60.0):
            return claim
        time.sleep(0.01)
    raise AssertionError("the shard never came free")


def test_a_job_that_ended_is_not_served_and_its_leases_are_lost(ledger: Ledger) -> None:
    add(ledger, "a", 3)
    claim = claimed(ledger)
    ledger.end("a", "cancelled")
    ledger.end("a", "failed", "too late")
    assert ledger.claim(60.0) is None
    assert ledger.renew(claim, 60.0, made=1) is False
    assert ledger.complete(claim) == (False, False, False)
    assert ledger.open_jobs() == []
    assert ledger.facts("a")["state"] == "cancelled"
    assert ledger.known_jobs() == ["a"]


def test_adding_again_takes_leases_from_nobody(ledger: Ledger) -> None:
    add(ledger, "a", 2)
    claim = claimed(ledger)
    with ThreadPoolExecutor(8) as threads:
        added = list(threads.map(lambda _: ledger.add("a", FACTS, 2), range(16)))
    assert not any(added)
    assert ledger.renew(claim, 60.0, made=1)


def test_workers_announce_their_slots_for_a_while(ledger: Ledger) -> None:
    ledger.register_worker("one", 2, 60.0)
    ledger.register_worker("two", 3, 0.05)
    assert ledger.slots() == 5
    time.sleep(0.1)
    assert ledger.slots() == 2


def test_a_redis_that_is_away_or_refuses_is_a_typed_error(server: RedisServer) -> None:
    with pytest.raises(BrokerUnavailable, match="redis"):
        ping(parse_address("redis://127.0.0.1:1/0"))
    with pytest.raises(BrokerUnavailable, match="refused") as caught:
        ping(parse_address(server.url.replace("secret", "wrong")))
    assert "wrong" not in str(caught.value)
    with pytest.raises(SettingsError, match="LATENTMILL_REDIS_URL"):
        parse_address("http://user:pass@host")
    assert redacted_url("redis://user:pass@host:1/2") == "redis://host:1/2"


def test_a_job_unknown_to_the_ledger_ends_with_the_facts_it_is_given(ledger: Ledger) -> None:
    ledger.end("a", "cancelled")
    assert ledger.facts("a") == {}
    ledger.end("a", "cancelled", facts=FACTS | {"shards": 4})
    assert (ledger.facts("a")["state"], ledger.facts("a")["shards"]) == ("cancelled", "4")


def test_what_the_store_lacks_is_made_again_and_leases_and_faults_stay(ledger: Ledger) -> None:
    add(ledger, "a", 4)
    assert ledger.postpone(claimed(ledger), base=0.01, cap=0.01) == 1
    kept, done = claimed(ledger), claimed(ledger)
    ledger.complete(done)
    ledger.set_finished("a", [])
    assert ledger.finished_shards("a") == []
    assert ledger.renew(kept, 60.0, made=1)
    time.sleep(0.05)
    ledger.free_expired("a", 5)
    again = [claimed(ledger) for _ in range(3)]
    assert sorted(claim.shard for claim in again) == [0, 2, 3]
    assert ledger.claim(60.0) is None
    assert [ledger.postpone(claim) for claim in again if claim.shard == 0] == [2]


def test_a_worker_lost_with_its_lease_counts_as_a_fault_and_the_shard_is_given_up(ledger: Ledger) -> None:
    add(ledger, "a", 1)
    lost = claimed(ledger, lease=0.01)
    time.sleep(0.05)
    assert ledger.free_expired("a", 2) == (1, [])
    assert claimed(ledger, lease=0.01).shard == lost.shard
    time.sleep(0.05)
    assert ledger.free_expired("a", 2) == (0, [lost.shard])
    assert ledger.claim(60.0) is None  # the caller has to give it up
    assert ledger.give_up("a", lost.shard).stuck
    assert ledger.counts("a").is_stuck
    assert ledger.claim(60.0) is None
    ledger.revive("a")
    assert claimed(ledger).shard == lost.shard


def test_the_others_go_on_when_a_shard_is_given_up(ledger: Ledger) -> None:
    add(ledger, "a", 3)
    dead = claimed(ledger)
    assert ledger.give_up("a", dead.shard) == (False, False, False)
    first, second = claimed(ledger), claimed(ledger)
    assert {first.shard, second.shard}.isdisjoint({dead.shard})
    assert ledger.complete(first) == (False, False, False)
    assert ledger.complete(second).stuck
    assert ledger.complete(dead).finished  # its slow worker finished it after all


def test_a_paused_job_is_not_claimed_and_what_is_being_made_is_finished(ledger: Ledger) -> None:
    add(ledger, "a", 3)
    claim = claimed(ledger)
    ledger.pause("a")
    assert ledger.claim(60.0) is None
    assert ledger.count_work(10) == 0
    assert ledger.renew(claim, 60.0, made=1)
    ledger.complete(claim)
    assert ledger.facts("a")["state"] == "paused"
    add(ledger, "a", 3)
    assert {claimed(ledger).shard, claimed(ledger).shard} == {0, 1, 2} - {claim.shard}


def test_a_worker_hands_back_all_that_it_holds(ledger: Ledger) -> None:
    add(ledger, "a", 4)
    ours = [ledger.claim(60.0, worker=nonce_prefix("one")) for _ in range(2)]
    kept = ledger.claim(60.0, worker=nonce_prefix("two"))
    assert kept is not None
    assert ledger.release_all(nonce_prefix("one")) == 2
    assert ledger.renew(kept, 60.0, made=1)
    assert not any(ledger.renew(claim, 60.0, made=1) for claim in ours if claim)
    assert ledger.counts("a").free == 3


def test_one_commit_at_a_time_and_later_after_a_fault(ledger: Ledger) -> None:
    add(ledger, "a", 1)
    ledger.complete(claimed(ledger))
    claim = ledger.claim_commit("a", 60.0)
    assert claim is not None
    assert ledger.renew_commit(claim, 60.0)
    assert not ledger.renew_commit(replace(claim, nonce="another"), 60.0)
    assert ledger.claim_commit("a", 60.0) is None
    assert ledger.counts("a").committing
    assert [ledger.postpone_commit("a", base=0.01, cap=0.01) for _ in range(2)] == [1, 2]
    time.sleep(0.05)
    assert ledger.claim_commit("a", 60.0)


def test_of_what_others_wrote_into_the_ledger_little_is_read(ledger: Ledger, server: RedisServer) -> None:
    add(ledger, "a", 5)
    with redis.Redis.from_url(server.url) as client:
        client.hset(KEY_PREFIX + "job:a", mapping={"error": "x" * 10**7, "url": "u" * 10**7})
        client.hset(KEY_PREFIX + "job:a", mapping={f"further-{number}": "" for number in range(10**4)})
        client.setrange(KEY_PREFIX + "done:a", 10**7, "\xff")
    facts, claim = ledger.facts("a"), ledger.claim(60.0)
    assert sum(map(len, facts.values())) < 2**20
    assert claim is not None
    assert len(claim.url) < 10_000
    assert ledger.finished_shards("a") == []


def test_the_states_of_shards_are_told_one_by_one(ledger: Ledger) -> None:
    add(ledger, "a", 12, done=(3, 7), dead=(5,))
    made, slow, lost, late = claimed(ledger), claimed(ledger), claimed(ledger, 0.01), claimed(ledger)
    ledger.renew(slow, 60.0, 17)
    assert ledger.postpone(late, base=60.0, cap=60.0) == 1
    ledger.complete(made)
    time.sleep(0.05)
    found = ledger.shard_states("a")
    assert found.done == [made.shard, 3, 7]
    assert found.running == {slow.shard: 17}
    assert found.waiting == sorted([lost.shard, late.shard])
    assert (found.dead, found.faults) == ([5], {late.shard: 1})
    assert ledger.shard_states("unknown") == ([], {}, [], [], {})
