"""The reconciler: frees expired leases, finds open builds in the store, tops up tickets. Any number may run.

It is a thread in the main process of every worker. Nothing is lost if all of them stop; jobs only wait. A duty that one
reconciler suffices for is guarded by an expiring key in Redis.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from generator.errors import LatentmillError, OutsideError
from workers.jobs.discovery import Discovery
from workers.jobs.markers import new_dead_letter
from workers.jobs.pool import Pool
from workers.ledger.tenants import read_tenants
from workers.settings import Settings

log = logging.getLogger(__name__)

_HANG_SECONDS = 1800.0  # a longer pass counts as hanging; a slow store may delay it
_LOST_MESSAGE = "its worker was lost {} times: killed, out of memory, or over LATENTMILL_SHARD_SECONDS"


class Reconciler:
    """A thread that reconciles every ``reconcile_seconds``."""

    def __init__(self, settings: Settings, moved: Callable[[], None] = lambda: None) -> None:
        """``moved`` is called, once, when the root names another pool than at first."""
        self._settings, self._pool, self._moved = settings, Pool(settings), moved
        self._stopped = threading.Event()
        self._pass_began = time.monotonic()
        self._discovery = Discovery(self._pool)

    def start(self, worker: str) -> None:
        """Start the thread for the worker named ``worker``."""
        threading.Thread(target=self._run, args=(worker,), name="reconciler", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def is_healthy(self) -> bool:
        """Whether passes still complete; waiting for Redis or the store counts as healthy."""
        return time.monotonic() - self._pass_began < _HANG_SECONDS

    def run_once(self, worker: str | None = None) -> None:
        """Run one pass. Raises ``BrokerUnavailable`` or ``StoreError`` if Redis or the store is unavailable."""
        if self._pool.ledger.is_abandoned() and self._has_moved():
            return
        pool, pause = self._pool, self._settings.reconcile_seconds
        if worker is not None:
            pool.ledger.register_worker(worker, self._settings.concurrency, 3 * pause)
        if self._settings.tenants_file is not None:
            self._publish_shares()
        if pool.ledger.take_turn("sweep", 0.5 * pause):
            for job in pool.ledger.open_jobs():
                self._reconcile_job(job)
        self._discovery.search_if_due()
        pool.top_up()

    def _has_moved(self) -> bool:
        """Whether the root names another pool than before; then this worker stops reconciling."""
        if self._pool.identity.owns_root():
            return False
        self.stop()
        self._moved()
        return True

    def _publish_shares(self) -> None:
        assert self._settings.tenants_file is not None
        try:
            self._pool.ledger.publish_shares(read_tenants(self._settings.tenants_file))
        except LatentmillError as wrong:
            if isinstance(wrong, OutsideError):
                raise
            log.error("the shares of tenants are not updated: %s", wrong)

    def _reconcile_job(self, job: str) -> None:
        max_attempts = self._settings.max_shard_attempts
        freed, exhausted = self._pool.ledger.free_expired(job, max_attempts)
        if freed:
            log.info("%s: %d shard(s) are free again", job, freed)
        for shard in exhausted:
            self._pool.give_up_shard(job, new_dead_letter(shard, max_attempts, _LOST_MESSAGE.format(max_attempts)))
        # A worker may have died after giving up the last shard and before failing the job.
        stuck = not exhausted and self._pool.ledger.counts(job).is_stuck
        if stuck and (marker := self._pool.sync_intent(job)) is not None:
            self._pool.fail_stuck(job, marker)

    def _run(self, worker: str) -> None:
        while True:
            self._pass_began = time.monotonic()
            try:
                self.run_once(worker)
            except OutsideError as error:
                log.warning("reconciler: %s; trying again", error)
            except LatentmillError as problem:
                log.error("reconciler: %s", problem)
            except Exception:
                log.exception("reconciler: unexpected error; trying again")
            if self._stopped.wait(self._settings.reconcile_seconds):
                return
