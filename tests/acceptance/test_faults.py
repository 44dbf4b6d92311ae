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
SLOW = NetworkFaults(delay=(0.03, 0.08))  # so that a shard takes a second or two, and can be met in its middle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def expected(bundle: Path) -> ReferenceBuild:
    return build_reference(job_fields(bundle, "memory://", shards=SHARDS), f"memory://{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def whole_scene(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyService]:
    bucket = s3_server.make_bucket(f"faults-{uuid.uuid4().hex}")
    with FaultyService(tmp_path_factory.mktemp("faults"), s3_server, bucket) as scene:
        yield scene
    assert scene.watcher.left == []


@pytest.fixture
def scene(whole_scene: FaultyService) -> Iterator[FaultyService]:
    """Calm, with two living workers."""
    for _ in range(2 - sum(worker.is_alive() for worker in whole_scene.workers)):
        whole_scene.start_worker()
    yield whole_scene
    whole_scene.stop_faults()


class Job:
    """One build that is being disturbed."""

    def __init__(self, scene: FaultyService, bundle: Path, expected: ReferenceBuild) -> None:
        self._scene, self._expected = scene, expected
        destination = f"{scene.bucket}/{uuid.uuid4().hex}"
        fields = job_fields(bundle, scene.bucket, shards=SHARDS, destination=destination)
        status = scene.client.submit(fields)
        self.id, self.url = status.job, status.url

    def until_done(self, shards: int) -> int:
        """Wait for so many; how many are done by then."""
        self._scene.wait_until(lambda: self._scene.client.status(self.id).shards_done >= shards)
        return self._scene.client.status(self.id).shards_done

    def until_committed(self) -> None:
        """Wait for the commit, and see that it is what an undisturbed build commits, with nothing beside it."""
        self._scene.wait_until(lambda: self._scene.client.status(self.id).state in ("committed", "failed"))
        status = self._scene.client.status(self.id)
        assert status.state == "committed", f"{status.error}\n{self._scene.logs()}"
        self.is_whole()

    def is_whole(self) -> None:
        outcome = compare_build(self.url, self._scene.settings.s3, self._expected)
        assert outcome.problems == ()
        assert outcome.equal == outcome.expected > 3 * SHARDS


@pytest.fixture
def submit(scene: FaultyService, bundle: Path, expected: ReferenceBuild):  # type: ignore[no-untyped-def]
    return lambda: Job(scene, bundle, expected)


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


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.FORBIDDEN])  # which no time mends
def test_a_store_that_fails(scene: FaultyService, submit, fault: Fault) -> None:  # type: ignore[no-untyped-def]
    met = scene.s3_proxy.counts[fault]
    scene.s3_proxy.plan = STORE_FAULTS[fault]
    submit().until_committed()
    assert scene.s3_proxy.counts[fault] > met


