"""The reconciler: frees expired leases, finds open builds in the store, tops up tickets. Any number may run.

It runs as a thread in the main process of every worker. Nothing is lost when it stops; things only wait. What one of
them need do, the others leave to it for a while: they take turns by a key in Redis that runs out, or is flushed.
"""

from __future__ import annotations

import logging
import threading
import time

from generator.errors import BrokerUnavailable, LatentmillError, OutsideError, SettingsError
from workers.jobs.markers import Marker, list_markers, new_dead_letter, try_read_marker
from workers.jobs.pool import DISCOVERY_DUTY, Pool
from workers.ledger.tenants import read_tenants
from workers.settings import Settings

log = logging.getLogger(__name__)

_DISCOVERY_SECONDS = 15.0  # between two looks at the store for open builds that the ledger does not know
_HANG_SECONDS = 1800.0  # a pass may wait for a slow store, but not for ever
_LOST_MESSAGE = "its worker was lost {} times: killed, out of memory, or over LATENTMILL_SHARD_SECONDS"


class Reconciler:
    """A thread that reconciles every ``reconcile_seconds``."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._pool = settings, Pool(settings)
        self._stopped = threading.Event()
        self._pass_began = time.monotonic()
        self._open_etags: dict[str, str] = {}  # the etag of each marker that was last seen to be open

    def start(self, worker: str) -> None:
        """Begin, as the worker named ``worker``."""
        threading.Thread(target=self._run, args=(worker,), name="reconciler", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def is_healthy(self) -> bool:
        """Whether it still passes; waiting for Redis or the store is no illness."""
        return time.monotonic() - self._pass_began < _HANG_SECONDS

    def run_once(self, worker: str | None = None) -> None:
        """One pass. Raises ``BrokerUnavailable`` or ``StoreError`` when either is away."""
        pool, pause = self._pool, self._settings.reconcile_seconds
        if worker is not None:
            pool.ledger.register_worker(worker, self._settings.concurrency, 3 * pause)
        if self._settings.tenants_file is not None:
            self._publish_shares()
        if pool.ledger.take_turn("sweep", 0.5 * pause):
            for job in pool.ledger.open_jobs():
                self._reconcile_job(job)
        if pool.ledger.take_turn(DISCOVERY_DUTY, _DISCOVERY_SECONDS):
            self._discover_builds()
        pool.top_up()

    def _publish_shares(self) -> None:
        assert self._settings.tenants_file is not None
        try:
            self._pool.ledger.publish_shares(read_tenants(self._settings.tenants_file))
        except LatentmillError as wrong:
            if isinstance(wrong, OutsideError):
                raise
            log.error("the shares of tenants stay as they were: %s", wrong)

    def _reconcile_job(self, job: str) -> None:
        most = self._settings.max_shard_attempts
        freed, lost = self._pool.ledger.free_expired(job, most)
        if freed:
            log.info("%s: %d shard(s) are free again", job, freed)
        for shard in lost:
            self._pool.give_up_shard(job, new_dead_letter(shard, most, _LOST_MESSAGE.format(most)))
        stuck = not lost and self._pool.ledger.counts(job).is_stuck  # whoever gave the last shard up went away
        if stuck and (marker := self._pool.sync_intent(job)) is not None:
            self._pool.fail_stuck(job, marker)

    def _discover_builds(self) -> None:
        """Take up open builds that the ledger does not know, and correct it where the store says something else."""
        active, seen = set(self._pool.ledger.open_jobs()), dict[str, str]()
        for job, info in list_markers(self._pool.root):
            seen[job] = info.etag
            if job in active and self._open_etags.get(job) == info.etag:
                continue
            marker = try_read_marker(self._pool.root, job)
            if marker is not None and marker.intent == "open" and job not in active:
                self._activate(marker)
            elif marker is not None and marker.intent != "open" and job in active:
                self._pool.sync_intent(job)
        for job in active - seen.keys():
            self._pool.sync_intent(job)
        self._open_etags = seen

    def _activate(self, marker: Marker) -> None:
        """One build that cannot be taken up must not keep the others waiting."""
        log.warning("%s: found in the store, unknown to the ledger; taken up", marker.job)
        try:
            self._pool.activate(marker)
        except BrokerUnavailable:
            raise
        except (OutsideError, SettingsError) as away:  # what this worker may not write, another one may
            log.warning("%s: not taken up yet: %s", marker.job, away)
        except LatentmillError as final:
            log.error("%s: cannot be taken up: %s", marker.job, final)
            self._pool.fail(marker.job, str(final))

    def _run(self, worker: str) -> None:
        while True:
            self._pass_began = time.monotonic()
            try:
                self.run_once(worker)
            except OutsideError as away:
                log.warning("reconciler: %s; trying again", away)
            except LatentmillError as problem:
                log.error("reconciler: %s", problem)
            except Exception:
                log.exception("reconciler: unexpected; trying again")
            if self._stopped.wait(self._settings.reconcile_seconds):
                return
