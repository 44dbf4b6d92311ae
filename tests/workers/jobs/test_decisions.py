"""Decisions about jobs, of users and of the pool: pause, resume, cancel, give up a shard, refuse a submission.

One worker process without Celery, on a real Redis. Decisions are in the store, so they survive a loss of Redis.
"""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from generator.drafts import parse_draft, resolve_draft
from generator.errors import BundleError, DatasetError, DeviceExhausted, InvalidOutput, QuotaExceeded, SpecError
from generator.models.bundle import load_bundle
from generator.production.commit import find_manifest, locate_build
from generator.production.mill import build
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import ENVIRONMENT_KEY
from generator.spec.canonical import canonical_json
from tests.support.services import ManualService
from workers.cli.main import root
from workers.client import Client
from workers.jobs.markers import read_marker
from workers.jobs.pool import Pool
from workers.jobs.status import JobStatus
from workers.ledger.tenants import Tenants, TenantShare
from workers.worker.ticket_handler import TicketHandler


def obstacle(bench: ManualService, job: JobStatus, shard: int) -> Path:
    """Create a directory at the shard's key: every attempt to write the shard fails until it is removed."""
    path = bench.home / "out" / job.name / "builds" / job.url.rpartition("/")[2] / f"shards/{job.name}-{shard:06d}.tar"
    path.mkdir(parents=True)
    return path


def impatient(bench: ManualService, error: Exception) -> TicketHandler:
    """A ticket handler that always fails, and gives up a shard after the first fault."""
    settings = bench.settings.model_copy(update={"max_shard_attempts": 1})
    return replace(bench.ticket_handler, pool=Pool(settings), produce=_raising(error))


def is_the_same_dataset(bench: ManualService, job: JobStatus, **fields: Any) -> bool:
    """Whether the committed dataset is byte-identical to one that this process builds without interruption."""
    spec, _ = resolve_draft(
        parse_draft(bench.spec(job.name, **fields) | {"destination": f"memory://{bench.home.name}"})
    )
    expected = build(
        locate_build(spec), load_bundle(bench.ticket_handler.pool.root.at(f"bundles/{spec.recipe.bundle[7:]}"), None)
    )
    found = find_manifest(locate_build(resolve_draft(parse_draft(bench.spec(job.name, **fields)))[0]))
    return found is not None and found.canonical() == expected.canonical()


def test_a_paused_job_waits_also_when_redis_forgets_it(bench: ManualService) -> None:
    job = bench.submit(count=90)
    bench.serve(1)
    assert bench.client.pause(job.job).state == "paused"
    assert bench.serve(1) == ["nothing to do"]
    assert bench.client.status(job.job).shards_done == 1
    bench.redis.flushall()
    bench.reconcile()
    assert bench.serve(1) == ["nothing to do"]
    assert bench.state(job) == "paused"
    assert bench.submit(count=90).state == "paused"  # submitting again does not resume a paused job
    assert bench.client.resume(job.job).state == "running"
    bench.serve(3)
    assert bench.state(job) == "committed"
    assert is_the_same_dataset(bench, job, count=90)


def test_a_job_that_is_paused_at_its_end_is_not_committed(bench: ManualService) -> None:
    job = bench.submit()
    claims = [bench.ticket_handler.pool.ledger.claim(60.0) for _ in range(2)]
    bench.client.pause(job.job)
    for claim in claims:
        assert claim is not None
        assert "images" in bench.ticket_handler._make_shard(claim).summary
    assert bench.serve(1) == ["nothing to do"]
    assert bench.state(job) == "paused"
    bench.client.resume(job.job)
    assert "committed" in bench.serve(1)[0]


