"""One fault at a time, between real workers, a real Redis and S3 over HTTP: the dataset comes out whole every time.

Each test submits the same recipe to a place of its own, disturbs its building, and compares every object with those of
an undisturbed build. Two workers live through the whole file; whoever ended is replaced before the next test.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from tests.faults.build_comparison import ReferenceBuild, build_reference, compare_build, job_fields
from tests.faults.faulty_service import FaultyService, process_tree, send_signal
from tests.faults.s3_proxy import Fault, OneFault
from tests.faults.tcp_proxy import NetworkFaults, TcpProxy
from tests.support.bundles import tiny_bundle
from tests.support.servers import S3Server
from workers.broker.app import TICKET_TASK
from workers.embedded import WorkerProcess

SHARDS = 4
SLOW = NetworkFaults(delay=(0.02, 0.055))  # so that a shard takes a second or two, and can be met in its middle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def expected(bundle: Path) -> ReferenceBuild:
    return build_reference(job_fields(bundle, "memory://", shards=SHARDS), f"memory://{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def shared_service(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyService]:
    bucket = s3_server.make_bucket(f"faults-{uuid.uuid4().hex}")
    with FaultyService(tmp_path_factory.mktemp("faults"), s3_server, bucket, forked=True) as service:
        yield service
    assert service.watcher.left == []


@pytest.fixture
def service(shared_service: FaultyService) -> Iterator[FaultyService]:
    """The service without faults, with two live workers."""
    for _ in range(2 - sum(worker.is_alive() for worker in shared_service.workers)):
        shared_service.start_worker()
    yield shared_service
    shared_service.stop_faults()


class Job:
    """One build under faults."""

    def __init__(self, service: FaultyService, bundle: Path, expected: ReferenceBuild) -> None:
        self._service, self._expected = service, expected
        destination = f"{service.bucket}/{uuid.uuid4().hex}"
        fields = job_fields(bundle, service.bucket, shards=SHARDS, destination=destination)
        status = service.client.submit(fields)
        self.id, self.url = status.job, status.url

    def until_done(self, shards: int) -> int:
        """Wait until so many shards are done; returns how many are."""
        self._service.wait_until(lambda: self._service.client.status(self.id).shards_done >= shards)
        return self._service.client.status(self.id).shards_done

    def until_committed(self) -> None:
        """Wait for the commit, and compare it with that of a build without faults; there must be no other objects."""
        client = self._service.client
        self._service.wait_until(lambda: client.status(self.id).state in ("committed", "failed"), pause=0.2)
        status = self._service.client.status(self.id)
        assert status.state == "committed", f"{status.error}\n{self._service.logs()}"
        self.is_whole()

    def is_whole(self) -> None:
        outcome = compare_build(self.url, self._service.settings.s3, self._expected)
        assert outcome.problems == ()
        assert outcome.equal == outcome.expected > 3 * SHARDS


@pytest.fixture
def submit(service: FaultyService, bundle: Path, expected: ReferenceBuild):  # type: ignore[no-untyped-def]
    return lambda: Job(service, bundle, expected)


STORE_FAULTS = {
    Fault.ERROR_500: OneFault(Fault.ERROR_500, 0.15),
    Fault.SLOW_DOWN: OneFault(Fault.SLOW_DOWN, 0.15),
    Fault.DROPPED: OneFault(Fault.DROPPED, 0.15),
    Fault.ANSWER_LOST: OneFault(Fault.ANSWER_LOST, 0.15),
    Fault.CUT: OneFault(Fault.CUT, 0.5),
    Fault.LATE_412: OneFault(Fault.LATE_412, 0.7),
    Fault.LATE_409: OneFault(Fault.LATE_409, 0.5),
    Fault.TWICE: OneFault(Fault.TWICE, 0.5),
    Fault.SILENT: OneFault(Fault.SILENT, 0.6, where="receipts", most=2),
}


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.FORBIDDEN])  # FORBIDDEN is permanent
def test_a_store_that_fails(service: FaultyService, submit, fault: Fault) -> None:  # type: ignore[no-untyped-def]
    faults_before = service.s3_proxy.counts[fault]
    service.s3_proxy.plan = STORE_FAULTS[fault]
    submit().until_committed()
    assert service.s3_proxy.counts[fault] > faults_before


def test_a_manifest_whose_answer_is_lost_or_wrong_is_committed_once(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    for fault in (Fault.ANSWER_LOST, Fault.LATE_409):
        faults_before = service.s3_proxy.counts[fault]
        service.s3_proxy.plan = OneFault(fault, 1.0, where="manifest.json", most=1)
        submit().until_committed()
        assert service.s3_proxy.counts[fault] == faults_before + 1


WIRE_FAULTS = {
    "delayed": NetworkFaults(delay=(0.02, 0.08)),
    "throttled": NetworkFaults(rate=100_000),
    "cut": NetworkFaults(cut=0.03),
    "reset": NetworkFaults(reset=0.03),
    "silenced": NetworkFaults(silent=0.01),
}


def _at_once(wire: TcpProxy, name: str) -> None:
    """Apply a random fault to all connections now."""
    {"cut": wire.cut, "reset": wire.reset, "silenced": wire.silence}.get(name, int)()


@pytest.mark.parametrize("name", list(WIRE_FAULTS))
def test_a_bad_wire_to_the_store(service: FaultyService, submit, name: str) -> None:  # type: ignore[no-untyped-def]
    faults_before = service.store_tcp_proxy.counts[name]
    service.store_tcp_proxy.faults = WIRE_FAULTS[name]
    job = submit()
    job.until_done(1)
    _at_once(service.store_tcp_proxy, name)
    job.until_committed()
    assert service.store_tcp_proxy.counts[name] > faults_before


@pytest.mark.parametrize("name", ["delayed", "throttled", "cut", "reset"])
def test_a_bad_wire_to_redis(service: FaultyService, submit, name: str) -> None:  # type: ignore[no-untyped-def]
    faults_before = service.redis_proxy.counts[name]
    service.store_tcp_proxy.faults, service.redis_proxy.faults = SLOW, WIRE_FAULTS[name]
    job = submit()
    job.until_done(1)
    _at_once(service.redis_proxy, name)
    job.until_committed()
    assert service.redis_proxy.counts[name] > faults_before


def test_every_connection_to_redis_is_reset_again_and_again(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    for done in (1, 2, 3):
        job.until_done(done)
        service.wait_until(lambda: service.redis_proxy.connections > 0)  # the worker may still be reconnecting
        assert service.redis_proxy.reset() > 0
    job.until_committed()


def test_redis_connections_that_fall_silent_are_made_anew(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    job.until_done(1)
    assert service.redis_proxy.silence() > 0
    job.until_committed()


def test_redis_is_away_for_longer_than_a_lease(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    assert job.until_done(1) < SHARDS
    service.redis.kill()
    time.sleep(service.settings.lease_seconds + 0.5)
    service.restart_redis()
    job.until_committed()
    assert all(worker.is_alive() for worker in service.workers[-2:])


def test_a_redis_that_is_full_stops_nothing_for_good(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    job.until_done(1)
    with redis_py.Redis.from_url(service.redis.url) as direct:
        direct.config_set("maxmemory", "1mb")
        time.sleep(2.0)
        direct.config_set("maxmemory", "0")
    job.until_committed()
    assert all(worker.is_alive() for worker in service.workers[-2:])


def test_a_pool_process_that_is_killed_in_its_shard(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    job.until_done(1)
    worker = _busy(service)
    send_signal(process_tree(worker)[-1:], signal.SIGKILL)
    job.until_committed()
    assert worker.is_alive()


def test_a_main_process_that_is_killed_leaves_no_orphans(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    assert job.until_done(1) < SHARDS
    worker = _busy(service)
    assert len(process_tree(worker)) > 1
    send_signal([worker.process.pid], signal.SIGKILL)
    assert worker.process.wait() == -signal.SIGKILL
    job.until_committed()
    service.wait_until(lambda: process_tree(worker) == [])


def test_a_worker_that_sleeps_past_its_lease_changes_nothing(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    assert job.until_done(1) < SHARDS
    worker = _busy(service)
    send_signal(process_tree(worker), signal.SIGSTOP)
    try:
        with redis_py.Redis.from_url(service.redis.url) as direct:
            direct.flushall()  # its lease is unknown now
        job.until_committed()
    finally:
        send_signal(process_tree(worker), signal.SIGCONT)
    time.sleep(2.0)  # it finishes its pending writes meanwhile
    assert worker.is_alive()
    job.is_whole()


def test_a_worker_that_is_asked_to_leave_costs_nothing(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    assert job.until_done(1) < SHARDS
    worker = _busy(service)
    worker.process.send_signal(signal.SIGTERM)
    service.wait_until(lambda: not worker.is_alive(), seconds=30.0)
    assert worker.process.returncode == 0
    service.wait_until(lambda: process_tree(worker) == [])
    job.until_committed()


def test_tickets_that_are_lost_and_tickets_that_come_twice(service: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    service.store_tcp_proxy.faults = SLOW
    job = submit()
    queue = service.pool.ledger.queue_key(service.settings.queue)
    with redis_py.Redis.from_url(service.redis.url) as direct:
        direct.delete(queue)
        job.until_done(1)
        for ticket in direct.lrange(queue, 0, -1):
            direct.rpush(queue, ticket, ticket)  # the same message three times
        for _ in range(20):
            service.pool.app.send_task(TICKET_TASK, queue=service.settings.queue)
        assert direct.llen(queue) > SHARDS  # more tickets than shards
    job.until_committed()


def _busy(service: FaultyService) -> WorkerProcess:
    """A live worker. It is making a shard, since there are more shards than the two workers can make at once."""
    return next(worker for worker in reversed(service.workers) if worker.is_alive())
