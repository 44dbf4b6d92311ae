"""Two pools on one Redis: each has the identity in its store root, and none touches the other's keys."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import pytest

from generator.errors import SpecError
from generator.store import Store, open_store
from tests.support.servers import RedisServer
from tests.support.services import ManualService
from workers.broker.identity import POOL_KEY, PoolIdentity, read_pool_id
from workers.client import Client
from workers.worker.reconciler import Reconciler
from workers.worker.ticket_handler import open_ticket_handler


@pytest.fixture
def pools(server: RedisServer, bundle: Path, tmp_path: Path) -> tuple[ManualService, ManualService]:
    """Two pools with roots of their own on one Redis."""
    return ManualService(server, bundle, tmp_path / "a"), ManualService(server, bundle, tmp_path / "b")


def test_a_pool_never_touches_the_jobs_of_another_on_the_same_redis(pools: tuple[ManualService, ManualService]) -> None:
    first, second = pools
    ours, theirs = first.submit("ours"), second.submit("theirs")
    for pool in (second, first, second):
        pool.reconcile()
    assert (first.state(ours), second.state(theirs)) == ("queued", "queued")
    assert second.ticket_handler.pool.ledger.open_jobs() == [theirs.job]
    first.serve(3)
    assert (first.state(ours), second.state(theirs)) == ("committed", "queued")
    second.serve(3)
    assert second.state(theirs) == "committed"
    assert [status.job for status in first.client.jobs()] == [ours.job]


def test_all_keys_lie_below_the_identity(bench: ManualService) -> None:
    bench.submit()
    bench.ticket_handler.pool.queries.ask({}, 60.0)
    bench.reconcile()
    keys = [key.decode() for key in bench.redis.scan_iter("*")]
    prefix = f"latentmill:{read_pool_id(open_store(bench.settings.root))}:"
    assert len(keys) > 5
    assert [key for key in keys if not key.startswith(prefix)] == []


def test_processes_that_start_at_once_agree_on_the_identity(store: Store) -> None:
    found, all_are_there = set[str](), threading.Barrier(8)

    def start() -> None:
        all_are_there.wait()
        found.add(PoolIdentity(store).prefix())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"latentmill:{read_pool_id(store)}:"}


def test_an_emptied_root_gets_its_identity_back_and_a_restored_one_is_followed() -> None:
    root = open_store(f"memory://{uuid.uuid4().hex}")
    ours = PoolIdentity(root)
    first, stored = ours.prefix(), read_pool_id(root)
    root.delete(POOL_KEY)
    assert (ours.prefix(), read_pool_id(root)) == (first, None)
    assert (ours.owns_root(), read_pool_id(root)) == (True, stored)
    root.put(POOL_KEY, b'{"pool":"0123456789abcdef"}')
    assert (ours.owns_root(), ours.prefix()) == (False, first)
    ours.follow()
    assert (ours.owns_root(), ours.prefix()) == (True, "latentmill:0123456789abcdef:")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"pool":"*"}', b'{"pool":"0123456789abcdef","x":1}', b"x" * 5000])
def test_a_damaged_identity_is_named(content: bytes) -> None:
    root = open_store(f"memory://{uuid.uuid4().hex}")
    root.put(POOL_KEY, content)
    with pytest.raises(SpecError if len(content) < 5000 else Exception, match=r"pool\.json"):
        PoolIdentity(root).prefix()


def test_a_restored_root_moves_clients_at_once_and_workers_once_they_look(bench: ManualService) -> None:
    root, before, turn = open_store(bench.settings.root), bench.submit("before"), bench.key("turn:look")
    moved: list[str] = []
    workers = [Reconciler(bench.settings, lambda: moved.append("worker")) for _ in range(2)]
    for worker in workers:
        worker.run_once("w")
    root.put(POOL_KEY, b'{"pool":"0123456789abcdef"}')
    bench.redis.delete(turn)
    workers[0].run_once("w")  # it looks and tells the others; nothing of the old ledger is changed
    assert (moved, bench.state(before)) == ([], "queued")
    workers[0].run_once("w")
    assert moved == ["worker"]
    after = bench.submit("after")
    assert bench.ticket_handler.pool.ledger.open_jobs() == [before.job]
    bench.ticket_handler = open_ticket_handler(bench.settings)  # that of a worker that has started again
    assert bench.ticket_handler.pool.ledger.open_jobs() == [after.job]
    bench.reconcile()
    assert set(bench.ticket_handler.pool.ledger.open_jobs()) == {before.job, after.job}  # the store names both
    bench.serve(6)
    assert (bench.state(before), bench.state(after)) == ("committed", "committed")


def test_a_pool_of_an_earlier_release_continues_under_its_identity(bench: ManualService) -> None:
    """Its keys had other names: open jobs are found in the store, and what was made counts."""
    job = bench.submit()
    assert "shard 0" in bench.serve(1)[0]
    for key in bench.redis.scan_iter("*"):
        bench.redis.rename(key, key.replace(bench.key("").encode(), b"latentmill:"))
    open_store(bench.settings.root).delete(POOL_KEY)
    bench.client, bench.ticket_handler = Client(bench.settings), open_ticket_handler(bench.settings)
    bench.reconcile()
    assert bench.client.status(job.job).shards_done == 1
    bench.serve(2)
    assert bench.state(job) == "committed"
