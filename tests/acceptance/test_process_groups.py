"""SIGTERM to every process of a worker at once, as systemd, Slurm and supervisors send it: no lease and no attempt is
lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from tests.faults.faulty_service import process_tree
from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer, S3Server
from tests.support.services import LiveService, running_service
from workers.embedded import WorkerProcess
from workers.jobs.status import JobStatus


@pytest.fixture(scope="module")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of large images, so that a shard takes seconds."""
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "slow", size=128, channels=3, dims=16)


@pytest.fixture
def service(redis_server: RedisServer, s3_server: S3Server, bucket: str, tmp_path: Path) -> Iterator[LiveService]:
    with running_service(redis_server, s3_server, bucket, tmp_path) as running:
        changes = {"concurrency": 2, "threads": 1, "lease_seconds": 600.0, "grace_seconds": 300.0}
        running.settings = running.settings.model_copy(update=changes)
        yield running


def start_in_a_job(service: LiveService, bundle: Path) -> tuple[WorkerProcess, JobStatus]:
    """A worker both of whose processes are in the middle of a shard."""
    job = service.client.submit(service.spec(bundle, count=2400, shard_size=400))
    worker = service.start_worker()
    service.wait_until(lambda: service.pool.ledger.counts(job.job).running == 2, seconds=240.0)
    return worker, job


def attempts(service: LiveService, job: JobStatus) -> dict[bytes, bytes]:
    """The attempts that the shards of a job have cost."""
    with redis_py.Redis.from_url(service.redis.url) as client:
        return dict(client.hgetall(f"{service.pool.identity.prefix()}tries:{job.job}"))


def ends(service: LiveService, worker: WorkerProcess) -> None:
    """Wait for the end of the worker; nothing of it is left."""
    service.wait_until(lambda: not worker.is_alive(), seconds=240.0)
    service.wait_until(lambda: process_tree(worker) == [], seconds=30.0)


def test_shards_that_end_within_the_grace_period_are_finished(service: LiveService, slow_bundle: Path) -> None:
    worker, job = start_in_a_job(service, slow_bundle)
    done = service.pool.ledger.counts(job.job).done
    for _ in range(2):
        os.killpg(worker.process.pid, signal.SIGTERM)
    ends(service, worker)
    counts = service.pool.ledger.counts(job.job)
    assert (counts.held, counts.done >= done + 2, attempts(service, job)) == (0, True, {}), service.logs()
    assert worker.process.returncode == 0, service.logs()


def test_shards_that_take_longer_are_released(service: LiveService, slow_bundle: Path) -> None:
    service.settings = service.settings.model_copy(update={"grace_seconds": 0.1})
    worker, job = start_in_a_job(service, slow_bundle)
    os.killpg(worker.process.pid, signal.SIGTERM)
    ends(service, worker)
    counts = service.pool.ledger.counts(job.job)
    assert (counts.held, counts.committing, attempts(service, job)) == (0, False, {}), service.logs()
    assert "the grace period of 0 s is over" in service.logs()
    assert "hangs" not in service.logs()