def test_a_shard_is_given_up_and_the_others_are_made(bench: ManualService) -> None:
    job = bench.submit(count=150)
    path = obstacle(bench, job, 1)
    summaries = bench.serve(9)
    assert sum(line.startswith("postponed") for line in summaries) == 4
    status = bench.client.status(job.job)
    assert (status.state, status.shards_done, status.missing_shards, status.missing) == ("failed", 4, 1, ((1, 1),))
    (dead_letter,) = status.dead
    assert (dead_letter.shard, dead_letter.faults) == (1, 5)
    assert "tiny-000001.tar" in dead_letter.error
    assert "Traceback" in dead_letter.traceback
    assert len(dead_letter.traceback) <= 4000
    bench.redis.flushall()
    bench.reconcile()  # does not reopen a failed job
    assert bench.client.status(job.job).dead == status.dead
    path.rmdir()
    assert bench.client.resume(job.job).dead == ()
    bench.serve(1)
    assert bench.state(job) == "committed"
    assert is_the_same_dataset(bench, job, count=150)


def test_what_was_given_up_stays_given_up_when_redis_forgets(bench: ManualService) -> None:
    job = bench.submit(count=150)
    handler = impatient(bench, OSError("the disk is on fire"))
    summary = bench.serve(1, handler)[0]
    assert summary.startswith("gave up")
    assert (bench.state(job), len(bench.client.status(job.job).dead)) == ("queued", 1)
    bench.redis.flushall()
    bench.reconcile()
    bench.serve(4)
    assert (bench.state(job), bench.client.status(job.job).shards_done) == ("failed", 4)
    bench.client.resume(job.job)
    bench.serve(1)
    assert bench.state(job) == "committed"


def test_a_job_of_which_too_much_fails_is_failed_at_once(bench: ManualService) -> None:
    job = bench.submit(count=25, shard_size=1)
    summaries = bench.serve(23, impatient(bench, OSError("the disk is on fire")))
    assert sum(line.startswith("gave up") for line in summaries) == 21
    status = bench.client.status(job.job)
    assert (status.state, status.missing_shards, status.missing) == ("failed", 25, ((0, 24),))
    assert "OSError: the disk is on fire" in status.error
    bench.client.resume(job.job)
    bench.serve(25)
    assert bench.state(job) == "committed"


def test_what_no_retry_would_mend_fails_at_once(bench: ManualService) -> None:
    job = bench.submit()
    handler = replace(
        bench.ticket_handler, produce=_raising(InvalidOutput("decoder", "finite pixel values", "NaN or infinity"))
    )
    assert bench.serve(1, handler)[0].startswith("failed")
    status = bench.client.status(job.job)
    assert (status.state, status.dead[0].faults, status.dead[0].shard) == ("failed", 1, 0)
    assert "NaN" in status.dead[0].error


def test_a_device_without_memory_hands_the_shard_back_with_a_typed_error(bench: ManualService) -> None:
    job = bench.submit()
    bench.serve(1)
    handler = replace(
        bench.ticket_handler, produce=_raising(DeviceExhausted("batch", "a batch of 16 that fits cpu", "none"))
    )
    assert "postponed" in bench.serve(1, handler)[0]
    assert not bench.ticket_handler.decoders._decoders  # evicted, as they may occupy the missing memory
    assert "batch of 16" in bench.client.status(job.job).error
    bench.serve(1)
    assert bench.state(job) == "committed"


def test_a_build_is_resumed_by_its_url_when_everything_but_itself_is_lost(bench: ManualService) -> None:
    job = bench.submit(count=90)
    bench.serve(1)
    bench.redis.flushall()
    shutil.rmtree(bench.home / "root/open")
    with pytest.raises(SpecError, match="job"):
        bench.client.resume(job.job)
    again = bench.client.resume(job.url, tenant="ours")
    assert (again.job, again.shards_done, again.tenant, again.state) == (job.job, 1, "ours", "running")
    bench.serve(2)
    assert bench.state(job) == "committed"
    assert is_the_same_dataset(bench, job, count=90)
    with pytest.raises(DatasetError, match="not finished"):
        bench.client.resume(job.url)


