"""The counters of a worker process, ticket by ticket on a real Redis; and the snapshot of the pool."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from tests.support.services import ManualService
from workers.telemetry.prometheus_meter import PrometheusMeter
from workers.worker.ticket_handler import TicketHandler, open_ticket_handler

pytestmark = pytest.mark.usefixtures("one_thread")


class Counted:
    """A ticket handler with a meter, and the values of its counters."""

    def __init__(self, bench: ManualService) -> None:
        self._registry = CollectorRegistry()
        self.handler: TicketHandler = replace(bench.ticket_handler, meter=PrometheusMeter(self._registry))

    def __call__(self, name: str, **labels: str) -> float:
        return self._registry.get_sample_value(f"latentmill_{name}", labels) or 0.0

    def shards(self, outcome: str) -> float:
        return self("shards_total", outcome=outcome)

    def commits(self, outcome: str) -> float:
        return self("commits_total", outcome=outcome)


@pytest.fixture
def counted(bench: ManualService) -> Counted:
    return Counted(bench)


def test_shards_images_and_the_commit(bench: ManualService, counted: Counted) -> None:
    bench.submit()
    bench.serve(3, counted.handler)
    assert (counted.shards("made"), counted("images_total"), counted.commits("committed")) == (2, 60, 1)
    stored = sum(path.stat().st_size for path in (bench.home / "out").rglob("tiny-*"))
    assert counted("bytes_total") == stored
    assert counted("shard_seconds_count") == 2
    assert counted("device_seconds_total") == pytest.approx(
        counted("stage_seconds_total", stage="decode", time="clock")
    )


def test_a_shard_that_is_there_already_is_found_not_made(bench: ManualService, counted: Counted) -> None:
    bench.submit()
    claim = bench.ticket_handler.pool.ledger.claim(60.0)
    assert claim is not None
    bench.serve(3, counted.handler)
    assert counted.shards("made") == 2
    again = bench.submit("again")
    bench.serve(1, counted.handler)
    bench.ticket_handler.pool.ledger.set_finished(again.job, [])
    bench.serve(1, counted.handler)
    assert (counted.shards("made"), counted.shards("found"), counted("images_total")) == (3, 1, 90)


def test_faults_are_counted_by_type_and_by_what_came_of_them(bench: ManualService, counted: Counted) -> None:
    job = bench.submit()
    in_the_way = bench.home / "out/tiny/builds" / job.url.rpartition("/")[2] / "shards/tiny-000001.tar"
    in_the_way.mkdir(parents=True)
    bench.serve(6, counted.handler)
    assert (counted.shards("made"), counted.shards("postponed"), counted.shards("given_up")) == (1, 4, 1)
    assert counted("faults_total", error="AccessDenied") == 5
    counted.handler.produce = lambda *_, **__: 1 / 0  # type: ignore[assignment, return-value]
    bench.submit("other")
    bench.serve(1, counted.handler)
    assert counted("faults_total", error="other") == 1


def test_what_a_worker_lacks_is_no_fault(bench: ManualService, counted: Counted) -> None:
    bench.submit()
    elsewhere = open_ticket_handler(bench.settings.model_copy(update={"device": "cuda:7"}), meter=counted.handler.meter)
    bench.serve(1, elsewhere)
    assert counted.shards("declined") == 1
    assert counted("faults_total", error="SettingsError") == 0


def test_a_commit_that_cannot_be_written(bench: ManualService, counted: Counted) -> None:
    job = bench.submit()
    (bench.home / "out/tiny/builds" / job.url.rpartition("/")[2] / "preview.jpg").mkdir(parents=True)
    bench.serve(7, counted.handler)
    assert (counted.commits("postponed"), counted.commits("failed"), counted.commits("committed")) == (4, 1, 0)


def test_the_snapshot_of_the_pool(bench: ManualService) -> None:
    ledger, queue = bench.ticket_handler.pool.ledger, bench.settings.queue
    assert tuple(ledger.pool_snapshot(queue)) == ({}, 0, 0, 0, 0)
    first, second = bench.submit("first"), bench.submit("second")
    bench.client.pause(second.job)
    ledger.register_worker("somebody", 3, 60.0)
    claims = [ledger.claim(60.0), ledger.claim(60.0)]
    assert all(claims)
    snapshot = ledger.pool_snapshot(queue)
    assert snapshot.jobs == {"open": 1, "paused": 1}
    assert (snapshot.slots, snapshot.running) == (3, 2)
    assert snapshot.tickets == bench.redis.llen(ledger.queue_key(queue)) > 0
    assert claims[0] is not None
    ledger.postpone(claims[0], base=600.0, cap=600.0)
    assert ledger.pool_snapshot(queue).running == 1
    bench.client.pause(first.job)
    assert ledger.pool_snapshot(queue).running == 1  # a running shard of a paused job is finished
    bench.client.cancel(first.job)
    assert ledger.pool_snapshot(queue).jobs == {"cancelled": 1, "paused": 1}
    assert ledger.pool_snapshot(queue).running == 0
