"""The reconciler: frees expired leases, finds open builds in the store, tops up tickets. Any number may run.

It runs as a thread in the main process of every worker. Nothing is lost when it stops; things only wait.
"""

from __future__ import annotations

import logging
import threading
import time

from generator.errors import BrokerUnavailable, LatentmillError, OutsideError
from workers.markers import Marker, markers
from workers.pool import Pool
from workers.settings import Settings

log = logging.getLogger(__name__)

_STORE_PAUSE = 15.0  # seconds between two looks at the store for open builds that the ledger does not know


class Reconciler:
    """A thread that reconciles every ``reconcile_seconds`` and keeps the worker's heartbeat file fresh."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._pool = settings, Pool(settings)
        self._stopped = threading.Event()
        self._looked_at_store = -_STORE_PAUSE

    def start(self, worker: str) -> None:
        """Begin, as the worker named ``worker``."""
        threading.Thread(target=self._run, args=(worker,), name="reconciler", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def once(self, worker: str | None = None) -> None:
        """One pass. Raises ``BrokerUnavailable`` or ``StoreError`` when either is away."""
        pool = self._pool
        if worker is not None:
            pool.ledger.announce(worker, self._settings.concurrency, 3 * self._settings.reconcile_seconds)
        for job in pool.ledger.active():
            self._free_expired(job)
        if time.monotonic() - self._looked_at_store >= _STORE_PAUSE or not pool.ledger.active():
            self._find_open_builds()
        pool.top_up()

    def _free_expired(self, job: str) -> None:
        freed, faults = self._pool.ledger.free_expired(job)
        if freed:
            log.info("%s: %d shard(s) are free again", job, freed)
        if faults >= self._settings.max_shard_attempts:
            reason = "killed, out of memory, or over LATENTMILL_SHARD_SECONDS"
            self._pool.fail(job, f"the workers of one shard were lost {faults} times ({reason})")

    def _find_open_builds(self) -> None:
        self._looked_at_store = time.monotonic()
        active = set(self._pool.ledger.active())
        for marker in markers(self._pool.root):
            if marker.intent == "open" and marker.job not in active:
                self._take_up(marker)
            elif marker.intent != "open" and marker.job in active:
                self._pool.still_wanted(marker.job)

    def _take_up(self, marker: Marker) -> None:
        """One build that cannot be taken up must not keep the others waiting."""
        log.warning("%s: found in the store, unknown to the ledger; taken up", marker.job)
        try:
            self._pool.activate(marker)
        except BrokerUnavailable:
            raise
        except OutsideError as away:
            log.warning("%s: not taken up yet: %s", marker.job, away)
        except LatentmillError as final:
            log.error("%s: cannot be taken up: %s", marker.job, final)
            self._pool.fail(marker.job, str(final))

    def _run(self, worker: str) -> None:
        self._settings.state_dir.mkdir(parents=True, exist_ok=True)
        while True:
            self._settings.heartbeat_file.touch()
            try:
                self.once(worker)
            except OutsideError as away:
                log.warning("reconciler: %s; trying again", away)
            except LatentmillError as problem:
                log.error("reconciler: %s", problem)
            except Exception:
                log.exception("reconciler: unexpected; trying again")
            if self._stopped.wait(self._settings.reconcile_seconds):
                return