def test_a_dataset_with_one_unfinished_build_names_it(bench: ManualService) -> None:
    job = bench.submit()
    dataset = job.url.rpartition("/builds/")[0]
    bench.client.cancel(job.job)
    assert bench.client.resume(dataset).job == job.job
    other = bench.submit(seed=1)
    with pytest.raises(DatasetError, match="2 at"):
        bench.client.resume(dataset)
    with pytest.raises(DatasetError, match="recipe"):
        bench.client.resume(job.url[:-1] + ("0" if job.url[-1] != "0" else "1"))
    shutil.rmtree(bench.home / "root/bundles")
    shutil.rmtree(bench.home / "root/open")
    with pytest.raises(BundleError):
        bench.client.resume(other.url)


def test_a_build_goes_on_in_another_environment_when_a_person_says_so(bench: ManualService) -> None:
    job = bench.submit()
    location = locate_build(resolve_draft(parse_draft(bench.spec()))[0])
    other = Environment(device="cpu/elsewhere", dtype="float32", libraries={"torch": "0"})
    location.store.create(ENVIRONMENT_KEY, other.canonical())
    assert "declined" in bench.serve(1)[0]
    bench.client.resume(job.job, new_environment=True)
    handler = replace(bench.ticket_handler, _declined={})
    bench.serve(2, handler)
    assert bench.state(job) == "committed"
    manifest = find_manifest(location)
    assert manifest is not None
    assert manifest.environments.keys() - {other.digest}


def test_clients_that_race_submit_one_job(bench: ManualService) -> None:
    with ThreadPoolExecutor(8) as threads:
        jobs = list(threads.map(lambda _: Client(bench.settings).submit(bench.spec()), range(8)))
    assert len({job.job for job in jobs}) == 1
    bench.serve(2)
    assert bench.state(jobs[0]) == "committed"
    assert bench.serve(1) == ["nothing to do"]


def test_of_two_tenants_with_one_build_the_second_is_told_so(bench: ManualService) -> None:
    ours = bench.submit(tenant="ours")
    with pytest.raises(SpecError, match="tenant ours") as caught:
        bench.submit(tenant="theirs")
    assert (caught.value.field, ours.job in caught.value.got) == ("tenant", True)
    assert bench.submit(tenant="theirs", revision=1).tenant == "theirs"
    bench.serve(4)
    assert bench.submit(tenant="theirs").state == "committed"  # a committed build is returned to any tenant


def test_a_destination_means_the_same_in_every_working_directory(
    bench: ManualService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.home)
    spec, _ = resolve_draft(parse_draft(bench.spec()))
    relative = spec.model_copy(update={"order": spec.order.model_copy(update={"destination": "out"})})
    job = bench.submit()
    assert bench.client.submit(relative).job == job.job


def test_quotas_refuse_and_say_when(bench: ManualService) -> None:
    bench.ticket_handler.pool.ledger.publish_shares(
        Tenants(tenants={"us": TenantShare(queued_jobs=1, images_per_day=100)})
    )
    first = bench.submit(tenant="us")
    with pytest.raises(QuotaExceeded, match="1 unfinished jobs"):
        bench.submit("second", tenant="us")
    assert not (bench.home / "out/second").exists()
    bench.serve(2)
    with pytest.raises(QuotaExceeded, match=r"at midnight UTC") as caught:
        bench.submit("second", tenant="us")
    assert caught.value.field == "images_per_day"
    with pytest.raises(QuotaExceeded, match="larger quota"):
        bench.submit("second", tenant="us", count=101)
    assert bench.submit("second", tenant="us", count=40).state == "queued"
    assert bench.submit("third", tenant="them").state == "queued"
    assert bench.submit(tenant="us").job == first.job


def test_a_submission_that_fails_does_not_count(bench: ManualService) -> None:
    bench.ticket_handler.pool.ledger.publish_shares(Tenants(default=TenantShare(queued_jobs=1, images_per_day=60)))
    (bench.home / "out").write_text("no directory")
    with pytest.raises(Exception, match="out"):
        bench.submit()
    (bench.home / "out").unlink()
    assert bench.submit().state == "queued"


