"""``latentmill_shards_waiting``: what a pool that is scaled by its work needs to know, also while no worker runs."""

from __future__ import annotations

import threading
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers import free_port
from tests.support.services import ManualService
from workers.jobs.discovery import Discovery
from workers.jobs.pool import Pool
from workers.ledger.tenants import Tenants, TenantShare
from workers.telemetry import Exporter

pytestmark = pytest.mark.usefixtures("one_thread")


def waiting(bench: ManualService) -> int:
    return bench.ticket_handler.pool.ledger.pool_snapshot(bench.settings.queue).waiting


def test_a_job_waits_until_its_build_is_committed(bench: ManualService) -> None:
    assert waiting(bench) == 0
    job = bench.submit()
    assert waiting(bench) == 2
    bench.serve(1)
    assert waiting(bench) == 1
    bench.serve(1)
    while bench.state(job) != "committed":
        assert waiting(bench) == 1, "the commit waits for a worker too"
        bench.serve(1)
    assert waiting(bench) == 0


def test_a_shard_that_is_made_does_not_wait_but_one_of_a_lost_worker_does(bench: ManualService) -> None:
    bench.submit()
    ledger = bench.ticket_handler.pool.ledger
    first, second = ledger.claim(60.0), ledger.claim(60.0)
    assert first is not None
    assert second is not None
    assert waiting(bench) == 0
    ledger.renew(first, 0.001, 0)
    time.sleep(0.01)
    assert waiting(bench) == 1, "its lease has expired, and only a worker frees it"
    ledger.postpone(second, base=600.0, cap=600.0)
    assert waiting(bench) == 2, "its back-off ends some time"


def test_paused_and_cancelled_jobs_do_not_wait(bench: ManualService) -> None:
    first, second = bench.submit("first"), bench.submit("second")
    assert waiting(bench) == 4
    bench.client.pause(first.job)
    assert waiting(bench) == 2
    bench.client.cancel(second.job)
    assert waiting(bench) == 0
    bench.client.resume(first.job)
    assert waiting(bench) == 2


def test_a_job_whose_shards_are_all_dead_waits_for_its_end(bench: ManualService) -> None:
    job = bench.submit()
    ledger = bench.ticket_handler.pool.ledger
    for shard in (0, 1):
        ledger.give_up(job.job, shard)
    assert waiting(bench) == 1, "a worker declares its failure"
    bench.reconcile()
    assert bench.state(job) == "failed"
    assert waiting(bench) == 0


def test_what_a_tenant_may_not_run_now_needs_no_worker(bench: ManualService) -> None:
    ledger = bench.ticket_handler.pool.ledger
    bench.submit("first")
    bench.submit("second")
    ledger.publish_shares(Tenants(default=TenantShare(running_shards=3)))
    assert waiting(bench) == 3
    assert ledger.claim(60.0) is not None
    assert waiting(bench) == 2
    ledger.publish_shares(Tenants(default=TenantShare(running_shards=1)))
    assert waiting(bench) == 0


def test_a_scheduler_alone_tells_of_jobs_that_a_new_redis_has_lost(bench: ManualService) -> None:
    """The exporter and the search as ``latentmill scheduler`` runs them, without any worker."""
    port = free_port()
    bench.submit()
    bench.redis.flushall()
    exporter = Exporter(bench.settings.model_copy(update={"metrics_port": port}), "scheduler")
    exporter.start()
    stopped = threading.Event()
    search = threading.Thread(target=Discovery(Pool(bench.settings)).run, args=(stopped, 0.1))
    try:
        assert scraped(port) == 0
        search.start()
        deadline = time.monotonic() + 30
        while scraped(port) != 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        bench.serve(3)
        while scraped(port) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        stopped.set()
        search.join()
        exporter.stop()


def scraped(port: int) -> float:
    """The gauge, as a scraper reads it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families["latentmill_shards_waiting"].samples[0].value
