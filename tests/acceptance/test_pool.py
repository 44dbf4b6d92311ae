"""The whole pool: real workers, Redis, S3 over HTTP. Workers are killed, Redis is flushed; the dataset is the same."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import BrokerUnavailable, BucketMissing, BuildConflict, JobFailed, SettingsError, SpecError
from generator.models.bundle import load_bundle
from generator.production.commit import find_manifest, locate_build
from generator.production.mill import build
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import ENVIRONMENT_KEY, RECIPE_KEY, Manifest, SegmentedManifest
from generator.spec import plan
from generator.spec.recipe import ClusterDraw
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer, S3Server
from tests.support.services import LiveService, running_service
from workers.broker.identity import POOL_KEY, PoolRecord, prefix_of
from workers.client import Client
from workers.jobs.markers import read_marker
from workers.jobs.tickets import top_up
from workers.ledger.ledger import Ledger


@pytest.fixture
def service(redis_server: RedisServer, s3_server: S3Server, bucket: str, tmp_path: Path) -> Iterator[LiveService]:
    with running_service(redis_server, s3_server, bucket, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of large images: a shard of some hundreds takes about a second, so that a worker can be killed in it."""
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "slow", size=128, channels=3, dims=16)


def undisturbed(fields: dict[str, object], destination: str) -> Manifest:
    """The same recipe, built in this process at another location."""
    spec, bundle = resolve_draft(parse_draft(fields | {"destination": destination}))
    return build(locate_build(spec), load_bundle(bundle, spec.recipe.bundle), device="cpu")


def manifest_at(service: LiveService, url: str) -> Manifest:
    manifest = find_manifest(service.location(url, "tiny"))
    assert manifest is not None
    return manifest


def test_a_worker_killed_in_the_middle_of_a_shard_changes_no_byte(service: LiveService, slow_bundle: Path) -> None:
    fields = service.spec(slow_bundle, count=3600, shard_size=1200, density_floor=0.3)
    service.settings = service.settings.model_copy(update={"lease_seconds": 1.0})  # renewals tell how many are made
    job = service.client.submit(fields)
    first = service.start_worker()

    def in_the_middle_of_a_later_shard() -> bool:
        counts = service.pool.ledger.counts(job.job)
        return counts.done >= 1 and counts.running == 1 and 0 < counts.made < 1200

    service.wait_until(in_the_middle_of_a_later_shard)
    service.kill_worker(first)
    assert not service.client.status(job.job).ended
    service.start_worker()
    ended = service.client.wait(job.job, timeout=120)
    manifest = manifest_at(service, ended.url)
    assert manifest.canonical() == undisturbed(fields, "memory://undisturbed").canonical()
    assert verify_dataset(ended.url, service.settings.s3, deep=True).problems == ()