def test_shares_are_read_by_the_reconciler_and_a_broken_file_leaves_them(bench: ManualService) -> None:
    path = bench.home / "tenants.yaml"
    bench.settings = bench.settings.model_copy(update={"tenants_file": path})
    path.write_text("tenants: {default: {running_shards: 1}}")
    bench.reconcile()
    path.write_text("tenants: nonsense")
    bench.reconcile()
    job = bench.submit(count=90)
    assert bench.ticket_handler.pool.ledger.claim(60.0) is not None
    assert bench.ticket_handler.pool.ledger.claim(60.0) is None
    assert bench.state(job) == "running"


def test_a_large_job_is_submitted_at_once(bench: ManualService) -> None:
    started = time.perf_counter()
    job = bench.submit(count=100_000, shard_size=1)
    assert time.perf_counter() - started < 20  # it takes a fraction of a second; the failure to detect takes minutes
    assert (job.shards, job.state) == (100_000, "queued")
    assert bench.redis.llen(bench.ticket_handler.pool.ledger.queue_key(bench.settings.queue)) <= 4
    used = sum(bench.redis.memory_usage(key) or 0 for key in bench.redis.scan_iter("latentmill:*"))
    assert used < 2**20


def test_a_ledger_that_is_behind_the_store_is_corrected(bench: ManualService) -> None:
    done, gone, paused = bench.submit("done"), bench.submit("gone"), bench.submit("paused")
    backup = {key: bench.redis.dump(key) for key in bench.redis.scan_iter("latentmill:*")}
    bench.client.cancel(gone.job)
    bench.client.pause(paused.job)
    bench.serve(2)
    assert bench.state(done) == "committed"
    bench.redis.flushall()
    for key, value in backup.items():
        bench.redis.restore(key, 0, value)
    bench.reconcile()
    assert [bench.state(job) for job in (done, gone, paused)] == ["committed", "cancelled", "paused"]
    assert bench.ticket_handler.pool.ledger.open_jobs() == []


def test_markers_of_earlier_releases_are_read(bench: ManualService) -> None:
    job = bench.submit()
    marker = read_marker(bench.ticket_handler.pool.root, job.job)
    assert marker is not None
    older = marker.model_dump(mode="json", exclude={"priority", "dead", "missing", "missing_shards"})
    (bench.home / f"root/open/{job.job}.json").write_bytes(canonical_json(older))
    assert read_marker(bench.ticket_handler.pool.root, job.job) == marker


def test_the_command_line_shows_what_was_given_up_and_resumes_it(
    bench: ManualService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("root", "state_dir", "cache_dir"):
        monkeypatch.setenv(f"LATENTMILL_{name.upper()}", str(getattr(bench.settings, name)))
    assert bench.settings.redis_url is not None
    monkeypatch.setenv("LATENTMILL_REDIS_URL", bench.settings.redis_url.get_secret_value())
    job = bench.submit()
    assert "paused" in _run_cli("pause", job.job)
    assert "queued" in _run_cli("resume", job.job)
    bench.serve(2, impatient(bench, OSError("the disk is on fire")))
    text = _run_cli("status", job.job)
    assert "given up: shard 0, after 1 fault(s): OSError: the disk is on fire" in text
    assert "Traceback" in text
    assert f"latentmill resume {job.job}" in text
    facts = json.loads(_run_cli("status", job.job, "--json"))
    assert (facts["missing"], [dead_letter["shard"] for dead_letter in facts["dead"]]) == (["0-1"], [0, 1])
    assert "not paused" in _run_cli("pause", job.job)
    _run_cli("resume", job.url)
    bench.serve(2)
    assert json.loads(_run_cli("status", job.job, "--json"))["state"] == "committed"


def _run_cli(*words: str) -> str:
    done = CliRunner().invoke(root, words, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def _raising(error: Exception) -> Any:
    def produce(*arguments: Any, **options: Any) -> None:
        raise error

    return produce
