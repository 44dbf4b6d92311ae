"""What a ticker asks of the rest of the service.

The twin for simulated years is in ``tests/support/simulated_schedules.py``.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, NamedTuple, final

from generator.curation.gates import evaluate_gates
from generator.curation.retention import enforce_retention
from generator.datasets.promotion import promote, require_promotion
from generator.errors import BrokerUnavailable
from generator.models.bundle import bundle_store, push
from generator.production.commit import locate_build
from generator.production.provenance.manifest import MANIFEST_KEY
from generator.spec.recipe import JobSpec
from generator.store import open_store
from generator.store.base import Store
from workers.client import Client
from workers.jobs.build_intents import BuildIntents
from workers.jobs.markers import Intent
from workers.jobs.pool import Pool
from workers.notifications import Event, EventKind, notify
from workers.schedules.dates import date_key
from workers.schedules.deadlines import Progress
from workers.schedules.new_run import ResolvedJob, resolve_job
from workers.schedules.runs import Chore, Run
from workers.schedules.schedule import Schedule
from workers.settings import Settings

log = logging.getLogger(__name__)


class JobState(NamedTuple):
    """How a job stands in the store. ``begun``: seconds since the epoch at which it was first submitted."""

    state: Intent | Literal["committed", "unknown"]
    error: str = ""
    submitted: float = 0.0


class Outcome(NamedTuple):
    """Whether it went as wished, and in words."""

    ok: bool
    reason: str


class Service(ABC):
    """Every method may raise ``OutsideError`` (try again later) and ``LatentmillError`` (no use to try again)."""

    @property
    @abstractmethod
    def root(self) -> Store:
        """The store root."""

    @abstractmethod
    def resolve_job(self, schedule: Schedule, date: datetime) -> ResolvedJob:
        """The job of a date, as things are now."""

    @abstractmethod
    def job_state(self, spec: JobSpec) -> JobState:
        """How a job stands, as the store knows it; needs no Redis."""

    @abstractmethod
    def submit(self, spec: JobSpec) -> None:
        """Hand a job to the pool; the same job twice is one. From now on its dataset is read through ``latest``."""

    @abstractmethod
    def cancel(self, job: str) -> None:
        """Nobody wants this job any more."""

    @abstractmethod
    def progress(self, job: str) -> Progress | None:
        """How far a job is; ``None`` if nobody can tell now."""

    @abstractmethod
    def check_gates(self, run: Run) -> Outcome:
        """Whether the gates of a run hold for its committed build. May take minutes."""

    @abstractmethod
    def promote(self, run: Run) -> Outcome:
        """Move ``latest`` to the build of a run, unless it stands at a later date already."""

    @abstractmethod
    def do_chore(self, run: Run, chore: Chore) -> None:
        """What is left to do after a run has reached a state. May take minutes."""


@final
class PoolService(Service):
    """The real service. Nothing is connected before it is used."""

    def __init__(self, settings: Settings, told: Callable[[], None] = lambda: None) -> None:
        """``told`` is called when there is a message to deliver."""
        self._wake_delivery = told
        self._settings, self._pool, self._client = settings, Pool(settings), Client(settings)

    @property
    def root(self) -> Store:
        return self._pool.root

    def resolve_job(self, schedule: Schedule, date: datetime) -> ResolvedJob:
        pinned = resolve_job(schedule, date, self.root, self._settings)
        if pinned.bundle.url != bundle_store(self.root, pinned.spec.recipe.bundle).url:
            push(pinned.bundle, self.root)  # it may be gone when the run's turn comes
        return pinned

    def job_state(self, spec: JobSpec) -> JobState:
        location = locate_build(spec, self._settings.s3).store
        for _ in range(2):  # a commit takes the marker away between two looks
            if location.head(MANIFEST_KEY) is not None:
                return JobState("committed")
            if (marker := self._pool.marker(spec.job_id)) is not None:
                return JobState(marker.intent, marker.error, marker.submitted)
        return JobState("unknown")

    def submit(self, spec: JobSpec) -> None:
        require_promotion(self._dataset_store(spec), by="scheduler")
        self._client.submit(spec)

    def cancel(self, job: str) -> None:
        with suppress(BrokerUnavailable):  # the store knows it then; the ledger is corrected by the reconcilers
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
        verdict = evaluate_gates(
            self._dataset_store(run.spec),
            run.spec.build_id,
            run.gates,
            logical_date=run.date,
            bundle=bundle_store(self.root, run.spec.recipe.bundle),
            s3=self._settings.s3,
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
        behind = f"a build of a later date, {current.logical_date:%Y-%m-%d %H:%M} UTC" if current else "another build"
        words = {"older": f"readers get {behind}", "withdrawn": "somebody rolled it back"}
        return Outcome(False, words.get(done.outcome, done.outcome))

    def do_chore(self, run: Run, chore: Chore) -> None:
        if chore != "retain":
            notify(self.root, run.notifications, self._event(run, chore))
            self._wake_delivery()
        elif run.spec is not None and run.retention is not None:
            _, done = enforce_retention(self._dataset_store(run.spec), run.retention, intents=BuildIntents(self.root))
            log.info("%s: retention deleted %d build(s) of %s", run.schedule, len(done.deleted), run.dataset)

    def _event(self, run: Run, kind: EventKind) -> Event:
        return Event(
            kind=kind,
            run=f"{self.root.url}#{date_key(run.date)}.{run.take}"[-250:] + f"/{run.schedule}",
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
