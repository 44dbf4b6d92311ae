"""The search of the store for open builds that the ledger does not know, or knows otherwise than the store.

Redis may lose everything: each open build has a marker in the store, from which the ledger is filled again. Workers
search at every reconciliation, and schedulers while no worker runs, so that a pool that was scaled down to zero is seen
to have work. One search of all processes every 15 s suffices; a key in Redis that expires guards it.
"""

from __future__ import annotations

import logging
import threading
from typing import final

from generator.errors import BrokerUnavailable, LatentmillError, OutsideError, SettingsError
from workers.jobs.markers import Marker, list_markers, try_read_marker
from workers.jobs.pool import DISCOVERY_DUTY, Pool

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 15.0  # between two searches of all processes


@final
class Discovery:
    """The search as one process does it; it remembers the markers that it has seen."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known_etags: dict[str, str] = {}  # by job: the etag of its marker at the last search

    def run(self, stopped: threading.Event, pause: float = _PAUSE_SECONDS) -> None:
        """Search every ``pause`` seconds until ``stopped`` is set. Errors are logged; none ends it."""
        while True:
            try:
                self.search_if_due()
            except LatentmillError as error:
                log.warning("search for open builds: %s; trying again", error)
            except Exception:
                log.exception("search for open builds: unexpected error; trying again")
            if stopped.wait(pause):
                return

    def search_if_due(self) -> None:
        """Search, unless a process did so in the last 15 s. Raises ``BrokerUnavailable``, ``StoreError``."""
        if self._pool.ledger.take_turn(DISCOVERY_DUTY, _PAUSE_SECONDS):
            self._search()

    def _search(self) -> None:
        """Activate open builds that the ledger does not know, and apply the intents in the store to the ledger.

        If the root was restored, or emptied and used by others since, it names another pool: then all workers are told.
        """
        if not self._pool.identity.owns_root():
            self._pool.ledger.abandon()
            return
        active, etags = set(self._pool.ledger.open_jobs()), dict[str, str]()
        for job, info in list_markers(self._pool.root):
            etags[job] = info.etag
            if job in active and self._known_etags.get(job) == info.etag:
                continue
            marker = try_read_marker(self._pool.root, job)
            if marker is not None and marker.intent == "open" and job not in active:
                self._activate(marker)
            elif marker is not None and marker.intent != "open" and job in active:
                self._pool.sync_intent(job)
        for job in active - etags.keys():
            self._pool.sync_intent(job)
        self._known_etags = etags

    def _activate(self, marker: Marker) -> None:
        """Activate one build; an error is logged and does not stop the others."""
        log.warning("%s: found in the store, unknown to the ledger; activating it", marker.job)
        try:
            self._pool.activate(marker)
        except BrokerUnavailable:
            raise
        except (OutsideError, SettingsError) as error:  # another worker may be allowed to write there
            log.warning("%s: not activated yet: %s", marker.job, error)
        except LatentmillError as final:
            log.error("%s: cannot be activated: %s", marker.job, final)
            self._pool.fail(marker.job, str(final))
