"""What every part of the service needs at hand: settings, ledger, store root, Celery application."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from celery import Celery

from generator.provenance.manifest import MANIFEST_KEY
from generator.publish import committed, finished_numbers
from generator.store import open_store
from generator.store.base import Store
from workers.app import make_app
from workers.broker import embedded_root, redis_url
from workers.ledger import Ledger
from workers.markers import Intent, Marker, close_marker, read_marker, set_intent
from workers.settings import Settings
from workers.tickets import top_up


@dataclass(frozen=True)
class Pool:
    """The service as one process sees it. Nothing is connected before it is used."""

    settings: Settings

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(redis_url(self.settings))

    @cached_property
    def root(self) -> Store:
        return open_store(embedded_root(self.settings) or self.settings.root, self.settings.s3)

    @cached_property
    def app(self) -> Celery:
        return make_app(self.settings)

    def top_up(self) -> int:
        """Publish the tickets that are missing; how many."""
        return top_up(self.app, self.ledger, self.settings)

    def marker(self, job: str) -> Marker | None:
        return read_marker(self.root, job)

    def activate(self, marker: Marker) -> None:
        """Put an open build into the ledger as the store knows it: receipts are what is done."""
        place = marker.place(self.settings.s3)
        if committed(place) is not None:
            return self.conclude(marker.job, marker)
        done = finished_numbers(place)
        todo = [number for number in range(marker.shards) if number not in done]
        self.ledger.add(marker.job, facts_of(marker), todo, done, marker.shards)
        self.still_wanted(marker.job)  # it may have been cancelled while we looked

    def still_wanted(self, job: str) -> Marker | None:
        """The marker of a build that is open in the store; any other is taken off the ledger's active jobs."""
        marker = self.marker(job)
        if marker is not None and marker.intent == "open":
            return marker
        if marker is not None:
            self.ledger.end(job, marker.intent, marker.error, facts_of(marker))
        elif self._is_committed(job):
            self.ledger.end(job, "committed")
        else:
            self.ledger.end(job, "cancelled", "its marker was removed from the store root")
        return None

    def _is_committed(self, job: str) -> bool:
        url = self.ledger.facts(job).get("url")
        return url is not None and open_store(url, self.settings.s3).head(MANIFEST_KEY) is not None

    def conclude(self, job: str, marker: Marker | None) -> None:
        """The build is committed: the marker goes, the ledger keeps the facts for a while."""
        close_marker(self.root, job)
        self.ledger.end(job, "committed", facts=facts_of(marker) if marker else None)

    def fail(self, job: str, error: str) -> None:
        """The build cannot go on: recorded in the store, so that it is not taken up again by itself."""
        self._give_up(job, "failed", error)

    def cancel(self, job: str) -> None:
        """Nobody wants the build any more; what is stored stays."""
        self._give_up(job, "cancelled")

    def _give_up(self, job: str, intent: Intent, error: str = "") -> None:
        marker = set_intent(self.root, job, intent, error)
        self.ledger.end(job, intent, error, facts_of(marker) if marker else None)


def facts_of(marker: Marker) -> dict[str, str | int | float]:
    """What the ledger says of a job to whoever asks."""
    return {
        "destination": marker.destination,
        "name": marker.name,
        "tenant": marker.tenant,
        "build_id": marker.build_id,
        "recipe": marker.recipe,
        "shards": marker.shards,
        "samples": marker.samples,
        "submitted": marker.submitted,
        "url": marker.url,
    }
