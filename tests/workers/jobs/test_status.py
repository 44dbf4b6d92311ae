"""The status of a job on real servers: its state, and what it waits for."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from generator.models.bundle import BundleInfo
from generator.production.commit import BuildLocation
from generator.production.commit.finish import finish_build
from generator.production.commit.publish import commit
from generator.production.provenance.manifest import MANIFEST_KEY, Manifest
from generator.store import open_store
from tests.support.services import ManualService
from workers.jobs.markers import read_marker
from workers.ledger.tenants import Tenants, TenantShare
from workers.worker.ticket_handler import open_ticket_handler

pytestmark = pytest.mark.usefixtures("one_thread")


def explained(waits_for: str) -> bool:
    """Whether docs/operations.md has a row for this."""
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    row = re.sub(r"tenant [a-z]+, which has its \d+", "tenant T, which has its N", waits_for)
    return f"\n| `{row.partition(': ')[0]}" in page


def test_a_job_says_what_it_waits_for(bench: ManualService) -> None:
    ledger = bench.ticket_handler.pool.ledger
    ledger.publish_shares(Tenants(default=TenantShare(running_shards=1)))
    first, second = bench.submit("first"), bench.submit("second")
    assert first.waits_for.startswith("a worker")
    ledger.register_worker("somebody", 1, 60.0)
    assert bench.client.status(first.job).waits_for == "its turn"
    claim = ledger.claim(60.0)
    assert claim is not None
    waiting = second if claim.job == first.job else first
    assert bench.client.status(claim.job).waits_for == ""
    refused = bench.client.status(waiting.job).waits_for
    assert "tenant default, which has its 1 running shard" in refused
    assert explained(refused)
    assert explained(first.waits_for)
    assert explained("its turn")
    ledger.postpone(claim, base=600.0, cap=600.0)
    ledger.publish_shares(Tenants())
    for other in iter(lambda: ledger.claim(60.0), None):
        ledger.postpone(other, base=600.0, cap=600.0)
    assert bench.client.status(claim.job).waits_for.startswith("the end of a back-off")
    assert explained(bench.client.status(claim.job).waits_for)
    bench.client.pause(waiting.job)
    assert bench.client.status(waiting.job).waits_for == ""


def test_a_job_whose_workers_are_all_lost_says_so(bench: ManualService) -> None:
    """No reconciler frees the lease of a killed worker, but its shard must not be shown as running for ever."""
    job, ledger = bench.submit(), bench.ticket_handler.pool.ledger
    ledger.register_worker("killed", 1, 0.01)
    claim = ledger.claim(60.0)
    assert claim is not None
    assert ledger.renew(claim, 60.0, 17)
    assert bench.client.status(job.job).samples_done == 17
    assert ledger.renew(claim, 0.001, 17)
    time.sleep(0.05)
    status = bench.client.status(job.job)
    assert (status.shards_running, status.samples_done) == (0, 0)
    assert status.waits_for.startswith("a worker")
    bench.redis.flushall()
    assert bench.client.status(job.job).waits_for.startswith("a worker")
    ledger.register_worker("back", 1, 60.0)
    assert "find it in the store" in bench.client.status(job.job).waits_for
    assert explained(bench.client.status(job.job).waits_for)
    bench.reconcile()
    assert bench.client.status(job.job).waits_for == "its turn"


def test_a_job_that_the_workers_decline_waits_for_another_one(bench: ManualService) -> None:
    job = bench.submit()
    bench.ticket_handler.pool.ledger.register_worker("unable", 1, 60.0)
    unable = open_ticket_handler(bench.settings.model_copy(update={"device": "cuda:7"}))
    assert "declined" in bench.serve(1, unable)[0]
    assert bench.client.status(job.job).waits_for.startswith("a worker that can serve it")
    assert explained(bench.client.status(job.job).waits_for)
    assert "made" not in bench.serve(1, unable)[0]
    bench.serve(2)
    assert bench.client.status(job.job).state == "committed"


def test_a_job_that_nobody_is_left_to_commit_says_so(bench: ManualService) -> None:
    job, ledger = bench.submit(), bench.ticket_handler.pool.ledger
    for claim in iter(lambda: ledger.claim(60.0), None):
        ledger.complete(claim)
    status = bench.client.status(job.job)
    assert (status.state, status.shards_done) == ("running", status.shards)
    assert status.waits_for.startswith("a worker")


def test_a_job_that_is_cancelled_while_it_is_committed_is_committed(
    bench: ManualService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is stored, so readers see the dataset, and the job must not be shown as cancelled."""
    job, states = bench.submit(), list[str]()

    def cancelled_meanwhile(location: BuildLocation, manifest: Manifest, extras: Mapping[str, bytes]) -> Manifest:
        states.append(bench.client.cancel(job.job).state)
        return commit(location, manifest, extras)

    monkeypatch.setattr("generator.production.commit.finish.commit", cancelled_meanwhile)
    bench.serve(2)
    assert states == ["cancelled"]
    assert bench.client.status(job.job).state == "committed"
    assert bench.client.cancel(job.job).state == "committed"
    assert bench.client.resume(job.job).state == "committed"
    assert read_marker(bench.ticket_handler.pool.root, job.job) is None


@pytest.mark.parametrize("decision", ["pause", "cancel"])
def test_a_decision_while_the_receipts_are_read_keeps_the_build_from_being_committed(
    bench: ManualService, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    """A sweep may already be deleting the shards of a job that was cancelled minutes ago."""
    job = bench.submit()

    def decided_meanwhile(location: BuildLocation, info: BundleInfo, **hooks: Any) -> Manifest:
        getattr(bench.client, decision)(job.job)
        return finish_build(location, info, **hooks)

    monkeypatch.setattr("workers.worker.ticket_handler.finish_build", decided_meanwhile)
    assert "stopped" in bench.serve(2)[-1]
    assert bench.state(job) == {"pause": "paused", "cancel": "cancelled"}[decision]
    assert open_store(job.url).head(MANIFEST_KEY) is None
    monkeypatch.undo()
    bench.client.resume(job.job)
    assert "committed" in bench.serve(1)[0]
