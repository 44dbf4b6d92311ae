"""What every part of the service needs at hand: settings, ledger, store root, Celery application; and its decisions.

A decision (open, paused, cancelled, failed, a shard given up) is written to the store first and to the ledger second:
whoever dies in between leaves a ledger that the reconcilers correct.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from generator.production.commit import BuildLocation, finished_shards
from generator.production.provenance.manifest import MANIFEST_KEY
from generator.store import open_store
from generator.store.base import Store
from workers.broker.connection import embedded_root, redis_url
from workers.jobs.markers import (
    MAX_TEXT,
    DeadLetter,
    Marker,
    change_marker,
    delete_marker,
    ranges,
    read_marker,
    reopen_marker,
    set_intent,
)
from workers.ledger.ledger import Ledger
from workers.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

MAX_DEAD = 20  # a job with more shards given up has a cause that the others share: it fails at once
DECLINED_PREFIX = "declined by a worker: "  # begins what is noted of a job that a worker cannot serve
DISCOVERY_DUTY = "look"  # the reconcilers' duty to look for open builds in the store


@dataclass(frozen=True)
class Pool:
    """The service as one process sees it. Nothing is connected before it is used."""

    settings: Settings

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(redis_url(self.settings), self.settings.redis_timeout)

    @cached_property
    def root(self) -> Store:
        return open_store(embedded_root(self.settings) or self.settings.root, self.settings.s3)

    @cached_property
    def app(self) -> Celery:
        from workers.broker.app import make_app  # Celery takes long to import, and who only asks needs none

        return make_app(self.settings)

    def top_up(self) -> int:
        """Publish the tickets that are missing; how many."""
        from workers.jobs.tickets import top_up

        return top_up(self.app, self.ledger, self.settings)

    def marker(self, job: str) -> Marker | None:
        return read_marker(self.root, job)

    def location(self, marker: Marker) -> BuildLocation:
        """Where the build is. Raises ``SettingsError`` where this process may not write, ``DatasetError``."""
        self.settings.check_allowed(marker.url)
        return marker.location(self.settings.s3)

    def activate(self, marker: Marker, *, most: int | None = None) -> None:
        """Put an open build into the ledger as the store knows it: receipts are what is done.

        A build with more than ``most`` receipts is left to the reconcilers, as listing them takes its time.
        """
        if self.ledger.facts(marker.job).get("state") in ("open", "paused"):
            self._add_to_ledger(marker, set())
            return
        location = self.location(marker)
        if location.store.head(MANIFEST_KEY) is not None:
            self.mark_committed(marker.job, marker)
        elif most is not None and sum(1 for _ in islice(location.store.list("receipts/"), most + 1)) > most:
            self.ledger.free_turn(DISCOVERY_DUTY)
        else:
            self._add_to_ledger(marker, finished_shards(location))
            self.sync_intent(marker.job)  # it may have been cancelled while we looked

    def correct_ledger(self, marker: Marker) -> None:
        """The ledger believed in a receipt that is not stored: what the store lists counts."""
        self.ledger.set_finished(marker.job, finished_shards(self.location(marker)))

    def sync_intent(self, job: str) -> Marker | None:
        """The marker of a build that is open in the store; any other is taken off the ledger's open jobs."""
        marker = self.marker(job)
        if marker is not None and marker.intent == "open":
            return marker
        if marker is not None and marker.intent == "paused":
            self.ledger.pause(job)
        elif marker is not None:
            self.ledger.end(job, marker.intent, marker.error, facts_of(marker))
        elif self._is_committed(job):
            self.ledger.end(job, "committed")
        else:
            self.ledger.end(job, "cancelled", "its marker was removed from the store root")
        return None

    def mark_committed(self, job: str, marker: Marker | None) -> None:
        """The build is committed: the marker goes, the ledger keeps the facts for a while."""
        delete_marker(self.root, job)
        self.ledger.end(job, "committed", facts=facts_of(marker) if marker else None)

    def pause(self, job: str) -> None:
        """No further shard of an open build is begun, and it is not committed, until somebody resumes it."""
        marker = change_marker(self.root, job, lambda found: _with_intent(found, "paused", of=("open",)))
        if marker is not None and marker.intent == "paused":
            self.ledger.pause(job)

    def resume(self, job: str, *, most: int | None = None) -> Marker | None:
        """Whatever kept the build from going on is over: it is open, and shards that were given up are tried again."""
        marker = reopen_marker(self.root, job)
        if marker is not None:
            self.ledger.revive(job)
            self.activate(marker, most=most)
        return marker

    def cancel(self, job: str) -> None:
        """Nobody wants the build any more; what is stored stays."""
        marker = set_intent(self.root, job, "cancelled")
        self.ledger.end(job, "cancelled", facts=facts_of(marker) if marker else None)

    def give_up_shard(self, job: str, letter: DeadLetter) -> None:
        """Give a shard up. The others go on; when nothing else is left, or too many are given up, the job fails."""
        marker = change_marker(self.root, job, lambda found: _with_dead_letter(found, letter))
        if marker is None or letter.shard is None:
            self.sync_intent(job)
        elif self.ledger.give_up(job, letter.shard).stuck or len(marker.dead) > MAX_DEAD:
            self.fail_stuck(job, marker)

    def fail_stuck(self, job: str, marker: Marker) -> None:
        """The job has no shard left that could be made: it says which, and why."""
        last = marker.dead[-1] if marker.dead else None
        told = f"; shard {last.shard} failed {last.faults} times, at last: {last.error}" if last else ""
        self.fail(job, f"{len(marker.dead)} shard(s) were given up{told}")

    def fail(self, job: str, error: str, letter: DeadLetter | None = None) -> None:
        """The build cannot go on: recorded in the store with what is missing, so that it is not taken up by itself."""
        missing = self._missing_shards(job)
        update = {"error": error[:MAX_TEXT], "missing": ranges(missing), "missing_shards": len(missing)}

        def failed(found: Marker) -> Marker:
            noted = _with_intent(_with_dead_letter(found, letter) if letter else found, "failed", of=("open", "paused"))
            return noted.model_copy(update=update) if noted.intent == "failed" else found

        marker = change_marker(self.root, job, failed)
        intent = marker.intent if marker else "failed"
        self.ledger.end(job, intent, error, facts_of(marker) if marker else None)

    def _add_to_ledger(self, marker: Marker, done: set[int]) -> None:
        self.ledger.add(
            marker.job,
            facts_of(marker),
            marker.shards,
            done=done,
            dead=set(marker.dead_shards) - done,
            tenant=marker.tenant,
            priority=marker.priority,
        )

    def _missing_shards(self, job: str) -> list[int]:
        """Shards of a live job that have no receipt, as far as the ledger knows."""
        shards = int(self.ledger.facts(job).get("shards", 0))
        done = set(self.ledger.finished_shards(job))
        return [number for number in range(shards) if number not in done]

    def _is_committed(self, job: str) -> bool:
        url = self.ledger.facts(job).get("url")
        return url is not None and open_store(url, self.settings.s3).head(MANIFEST_KEY) is not None


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


def _with_intent(marker: Marker, intent: str, of: tuple[str, ...]) -> Marker:
    """``marker`` with another intent, if it has one of those: nobody but a person changes what a person decided."""
    return marker.model_copy(update={"intent": intent}) if marker.intent in of else marker


def _with_dead_letter(marker: Marker, letter: DeadLetter) -> Marker:
    others = tuple(known for known in marker.dead if known.shard != letter.shard)
    return marker.model_copy(update={"dead": (*others, letter)[-MAX_DEAD - 1 :]})
