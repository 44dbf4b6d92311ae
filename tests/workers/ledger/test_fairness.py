"""Fairness of the ledger: tenants are served by weight, jobs by priority; and quotas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from generator.errors import SettingsError
from tests.support.servers import RedisServer
from workers.ledger.bitmaps import pack, unpack
from workers.ledger.ledger import Ledger
from workers.ledger.tenants import Tenants, TenantShare, read_tenants


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
def ledger(server: RedisServer) -> Ledger:
    redis.Redis.from_url(server.url).flushall()
    return server.ledger()


def add(ledger: Ledger, job: str, tenant: str, shards: int = 1000, priority: int = 0) -> None:
    ledger.add(job, {"samples": shards}, shards, tenant=tenant, priority=priority)


def served(ledger: Ledger, times: int) -> list[str]:
    claims = [ledger.claim(60.0) for _ in range(times)]
    return [claim.job if claim else "" for claim in claims]


def shares(ledger: Ledger, **given: TenantShare) -> None:
    ledger.publish_shares(Tenants(tenants=given))


def test_a_tenant_with_many_jobs_has_no_more_than_one_with_one(ledger: Ledger) -> None:
    for number in range(9):
        add(ledger, f"many-{number}", "many")
    add(ledger, "one", "single")
    assert Counter(served(ledger, 40))["one"] == 20


@given(weights=st.lists(st.integers(1, 9), min_size=2, max_size=4), rounds=st.integers(1, 5))
@hypothesis_settings(max_examples=15)
def test_tenants_are_served_by_weight_at_any_time(server: RedisServer, weights: list[int], rounds: int) -> None:
    redis.Redis.from_url(server.url).flushall()
    ledger = server.ledger()
    shares(ledger, **{f"t{number}": TenantShare(weight=weight) for number, weight in enumerate(weights)})
    for number in range(len(weights)):
        add(ledger, f"j{number}", f"t{number}")
    count = rounds * sum(weights)
    got = Counter(served(ledger, count))
    for number, weight in enumerate(weights):
        assert abs(got[f"j{number}"] - rounds * weight) <= len(weights)


def test_nobody_saves_up_credit_while_idle(ledger: Ledger) -> None:
    add(ledger, "busy", "busy")
    served(ledger, 100)
    add(ledger, "late", "late")
    assert Counter(served(ledger, 20)) == {"busy": 10, "late": 10}


def test_of_one_tenant_the_higher_priority_goes_first_and_equals_take_turns(ledger: Ledger) -> None:
    add(ledger, "low", "us", shards=2, priority=-5)
    add(ledger, "a", "us", shards=2)
    add(ledger, "b", "us", shards=2)
    add(ledger, "high", "us", shards=2, priority=100)
    got = served(ledger, 9)
    assert got[:2] == ["high", "high"]
    assert sorted(got[2:4]) == sorted(got[4:6]) == ["a", "b"]
    assert got[6:] == ["low", "low", ""]


def test_a_priority_may_change(ledger: Ledger) -> None:
    add(ledger, "a", "us", priority=1)
    add(ledger, "b", "us")
    assert served(ledger, 2) == ["a", "a"]
    add(ledger, "b", "us", priority=2)
    assert served(ledger, 2) == ["b", "b"]


def test_running_shards_are_limited_and_the_others_are_served(ledger: Ledger) -> None:
    shares(ledger, few=TenantShare(running_shards=2))
    add(ledger, "a", "few", shards=5)
    add(ledger, "b", "few", shards=5)
    add(ledger, "other", "more", shards=3)
    assert ledger.count_work(100) == 5
    claims = [ledger.claim(60.0) for _ in range(6)]
    assert Counter(claim.job[0] for claim in claims if claim) == {"a": 1, "b": 1, "o": 3}
    assert ledger.count_work(100) == 0
    assert claims[0] is not None
    ledger.complete(next(claim for claim in claims if claim and claim.job == "a"))
    assert served(ledger, 2) in (["a", ""], ["b", ""])


def test_queued_jobs_are_limited_also_when_clients_race(ledger: Ledger) -> None:
    shares(ledger, us=TenantShare(queued_jobs=3))
    add(ledger, "open", "us")
    assert ledger.admit("us", "open", 1, fresh=False) is None  # submitted again, so it is counted already
    with ThreadPoolExecutor(8) as threads:
        refusals = list(threads.map(lambda number: ledger.admit("us", f"j{number}", 1, fresh=True), range(16)))
    assert refusals.count(None) == 2
    assert {refusal[:3] for refusal in refusals if refusal} == {("queued_jobs", 3, 3)}
    ledger.end("open", "cancelled")
    assert ledger.admit("us", "another", 1, fresh=True) is None
    assert ledger.admit("them", "another", 1, fresh=True) is None


def test_images_a_day_are_counted_once_for_each_job(ledger: Ledger) -> None:
    ledger.publish_shares(Tenants(default=TenantShare(images_per_day=100)))
    assert ledger.admit("us", "a", 60, fresh=True) is None
    assert ledger.admit("us", "a", 60, fresh=True) is None
    refusal = ledger.admit("us", "b", 50, fresh=True)
    assert refusal is not None
    assert refusal[:3] == ("images_per_day", 60, 100)
    assert 0 < refusal.seconds <= 86400
    assert ledger.admit("us", "old", 50, fresh=False) is None
    ledger.withdraw("us", "a")
    assert ledger.admit("us", "b", 50, fresh=True) is None


def test_the_file_of_tenants(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text("default: {queued_jobs: 5}\ntenants:\n  research: {weight: 3, running_shards: 8}\n")
    found = read_tenants(path)
    assert found.default == TenantShare(queued_jobs=5)
    assert found.tenants == {"research": TenantShare(weight=3, running_shards=8)}
    path.write_text("")
    assert read_tenants(path) == Tenants()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("tenants: {research: {weight: 0}}", "tenants.research.weight"),
        ("tenants: {research: {weight: .inf}}", "tenants.research.weight"),
        ("tenants: {research: {running_shards: 0}}", "tenants.research.running_shards"),
        ("tenants: {research: {slots: 1}}", "tenants.research.slots"),
        ("tenants: {'../x': {}}", "tenants"),
        ("[1, 2]", "LATENTMILL_TENANTS_FILE"),
        ("a: b: c", "LATENTMILL_TENANTS_FILE"),
        ("tenants: {a: {queued_jobs: yes}}", "queued_jobs"),
    ],
)
def test_a_wrong_file_of_tenants_is_refused(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="LATENTMILL_TENANTS_FILE") as caught:
        read_tenants(path)
    assert field in caught.value.field
    with pytest.raises(SettingsError, match="can be read"):
        read_tenants(tmp_path / "none.yaml")


@given(st.sets(st.integers(0, 300)))
def test_bitmaps_are_those_of_redis(server: RedisServer, numbers: set[int]) -> None:
    client = redis.Redis.from_url(server.url)
    client.set("bitmap", pack(numbers))
    assert unpack(pack(numbers)) == sorted(numbers)
    assert client.bitcount("bitmap") == len(numbers)
    assert all(client.getbit("bitmap", number) for number in list(numbers)[:5])


def test_a_hundred_thousand_shards_take_little_memory_and_no_time_to_add(ledger: Ledger, server: RedisServer) -> None:
    client = redis.Redis.from_url(server.url)
    before = int(client.info("memory")["used_memory"])
    ledger.add("a", {"samples": 1}, 100_000, done=range(90_000))
    ledger.add("b", {"samples": 1}, 999_999)
    assert int(client.info("memory")["used_memory"]) - before < 2**20
    claim = ledger.claim(60.0, declined=["b"])
    assert claim is not None
    assert claim.shard == 90_000
