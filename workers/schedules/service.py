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

from generator.curation.gates import judge_build
from generator.curation.retention import retain
from generator.datasets.promotion import expect_promotion, promote
from generator.errors import BrokerUnavailable
from generator.models.bundle import bundle_store, push
from generator.production.commit import place_of
from generator.production.provenance.manifest import MANIFEST_KEY
from generator.spec.recipe import JobSpec
from generator.store import open_store
from generator.store.base import Store
from workers.client import Client
from workers.jobs.build_intents import MarkedIntents
from workers.jobs.markers import Intent
from workers.jobs.pool import Pool
from workers.notifications import Event, Kind, notify
from workers.schedules.dates import key_of
from workers.schedules.deadlines import Progress
from workers.schedules.new_run import Pinned, pin
from workers.schedules.runs import Chore, Run
from workers.schedules.schedule import Schedule
from workers.settings import Settings

log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """How a job stands in the store. ``begun``: seconds since the epoch at which it was first submitted."""

    state: Intent | Literal["committed", "unknown"]
    error: str = ""
    begun: float = 0.0


class Outcome(NamedTuple):
    """Whether it went as wished, and in words."""

    holds: bool
    words: str


class Hands(ABC):
    """Every method may raise ``OutsideError`` (try again later) and ``LatentmillError`` (no use to try again)."""

    @property
    @abstractmethod
    def root(self) -> Store:
        """The store root."""

    @abstractmethod
    def pin(self, schedule: Schedule, date: datetime) -> Pinned:
        """The job of a date, as things are now."""

    @abstractmethod
    def look(self, spec: JobSpec) -> Seen:
        """How a job stands, as the store knows it; needs no Redis."""

    @abstractmethod
    def submit(self, spec: JobSpec) -> None:
        """Hand a job to the pool; the same job twice is one. From now on its dataset is read through ``latest``."""

    @abstractmethod
    def stop(self, job: str) -> None:
        """Nobody wants this job any more."""

    @abstractmethod
    def progress(self, job: str) -> Progress | None:
        """How far a job is; ``None`` if nobody can tell now."""

    @abstractmethod
    def judge(self, run: Run) -> Outcome:
        """Whether the gates of a run hold for its committed build. May take minutes."""

    @abstractmethod
    def promote(self, run: Run) -> Outcome:
        """Move ``latest`` to the build of a run, unless it stands at a later date already."""

    @abstractmethod
    def do(self, run: Run, chore: Chore) -> None:
        """What is left to do after a run has reached a state. May take minutes."""


@final
class PoolHands(Hands):
    """The real service. Nothing is connected before it is used."""

    def __init__(self, settings: Settings, told: Callable[[], None] = lambda: None) -> None:
        """``told`` is called when there is a message to deliver."""
        self._told = told
        self._settings, self._pool, self._client = settings, Pool(settings), Client(settings)

    @property
    def root(self) -> Store:
        return self._pool.root

    def pin(self, schedule: Schedule, date: datetime) -> Pinned:
        pinned = pin(schedule, date, self.root, self._settings)
        if pinned.bundle.url != bundle_store(self.root, pinned.spec.recipe.bundle).url:
            push(pinned.bundle, self.root)  # it may be gone when the run's turn comes
        return pinned

    def look(self, spec: JobSpec) -> Seen:
        place = place_of(spec, self._settings.s3).store
        for _ in range(2):  # a commit takes the marker away between two looks
            if place.head(MANIFEST_KEY) is not None:
                return Seen("committed")
            if (marker := self._pool.marker(spec.job_id)) is not None:
                return Seen(marker.intent, marker.error, marker.submitted)
        return Seen("unknown")

    def submit(self, spec: JobSpec) -> None:
        expect_promotion(self._dataset(spec), by="scheduler")
        self._client.submit(spec)

    def stop(self, job: str) -> None:
        with suppress(BrokerUnavailable):  # the store knows it then; the ledger is corrected by the reconcilers
            self._pool.cancel(job)

    def progress(self, job: str) -> Progress | None:
        try:
            status = self._client.status(job)
        except BrokerUnavailable:
            return None
        return Progress(status.samples_done, status.samples)

    def judge(self, run: Run) -> Outcome:
        assert run.spec is not None
        assert run.gates is not None
        verdict = judge_build(
            self._dataset(run.spec),
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
        done = promote(self._dataset(run.spec), run.spec.build_id, logical_date=run.date, by=by, again=run.take > 1)
        if done.holds:
            return Outcome(True, "")
        current = done.standing.current
        behind = f"a build of a later date, {current.logical_date:%Y-%m-%d %H:%M} UTC" if current else "another build"
        words = {"older": f"readers get {behind}", "withdrawn": "somebody rolled it back"}
        return Outcome(False, words.get(done.outcome, done.outcome))

    def do(self, run: Run, chore: Chore) -> None:
        if chore != "retain":
            notify(self.root, run.notifications, self._event(run, chore))
            self._told()
        elif run.spec is not None and run.retention is not None:
            _, done = retain(self._dataset(run.spec), run.retention, intents=MarkedIntents(self.root))
            log.info("%s: retention deleted %d build(s) of %s", run.schedule, len(done.deleted), run.dataset)

    def _event(self, run: Run, kind: Kind) -> Event:
        return Event(
            kind=kind,
            run=f"{self.root.url}#{key_of(run.date)}.{run.take}"[-250:] + f"/{run.schedule}",
            schedule=run.schedule,
            logical_date=run.date,
            at=datetime.now(UTC),
            dataset=run.dataset,
            build=run.spec.build_id if run.spec else "",
            job=run.spec.job_id if run.spec else "",
            words=run.at_risk if kind == "at_risk" else run.reason,
        )

    def _dataset(self, spec: JobSpec) -> Store:
        url = f"{spec.order.destination}/{spec.order.name}"
        return open_store(self._settings.check_allowed(url), self._settings.s3)
