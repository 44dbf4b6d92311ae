"""The ticket handler without Celery, ticket by ticket, on a real Redis: a fault affects its own job and no other."""

from __future__ import annotations

import shutil

import pytest

from generator.errors import SpecError
from tests.support.services import ManualService
from workers.jobs.markers import read_marker
from workers.worker.ticket_handler import open_ticket_handler


@pytest.mark.parametrize("form", [{}, {"format": "parquet"}, {"format": "mds"}, {"sidecars": ["dali"]}], ids=str)
def test_shards_then_the_commit(bench: ManualService, form: dict[str, object]) -> None:
    job = bench.submit(**form)
    summaries = bench.serve(3)
    assert "committed" in summaries[1]
    assert summaries[2] == "nothing to do"
    assert bench.state(job) == "committed"
    assert read_marker(bench.ticket_handler.pool.root, job.job) is None


def test_a_lasting_fault_fails_the_job_after_five_and_says_so(bench: ManualService) -> None:
    job = bench.submit()
    in_the_way = bench.home / "out/tiny/builds" / job.url.rpartition("/")[2] / "shards/tiny-000001.tar"
    in_the_way.mkdir(parents=True)
    summaries = bench.serve(6)
    assert sum(line.startswith("postponed") for line in summaries) == 4
    status = bench.client.status(job.job)
    assert (status.state, status.shards_done) == ("failed", 1)
    assert "shard 1 failed 5 times" in status.error
    in_the_way.rmdir()
    bench.submit()
    bench.serve(2)
    assert bench.state(job) == "committed"


def test_a_commit_that_cannot_be_written_is_tried_five_times(bench: ManualService) -> None:
    job = bench.submit()
    in_the_way = bench.home / "out/tiny/builds" / job.url.rpartition("/")[2] / "preview.jpg"
    in_the_way.mkdir(parents=True)
    bench.serve(2)
    assert "fault 1" in bench.client.status(job.job).error
    bench.serve(5)
    assert bench.state(job) == "failed"
    assert "the commit failed 5 times" in bench.client.status(job.job).error


def test_a_shard_that_vanished_before_the_commit_is_named(bench: ManualService) -> None:
    job = bench.submit()
    bench.serve(1)
    shard = next((bench.home / "out").rglob("tiny-000000.tar"))
    shard.unlink()
    bench.serve(1)
    status = bench.client.status(job.job)
    assert status.state == "failed"
    assert "shards/tiny-000000.tar" in status.error
    assert "receipts/000000.json" in status.error


def test_a_receipt_that_vanished_is_made_again(bench: ManualService) -> None:
    job = bench.submit()
    bench.serve(1)
    next((bench.home / "out").rglob("receipts/000000.json")).unlink()
    bench.serve(4)
    assert bench.state(job) == "committed"


def test_a_place_that_is_gone_fails_its_own_job_only(bench: ManualService) -> None:
    lost, kept = bench.submit("lost"), bench.submit("kept")
    bench.serve(1)
    shutil.rmtree(bench.home / "out/lost")
    bench.serve(5)
    assert (bench.state(lost), bench.state(kept)) == ("failed", "committed")


def test_cancel_without_a_ledger_and_every_question_after_it(bench: ManualService) -> None:
    job, other = bench.submit(), bench.submit("other")
    bench.redis.flushall()
    assert bench.client.cancel(job.job).state == "cancelled"
    assert bench.state(job) == "cancelled"
    assert {status.job for status in bench.client.jobs()} == {job.job, other.job}
    bench.reconcile()
    assert bench.ticket_handler.pool.ledger.open_jobs() == [other.job]


def test_what_lies_about_in_the_root_hides_no_build(bench: ManualService) -> None:
    gone, kept = bench.submit("aaa-gone"), bench.submit("kept")
    (bench.home / "root/open/aaa.json").write_text("no marker")
    shutil.rmtree(bench.home / "out/aaa-gone")
    notes = next((bench.home / "out/kept/builds").iterdir()) / "receipts"
    notes.mkdir(exist_ok=True)
    (notes / "notes.txt").write_text("mine")
    bench.redis.flushall()
    bench.reconcile()
    assert bench.ticket_handler.pool.ledger.open_jobs() == [kept.job]
    assert bench.state(gone) == "failed"
    assert {status.job for status in bench.client.jobs()} >= {kept.job}
    bench.serve(2)
    assert bench.state(kept) == "committed"


def test_a_worker_without_the_device_leaves_the_job_to_others(bench: ManualService) -> None:
    job = bench.submit()
    other = open_ticket_handler(bench.settings.model_copy(update={"device": "cuda:7"}))
    assert "declined" in other.serve().summary
    assert other.serve().summary == "nothing to do"
    status = bench.client.status(job.job)
    assert status.state == "queued"
    assert "cuda:7" in status.error
    bench.serve(2)
    assert bench.state(job) == "committed"


def test_a_cancelled_build_is_neither_taken_up_nor_committed(bench: ManualService) -> None:
    job = bench.submit()
    marker = bench.ticket_handler.pool.marker(job.job)
    assert marker is not None
    bench.client.cancel(job.job)
    bench.ticket_handler.pool.activate(marker)  # as by a reconciler that read the marker before the cancellation
    assert bench.ticket_handler.pool.ledger.open_jobs() == []
    assert bench.state(job) == "cancelled"
    again = bench.submit()
    bench.serve(1)
    claim = bench.ticket_handler.pool.ledger.claim(60.0)
    assert claim is not None
    (bench.home / f"root/open/{again.job}.json").unlink()
    bench.ticket_handler.pool.ledger.complete(claim)
    assert "no longer open" in bench.serve(1)[0]
    assert bench.state(again) == "cancelled"


def test_workers_that_are_lost_again_and_again_fail_the_job(bench: ManualService) -> None:
    job = bench.submit()
    for _ in range(5):
        assert bench.ticket_handler.pool.ledger.claim(0.001, []) is not None
        assert bench.ticket_handler.pool.ledger.claim(0.001, []) is not None
        bench.reconcile()
    status = bench.client.status(job.job)
    assert status.state == "failed"
    assert "lost 5 times" in status.error


def test_a_job_that_nobody_knows_is_bad_input(bench: ManualService) -> None:
    with pytest.raises(SpecError, match="job"):
        bench.client.status("nobody-000000000000")