def test_a_manifest_whose_answer_is_lost_or_wrong_is_committed_once(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    for fault in (Fault.ANSWER_LOST, Fault.LATE_409):
        met = scene.s3_proxy.counts[fault]
        scene.s3_proxy.plan = OneFault(fault, 1.0, where="manifest.json", most=1)
        submit().until_committed()
        assert scene.s3_proxy.counts[fault] == met + 1


WIRE_FAULTS = {
    "delayed": NetworkFaults(delay=(0.02, 0.08)),
    "throttled": NetworkFaults(rate=100_000),
    "cut": NetworkFaults(cut=0.03),
    "reset": NetworkFaults(reset=0.03),
    "silenced": NetworkFaults(silent=0.01),
}


def _at_once(wire: TcpProxy, name: str) -> None:
    """What a wire does by chance, it does now to all of its connections; the rest needs no chance."""
    {"cut": wire.cut, "reset": wire.reset, "silenced": wire.silence}.get(name, int)()


@pytest.mark.parametrize("name", list(WIRE_FAULTS))
def test_a_bad_wire_to_the_store(scene: FaultyService, submit, name: str) -> None:  # type: ignore[no-untyped-def]
    met = scene.store_tcp_proxy.counts[name]
    scene.store_tcp_proxy.faults = WIRE_FAULTS[name]
    job = submit()
    job.until_done(1)
    _at_once(scene.store_tcp_proxy, name)
    job.until_committed()
    assert scene.store_tcp_proxy.counts[name] > met


@pytest.mark.parametrize("name", ["delayed", "throttled", "cut", "reset"])
def test_a_bad_wire_to_redis(scene: FaultyService, submit, name: str) -> None:  # type: ignore[no-untyped-def]
    met = scene.redis_proxy.counts[name]
    scene.store_tcp_proxy.faults, scene.redis_proxy.faults = SLOW, WIRE_FAULTS[name]
    job = submit()
    job.until_done(1)
    _at_once(scene.redis_proxy, name)
    job.until_committed()
    assert scene.redis_proxy.counts[name] > met


def test_every_connection_to_redis_is_reset_again_and_again(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    for done in (1, 2, 3):
        job.until_done(done)
        assert scene.redis_proxy.reset() > 0
    job.until_committed()


def test_redis_connections_that_fall_silent_are_made_anew(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    job.until_done(1)
    assert scene.redis_proxy.silence() > 0
    job.until_committed()


def test_redis_is_away_for_longer_than_a_lease(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    assert job.until_done(1) < SHARDS
    scene.redis.kill()
    time.sleep(scene.settings.lease_seconds + 1.0)
    scene.restart_redis()
    job.until_committed()
    assert all(worker.is_alive() for worker in scene.workers[-2:])


def test_a_redis_that_is_full_stops_nothing_for_good(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    job.until_done(1)
    with redis_py.Redis.from_url(scene.redis.url) as direct:
        direct.config_set("maxmemory", "1mb")
        time.sleep(3.0)
        direct.config_set("maxmemory", "0")
    job.until_committed()
    assert all(worker.is_alive() for worker in scene.workers[-2:])


def test_a_pool_process_that_is_killed_in_its_shard(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    job.until_done(1)
    worker = _busy(scene)
    send_signal(process_tree(worker)[-1:], signal.SIGKILL)
    job.until_committed()
    assert worker.is_alive()


def test_a_main_process_that_is_killed_leaves_no_orphans(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    assert job.until_done(1) < SHARDS
    worker = _busy(scene)
    assert len(process_tree(worker)) > 1
    send_signal([worker.process.pid], signal.SIGKILL)
    assert worker.process.wait() == -signal.SIGKILL
    job.until_committed()
    scene.wait_until(lambda: process_tree(worker) == [])


def test_a_worker_that_sleeps_past_its_lease_changes_nothing(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    assert job.until_done(1) < SHARDS
    worker = _busy(scene)
    send_signal(process_tree(worker), signal.SIGSTOP)
    try:
        with redis_py.Redis.from_url(scene.redis.url) as direct:
            direct.flushall()  # its lease is not even known any more
        job.until_committed()
    finally:
        send_signal(process_tree(worker), signal.SIGCONT)
    time.sleep(2.0)  # in which it writes what it was about to write
    assert worker.is_alive()
    job.is_whole()


def test_a_worker_that_is_asked_to_leave_costs_nothing(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    assert job.until_done(1) < SHARDS
    worker = _busy(scene)
    worker.process.send_signal(signal.SIGTERM)
    scene.wait_until(lambda: not worker.is_alive(), seconds=30.0)
    assert worker.process.returncode == 0
    scene.wait_until(lambda: process_tree(worker) == [])
    job.until_committed()


def test_tickets_that_are_lost_and_tickets_that_come_twice(scene: FaultyService, submit) -> None:  # type: ignore[no-untyped-def]
    scene.store_tcp_proxy.faults = SLOW
    job = submit()
    with redis_py.Redis.from_url(scene.redis.url) as direct:
        direct.delete(scene.settings.queue)
        job.until_done(1)
        for ticket in direct.lrange(scene.settings.queue, 0, -1):
            direct.rpush(scene.settings.queue, ticket, ticket)  # the very same message, three times
        for _ in range(20):
            scene.pool.app.send_task(TICKET_TASK, queue=scene.settings.queue)
        assert direct.llen(scene.settings.queue) > SHARDS  # more than there is to do
    job.until_committed()


def _busy(scene: FaultyService) -> WorkerProcess:
    """A living worker. There are two, and more shards than they can make at once, so it is making one."""
    return next(worker for worker in reversed(scene.workers) if worker.is_alive())