def test_segments_of_a_killed_worker_are_those_of_an_undisturbed_build(
    service: LiveService, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments of three shards; the worker is killed when it has written some of them."""
    fields = service.spec(bundle, count=1500)  # 30 shards
    job = service.client.submit(fields)
    store = open_store(job.url, service.settings.s3)
    worker = service.start_worker("tests.support.small_segments")
    service.wait_until(lambda: sum(1 for _ in store.list("segments/")) >= 2)
    service.kill_worker(worker)
    assert not service.client.status(job.job).ended
    service.start_worker("tests.support.small_segments")
    ended = service.client.wait(job.job, timeout=120)
    monkeypatch.setattr(plan, "SEGMENT_SHARDS", 3)
    manifest = manifest_at(service, ended.url)
    assert isinstance(manifest, SegmentedManifest)
    assert len(manifest.segments) == 10
    assert manifest.canonical() == undisturbed(fields, "memory://segments").canonical()
    assert verify_dataset(ended.url, service.settings.s3, deep=True).problems == ()


def test_redis_that_forgets_everything_loses_nothing(service: LiveService, bundle: Path) -> None:
    fields = service.spec(bundle, count=1500)
    job = service.client.submit(fields)
    service.start_worker()
    service.wait_until(lambda: service.client.status(job.job).shards_done >= 3)
    redis_py.Redis.from_url(service.redis.url).flushall()
    service.wait_until(lambda: service.is_committed(job.url))
    assert manifest_at(service, job.url).canonical() == undisturbed(fields, "memory://flushed").canonical()
    assert read_marker(service.pool.root, job.job) is None


def test_redis_that_dies_and_comes_back_is_survived(service: LiveService, bundle: Path) -> None:
    fields = service.spec(bundle, count=1500)
    job = service.client.submit(fields)
    service.start_worker()
    service.wait_until(lambda: service.client.status(job.job).shards_done >= 2)
    service.redis.kill()
    time.sleep(2.0)
    service.redis.restart()
    service.wait_until(lambda: service.is_committed(job.url))
    assert manifest_at(service, job.url).canonical() == undisturbed(fields, "memory://restarted").canonical()
    assert verify_dataset(job.url, service.settings.s3, deep=True).problems == ()
    service.wait_until(lambda: service.client.status(job.job).state == "committed")


def test_a_worker_that_is_asked_to_leave_hands_its_shard_back(service: LiveService, slow_bundle: Path) -> None:
    """The grace period is far shorter than the shard, and the lease far longer than this test."""
    fields = service.spec(slow_bundle, count=1400, shard_size=1400)
    service.settings = service.settings.model_copy(update={"grace_seconds": 0.3, "lease_seconds": 1000.0})
    job = service.client.submit(fields)
    worker = service.start_worker()
    service.wait_until(lambda: service.client.status(job.job).shards_running == 1)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(60) is not None
    assert service.pool.ledger.counts(job.job)[:4] == (1, 0, 0, 0)
    assert service.pool.ledger.slots() == 0
    service.start_worker()
    service.client.wait(job.job, timeout=120)
    assert manifest_at(service, job.url).canonical() == undisturbed(fields, "memory://asked").canonical()
    assert verify_dataset(job.url, service.settings.s3, deep=True).problems == ()


def test_a_shard_that_takes_too_long_is_ended_with_its_process_and_given_up(
    service: LiveService, slow_bundle: Path
) -> None:
    limits = {"shard_seconds": 1, "max_shard_attempts": 2, "lease_seconds": 1.0}
    service.settings = service.settings.model_copy(update=limits)
    job = service.client.submit(service.spec(slow_bundle, count=100_000, shard_size=100_000))
    service.start_worker()
    service.wait_until(lambda: service.client.status(job.job).ended)
    status = service.client.status(job.job)
    assert status.state == "failed"
    assert [(letter.shard, letter.faults) for letter in status.dead] == [(0, 2)]
    assert "LATENTMILL_SHARD_SECONDS" in status.error


def test_submitting_twice_gives_one_build(service: LiveService, bundle: Path) -> None:
    fields = service.spec(bundle)
    job, again = service.client.submit(fields), service.client.submit(fields)
    assert (job.job, job.url) == (again.job, again.url)
    service.start_worker()
    service.client.wait(job.job, timeout=90)
    before = {info.key: info.etag for info in service.location(job.url, "tiny").store.list()}
    third = service.client.submit(fields)
    assert third.state == "committed"
    assert {info.key: info.etag for info in service.location(job.url, "tiny").store.list()} == before
    assert [status.job for status in service.client.jobs()] == [job.job]


def test_the_pool_draws_as_this_process_does(service: LiveService, bundle: Path) -> None:
    draw = {"mode": "around", "reference": 17, "distance": 0.4}
    fields = service.spec(bundle, count=None, counts={"dog": 200}, draw=draw, temperature=0.8)
    job = service.client.submit(fields)
    service.start_worker()
    ended = service.client.wait(job.job, timeout=90)
    assert manifest_at(service, ended.url).canonical() == undisturbed(fields, "memory://around").canonical()
    spec, _ = resolve_draft(parse_draft(service.spec(bundle)), None, service.settings.s3)
    beyond = spec.recipe.model_copy(update={"draw": ClusterDraw(cluster=2)})
    with pytest.raises(SpecError, match=r"draw\.cluster"):
        service.client.submit(spec.model_copy(update={"recipe": beyond}))


def test_lost_and_duplicated_tickets_are_harmless(service: LiveService, bundle: Path) -> None:
    fields = service.spec(bundle)
    service.settings = service.settings.model_copy(update={"shards_per_child": 8})
    job = service.client.submit(fields)
    redis_py.Redis.from_url(service.redis.url).delete(
        service.pool.ledger.queue_key(service.settings.queue)
    )  # every ticket is lost
    service.start_worker()
    service.wait_until(lambda: service.client.status(job.job).shards_done >= 1)
    for _ in range(25):  # and more tickets than shards
        service.pool.app.send_task("latentmill.work", queue=service.settings.queue)
    service.client.wait(job.job, timeout=90)
    assert manifest_at(service, job.url).canonical() == undisturbed(fields, "memory://tickets").canonical()
    assert verify_dataset(job.url, service.settings.s3, deep=True).problems == ()
    assert top_up(service.pool.app, service.pool.ledger, service.settings) == 0
    assert "SpawnPoolWorker-2" in service.logs()  # a process is replaced after its maximum number of shards


def test_a_cancelled_job_stays_cancelled_until_it_is_submitted_again(service: LiveService, slow_bundle: Path) -> None:
    fields = service.spec(slow_bundle, count=1800, shard_size=600)
    job = service.client.submit(fields)
    service.start_worker()
    service.wait_until(lambda: service.client.status(job.job).shards_running == 1)
    assert service.client.cancel(job.job).state == "cancelled"
    with pytest.raises(JobFailed, match="cancelled"):
        service.client.wait(job.job, timeout=5)
    for _ in range(2):  # between two announcements, a worker has read the store
        redis_py.Redis.from_url(service.redis.url).flushall()
        service.wait_until(lambda: service.pool.ledger.slots() > 0)
    assert service.client.status(job.job).state == "cancelled"
    assert not service.is_committed(job.url)
    service.client.submit(fields)
    service.client.wait(job.job, timeout=120)
    assert manifest_at(service, job.url).canonical() == undisturbed(fields, "memory://cancelled").canonical()
    assert verify_dataset(job.url, service.settings.s3, deep=True).problems == ()


def test_a_worker_of_another_environment_writes_no_shard(service: LiveService, bundle: Path) -> None:
    job = service.client.submit(service.spec(bundle))
    other = Environment(device="cpu/elsewhere", dtype="float32", libraries={"torch": "0"})
    store = service.location(job.url, "tiny").store
    store.create(ENVIRONMENT_KEY, other.canonical())
    service.start_worker()
    service.wait_until(lambda: "declined" in service.logs())
    assert "cpu/elsewhere" in service.logs()
    assert not list(store.list("shards/"))
    assert service.client.status(job.job).state == "queued"


def test_a_job_that_cannot_succeed_fails_at_once_and_says_why(service: LiveService, bundle: Path) -> None:
    job = service.client.submit(service.spec(bundle, density_floor=0.9999, max_attempts=2))
    service.start_worker()
    with pytest.raises(JobFailed, match="max_attempts"):
        service.client.wait(job.job, timeout=90)
    marker = read_marker(service.pool.root, job.job)
    assert marker is not None
    assert marker.intent == "failed"
    assert "acceptance rate" in marker.error
    assert not service.is_committed(job.url)


def test_a_place_with_another_spec_is_refused(service: LiveService, bundle: Path) -> None:
    fields = service.spec(bundle)
    spec, _ = resolve_draft(parse_draft(fields), None, service.settings.s3)
    location = locate_build(spec, service.settings.s3)
    location.store.create(RECIPE_KEY, b'{"not":"this recipe"}')
    with pytest.raises(BuildConflict, match="another recipe"):
        service.client.submit(fields)
    assert service.client.jobs() == []


def test_nothing_is_written_while_redis_is_down(service: LiveService, bundle: Path) -> None:
    service.redis.kill()
    with pytest.raises(BrokerUnavailable, match="redis"):
        service.client.submit(service.spec(bundle))
    assert list(open_store(service.bucket, service.settings.s3).list()) == []


def test_places_that_cannot_be_written_are_refused_with_nothing_written(
    service: LiveService, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(BucketMissing):
        service.client.submit(service.spec(bundle, destination="s3://no-such-bucket/data"))
    with pytest.raises(SettingsError, match="ALLOWED_STORES"):  # a pool whose root is in S3 writes to S3
        service.client.submit(service.spec(bundle, destination=str(tmp_path / "data")))
    with pytest.raises(SettingsError, match="destination"):
        service.client.submit(service.spec(bundle, destination="memory://here"))
    assert list(open_store(service.bucket, service.settings.s3).list()) == []


def test_an_unknown_job_is_bad_input(service: LiveService) -> None:
    for job in ("tiny-000000000000", "../../etc", ""):
        with pytest.raises(SpecError, match="job"):
            service.client.status(job)


def test_tenants_see_their_own_jobs(service: LiveService, bundle: Path) -> None:
    ours = service.client.submit(service.spec(bundle, tenant="ours"))
    service.client.submit(service.spec(bundle, tenant="theirs", seed=1))
    assert [status.job for status in Client(service.settings).jobs(tenant="ours")] == [ours.job]


def test_a_worker_follows_a_root_that_was_restored_from_a_backup(service: LiveService) -> None:
    """The backup has another identity: the worker leaves its pool in order and starts again, as the same process."""
    worker, old = service.start_worker(), service.pool.identity.prefix()
    service.wait_until(lambda: service.pool.ledger.slots() == 1)
    open_store(service.settings.root, service.settings.s3).put(
        POOL_KEY, PoolRecord(pool="0123456789abcdef").canonical()
    )
    redis_py.Redis.from_url(service.redis.url).delete(f"{old}turn:look")  # a reconciler looks at once
    new = Ledger(service.redis.address, lambda: prefix_of("0123456789abcdef"))
    service.wait_until(lambda: new.slots() == 1, seconds=240.0)
    assert worker.is_alive()
    assert "Traceback" not in worker.log.read_text()
