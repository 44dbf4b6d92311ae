"""Workers write segments while the job runs; the commit writes what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from generator.datasets.verification import verify_dataset
from generator.errors import StoreUnavailable
from generator.production.commit import find_manifest, read_build_location
from generator.production.commit import segments as segments_module
from generator.production.provenance.manifest import SegmentedManifest
from generator.spec import plan
from generator.store import open_store
from tests.support.services import ManualService
from workers.jobs.status import JobStatus


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SEGMENT_SHARDS", 3)


def segments_of(job: JobStatus) -> list[str]:
    return sorted(info.key for info in open_store(job.url).list("segments/"))


def submitted(bench: ManualService) -> JobStatus:
    return bench.submit(count=70, shard_size=10)  # segments of 3, 3 and 1 shards


def committed(bench: ManualService, job: JobStatus) -> SegmentedManifest:
    marker = bench.ticket_handler.pool.marker(job.job)
    assert marker is None, bench.client.status(job.job).error
    manifest = find_manifest(read_build_location(open_store(job.url), "tiny"))
    assert isinstance(manifest, SegmentedManifest)
    return manifest


def test_the_last_shard_of_a_segment_writes_it(bench: ManualService) -> None:
    job = submitted(bench)
    bench.serve(2)
    assert segments_of(job) == []
    bench.serve(1)
    assert segments_of(job) == ["segments/000000.json"]
    bench.serve(4)
    assert len(committed(bench, job).segments) == len(segments_of(job)) == 3
    assert verify_dataset(job.url, deep=True).ok


def test_a_store_that_fails_then_is_made_good_at_the_commit(
    bench: ManualService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StoreUnavailable("segments", "an answer", "none")

    job = submitted(bench)
    with monkeypatch.context() as patch:
        patch.setattr(segments_module, "put_once", fail)
        summaries = bench.serve(6)
    assert all("images in" in line for line in summaries)
    assert segments_of(job) == []
    bench.serve(1)
    assert len(committed(bench, job).segments) == 3


def test_a_ledger_that_is_lost_costs_no_segment(bench: ManualService) -> None:
    job = submitted(bench)
    bench.serve(2)
    bench.redis.flushall()
    marker = bench.ticket_handler.pool.marker(job.job)
    assert marker is not None
    bench.ticket_handler.pool.activate(marker)
    bench.serve(1)
    assert segments_of(job) == ["segments/000000.json"]
    bench.serve(4)
    assert len(committed(bench, job).segments) == 3


def test_a_receipt_that_vanished_after_its_segment_was_written_is_made_again(bench: ManualService) -> None:
    job = submitted(bench)
    bench.serve(4)
    next((bench.home / "out").rglob("receipts/000001.json")).unlink()
    bench.serve(6)
    assert bench.state(job) == "committed"
    assert verify_dataset(job.url, deep=True).ok


def test_a_worker_of_an_earlier_release_may_finish_a_segment(bench: ManualService) -> None:
    """It completes shards in the ledger, and writes no segment."""
    job, ledger = submitted(bench), bench.ticket_handler.pool.ledger
    complete = type(ledger).complete
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(ledger), "complete", lambda self, claim, segment=None: complete(self, claim))
        bench.serve(5)
    assert segments_of(job) == []
    bench.serve(2)
    assert len(committed(bench, job).segments) == 3
