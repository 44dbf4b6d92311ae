"""What every part of the service needs at hand: settings, ledger, store root, Celery application."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from celery import Celery

from generator.publish import BuildPlace, committed, finished_numbers
from generator.store import open_store
from generator.store.base import Store
from workers.app import make_app
from workers.broker import redis_url
from workers.ledger import Ledger
from workers.markers import Marker, close_marker, read_marker, set_intent
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
        return open_store(self.settings.root, self.settings.s3)

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
            return self.conclude(marker.job)
        done = finished_numbers(place)
        todo = [number for number in range(marker.shards) if number not in done]
        self.ledger.add(marker.job, facts_of(marker, place), todo, done, marker.shards)

    def conclude(self, job: str) -> None:
        """The build is committed: the marker goes, the ledger keeps the facts for a while."""
        close_marker(self.root, job)
        self.ledger.end(job, "committed")

    def fail(self, job: str, error: str) -> None:
        """The build cannot go on: recorded in the store, so that it is not taken up again by itself."""
        set_intent(self.root, job, "failed", error)
        self.ledger.end(job, "failed", error)

    def cancel(self, job: str) -> None:
        """Nobody wants the build any more; what is stored stays."""
        set_intent(self.root, job, "cancelled")
        self.ledger.end(job, "cancelled")


def facts_of(marker: Marker, place: BuildPlace) -> dict[str, str | int | float]:
    """What the ledger says of a job to whoever asks."""
    return {
        "destination": marker.destination,
        "name": marker.name,
        "tenant": marker.tenant,
        "build_id": marker.build_id,
        "recipe": marker.recipe,
        "samples": marker.samples,
        "submitted": marker.submitted,
        "url": place.url,
    }
