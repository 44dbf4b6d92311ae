"""The service as a ticker uses it: an interface, and its implementation on pool and store.

Tests use the simulated implementation in ``tests/support/simulated_schedules.py``.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple, final

from generator.curation.gates import evaluate_gates, read_verdict
from generator.curation.retention import enforce_retention
from generator.datasets.promotion import promote, require_promotion
from generator.errors import BrokerUnavailable, DatasetError
from generator.models.bundle import bundle_store, push
from generator.production.commit import locate_build
from generator.production.provenance.manifest import MANIFEST_KEY, MAX_MANIFEST_BYTES
from generator.signatures import sign
from generator.spec.recipe import JobSpec
from generator.store import open_store
from generator.store.base import Store
from workers.client import Client
from workers.jobs.build_intents import BuildIntents
from workers.jobs.markers import Intent
from workers.jobs.pool import Pool
from workers.notifications import Event, EventKind, notify
from workers.openlineage import RunFacts, event_document, send
from workers.schedules.cron import date_key
from workers.schedules.deadlines import Progress
from workers.schedules.new_run import ResolvedJob, resolve_job
from workers.schedules.runs import Chore, Run
from workers.schedules.schedule import Schedule
from workers.settings import Settings

log = logging.getLogger(__name__)


class JobState(NamedTuple):
    """State of a job in the store. ``submitted``: when it was first submitted, in seconds since the epoch."""

    state: Intent | Literal["committed", "unknown"]
    error: str = ""
    submitted: float = 0.0


class Outcome(NamedTuple):
    """Success or not, and the reason."""

    ok: bool
    reason: str


class Service(ABC):
    """Every method may raise ``OutsideError`` (try again later) and other ``LatentmillError``s (do not try again)."""

    @property
    @abstractmethod
    def root(self) -> Store:
        """The store root."""

    @abstractmethod
    def resolve_job(self, schedule: Schedule, date: datetime) -> ResolvedJob:
        """The job of a date, resolved as of now."""

    @abstractmethod
    def job_state(self, spec: JobSpec) -> JobState:
        """State of a job, from the store; needs no Redis."""

    @abstractmethod
    def submit(self, spec: JobSpec) -> None:
        """Submit a job to the pool; idempotent. From now on readers of its dataset get the promoted build."""

    @abstractmethod
    def cancel(self, job: str) -> None:
        """Cancel a job."""

    @abstractmethod
    def progress(self, job: str) -> Progress | None:
        """Progress of a job; ``None`` if unknown at the moment."""

    @abstractmethod
    def check_gates(self, run: Run) -> Outcome:
        """Evaluate the gates of a run on its committed build. May take minutes."""

    @abstractmethod
    def promote(self, run: Run) -> Outcome:
        """Move ``latest`` to the build of a run, unless a build of a later date is promoted already."""

    @abstractmethod
    def do_chore(self, run: Run, chore: Chore) -> None:
        """Do one task that follows a state: apply retention, or send a notification. May take minutes."""


@final
class PoolService(Service):
    """The service on pool and store. Connects on first use."""

    def __init__(
        self, settings: Settings, on_message: Callable[[], None] = lambda: None, *, has_torch: bool = True
    ) -> None:
        """``on_message`` is called when there is a message to deliver. Without ``has_torch``, workers resolve draws
        that need it."""
        self._wake_delivery = on_message
        self._settings, self._pool, self._client = settings, Pool(settings), Client(settings)
        self._workers = None if has_torch else self._pool

    @property
    def root(self) -> Store:
        return self._pool.root

    def resolve_job(self, schedule: Schedule, date: datetime) -> ResolvedJob:
        job = resolve_job(schedule, date, self.root, self._settings, self._workers)
        if job.bundle.url != bundle_store(self.root, job.spec.recipe.bundle).url:
            push(job.bundle, self.root)  # the original may be deleted before the run starts
        return job

    def job_state(self, spec: JobSpec) -> JobState:
        location = locate_build(spec, self._settings.s3).store
        for _ in range(2):  # a commit between the two reads removes the marker
            if location.head(MANIFEST_KEY) is not None:
                return JobState("committed")
            if (marker := self._pool.marker(spec.job_id)) is not None:
                return JobState(marker.intent, marker.error, marker.submitted)
        return JobState("unknown")

    def submit(self, spec: JobSpec) -> None:
        require_promotion(self._dataset_store(spec), by="scheduler")
        self._client.submit(spec)

    def cancel(self, job: str) -> None:
        with suppress(BrokerUnavailable):  # the store has the intent; the reconcilers correct the ledger
            self._pool.cancel(job)

    def progress(self, job: str) -> Progress | None:
        try:
            status = self._client.status(job)
        except BrokerUnavailable:
            return None
        return Progress(status.samples_done, status.samples)

    def check_gates(self, run: Run) -> Outcome:
        assert run.spec is not None
        assert run.gates is not None
        if (key := self._settings.read_signing_key()) is not None:
            build = locate_build(run.spec, self._settings.s3).store
            sign(build, MANIFEST_KEY, build.get(MANIFEST_KEY, MAX_MANIFEST_BYTES), key)
        verdict = evaluate_gates(
            self._dataset_store(run.spec),
            run.spec.build_id,
            run.gates,
            logical_date=run.date,
            bundle=bundle_store(self.root, run.spec.recipe.bundle),
            s3=self._settings.s3,
            trusted=self._settings.read_trusted_keys() if run.gates.signed else (),
        )
        return Outcome(verdict.holds, "; ".join(verdict.reasons))

    def promote(self, run: Run) -> Outcome:
        assert run.spec is not None
        by = f"schedule {run.schedule}"
        done = promote(
            self._dataset_store(run.spec), run.spec.build_id, logical_date=run.date, by=by, again=run.take > 1
        )
        if done.is_current:
            return Outcome(True, "")
        current = done.state.current
        newer = f"a build of a later date, {current.logical_date:%Y-%m-%d %H:%M} UTC" if current else "another build"
        reasons = {"older": f"readers get {newer}", "withdrawn": "it was rolled back"}
        return Outcome(False, reasons.get(done.outcome, done.outcome))

    def do_chore(self, run: Run, chore: Chore) -> None:
        if chore != "retain":
            notify(self.root, run.notifications, self._event(run, chore))
            self._wake_delivery()
            if chore != "at_risk":
                self._send_lineage(run)
        elif run.spec is not None and run.retention is not None:
            _, done = enforce_retention(self._dataset_store(run.spec), run.retention, intents=BuildIntents(self.root))
            log.info("%s: retention deleted %d build(s) of %s", run.schedule, len(done.deleted), run.dataset)

    def _send_lineage(self, run: Run) -> None:
        """The OpenLineage events of a run that has ended: its START, with the time of then, and its end."""
        if self._settings.openlineage is None:
            return
        facts, ended = self._run_facts(run), run.ended or datetime.now(UTC)
        verdict = None
        if run.spec is not None and run.gates is not None and run.committed is not None:
            with suppress(DatasetError):
                verdict = read_verdict(locate_build(run.spec, self._settings.s3).store)
        kind: Literal["COMPLETE", "FAIL"] = "FAIL" if run.state == "failed" else "COMPLETE"
        promotion = run.state if run.state in ("promoted", "kept", "refused") else ""
        end = event_document(kind, facts, ended, verdict=verdict, promotion=promotion, reason=run.reason)
        for event in (event_document("START", facts, run.submitted or run.created), end):
            send(self._settings.openlineage, event)

    def _run_facts(self, run: Run) -> RunFacts:
        named = RunFacts(name=self._run_name(run), schedule=run.schedule, logical_date=run.date)
        if run.spec is None:
            return named
        recipe = run.spec.recipe
        bundle_url = bundle_store(self.root, recipe.bundle).url
        return replace(named, dataset=run.dataset, recipe=recipe.digest, bundle=recipe.bundle, bundle_url=bundle_url)

    def _run_name(self, run: Run) -> str:
        return f"{self.root.url}#{date_key(run.date)}.{run.take}"[-250:] + f"/{run.schedule}"

    def _event(self, run: Run, kind: EventKind) -> Event:
        return Event(
            kind=kind,
            run=self._run_name(run),
            schedule=run.schedule,
            logical_date=run.date,
            at=datetime.now(UTC),
            dataset=run.dataset,
            build=run.spec.build_id if run.spec else "",
            job=run.spec.job_id if run.spec else "",
            words=run.at_risk if kind == "at_risk" else run.reason,
        )

    def _dataset_store(self, spec: JobSpec) -> Store:
        url = f"{spec.order.destination}/{spec.order.name}"
        return open_store(self._settings.check_allowed(url), self._settings.s3)
