"""The shared context of the service (settings, ledger, store root, Celery application) and the operations on jobs.

Every decision (open, paused, cancelled, failed, a shard given up) is written to the store first, then to the ledger.
After a crash in between the reconcilers correct the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from generator.production.commit import BuildLocation, finished_shards
from generator.production.provenance.manifest import MANIFEST_KEY
from generator.store import open_store
from generator.store.base import Store
from workers.broker.connection import redis_address, store_root
from workers.broker.identity import PoolIdentity
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
from workers.ledger.queries import Queries
from workers.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

MAX_DEAD = 20  # with more dead shards a job fails at once: its other shards would most likely fail too
DECLINED_PREFIX = "declined by a worker: "  # of the error of a job that a worker cannot serve
DISCOVERY_DUTY = "look"  # the reconcilers' duty to search the store for open builds


@dataclass(frozen=True)
class Pool:
    """The service as one process sees it. Connections are opened on first use."""

    settings: Settings
    _apps: dict[str, Celery] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(redis_address(self.settings), self.identity.prefix, self.settings.redis_timeout)

    @cached_property
    def queries(self) -> Queries:
        return Queries(redis_address(self.settings), self.identity.prefix, self.settings.redis_timeout)

    @cached_property
    def root(self) -> Store:
        return store_root(self.settings)

    @property
    def app(self) -> Celery:
        from workers.broker.app import make_app  # Celery is slow to import, and a status query does not need it

        prefix = self.identity.prefix()
        if prefix not in self._apps:
            self._apps[prefix] = make_app(self.settings, prefix)
        return self._apps[prefix]

    @cached_property
    def identity(self) -> PoolIdentity:
        return PoolIdentity(self.root)

    def top_up(self) -> int:
        """Publish the missing tickets; return their number."""
        from workers.jobs.tickets import top_up

        return top_up(self.app, self.ledger, self.settings)

    def marker(self, job: str) -> Marker | None:
        return read_marker(self.root, job)

    def location(self, marker: Marker) -> BuildLocation:
        """The location of the build. Raises ``SettingsError`` if we may not write there, ``DatasetError``."""
        self.settings.check_allowed(marker.url)
        return marker.location(self.settings.s3)

    def activate(self, marker: Marker, *, max_receipts: int | None = None) -> None:
        """Add an open build to the ledger; its finished shards are those with a receipt in the store.

        A build with more than ``max_receipts`` receipts is left to the reconcilers, as listing them takes long.
        """
        if self.ledger.facts(marker.job).get("state") in ("open", "paused"):
            self._add_to_ledger(marker, set())
            return
        location = self.location(marker)
        if location.store.head(MANIFEST_KEY) is not None:
            self.mark_committed(marker.job, marker)
        elif max_receipts is not None and _has_more_receipts(location, max_receipts):
            self.ledger.free_turn(DISCOVERY_DUTY)
        else:
            self._add_to_ledger(marker, finished_shards(location))
            self.sync_intent(marker.job)  # it may have been cancelled in the meantime

    def correct_ledger(self, marker: Marker) -> None:
        """Set the ledger's finished shards to those with a receipt in the store."""
        self.ledger.set_finished(marker.job, finished_shards(self.location(marker)))

    def sync_intent(self, job: str) -> Marker | None:
        """Return the marker if the build is open in the store; else pause or end the job in the ledger."""
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
        """End a committed job: delete its marker; the ledger keeps its facts for 30 days."""
        delete_marker(self.root, job)
        self.ledger.end(job, "committed", facts=facts_of(marker) if marker else None)

    def pause(self, job: str) -> None:
        """Pause an open build: no shard is started and nothing is committed until it is resumed."""
        marker = change_marker(self.root, job, lambda found: _with_intent(found, "paused", of=("open",)))
        if marker is not None and marker.intent == "paused":
            self.ledger.pause(job)

    def resume(self, job: str, *, max_receipts: int | None = None) -> Marker | None:
        """Reopen a build; its dead shards are tried again. ``max_receipts`` is as in ``activate``."""
        marker = reopen_marker(self.root, job)
        if marker is not None:
            self.ledger.revive(job)
            self.activate(marker, max_receipts=max_receipts)
        return marker

    def cancel(self, job: str) -> None:
        """Cancel a build; its stored objects are kept."""
        marker = set_intent(self.root, job, "cancelled")
        self.ledger.end(job, "cancelled", facts=facts_of(marker) if marker else None)

    def give_up_shard(self, job: str, letter: DeadLetter) -> None:
        """Store ``letter`` and give up its shard.

        The job fails once all its unfinished shards are dead, or more than ``MAX_DEAD``.
        """
        marker = change_marker(self.root, job, lambda found: _with_dead_letter(found, letter))
        if marker is None or letter.shard is None:
            self.sync_intent(job)
        elif self.ledger.give_up(job, letter.shard).stuck or len(marker.dead) > MAX_DEAD:
            self.fail_stuck(job, marker)

    def fail_stuck(self, job: str, marker: Marker) -> None:
        """Fail a job because of its dead shards; the error gives their number and the last error."""
        last = marker.dead[-1] if marker.dead else None
        reason = f"; shard {last.shard} failed {last.faults} times, last error: {last.error}" if last else ""
        self.fail(job, f"{len(marker.dead)} shard(s) were given up{reason}")

    def fail(self, job: str, error: str, letter: DeadLetter | None = None) -> None:
        """Fail a build: store the error and the missing shards. It continues only when a user resumes it."""
        missing = self._missing_shards(job)
        update = {"error": error[:MAX_TEXT], "missing": ranges(missing), "missing_shards": len(missing)}

        def failed(found: Marker) -> Marker:
            changed = _with_dead_letter(found, letter) if letter else found
            changed = _with_intent(changed, "failed", of=("open", "paused"))
            return changed.model_copy(update=update) if changed.intent == "failed" else found

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
        """The shards of a live job that are not finished, according to the ledger."""
        shards = int(self.ledger.facts(job).get("shards", 0))
        done = set(self.ledger.finished_shards(job))
        return [number for number in range(shards) if number not in done]

    def _is_committed(self, job: str) -> bool:
        url = self.ledger.facts(job).get("url")
        return url is not None and open_store(url, self.settings.s3).head(MANIFEST_KEY) is not None


def _has_more_receipts(location: BuildLocation, limit: int) -> bool:
    return sum(1 for _ in islice(location.store.list("receipts/"), limit + 1)) > limit


def facts_of(marker: Marker) -> dict[str, str | int | float]:
    """The facts of a job that the ledger stores."""
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
    """``marker`` with ``intent``, if its present one is in ``of``: a user's decision is never overwritten."""
    return marker.model_copy(update={"intent": intent}) if marker.intent in of else marker


def _with_dead_letter(marker: Marker, letter: DeadLetter) -> Marker:
    others = tuple(other for other in marker.dead if other.shard != letter.shard)
    return marker.model_copy(update={"dead": (*others, letter)[-MAX_DEAD - 1 :]})
