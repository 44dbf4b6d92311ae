"""How a worker leaves: its shards end within the grace period, or are handed back at its end.

Celery's soft shutdown sleeps for the whole period even when the shard ends at once, and its warm shutdown waits for
ever (docs/decisions/0006-leaving.md). So a worker leaves warmly, and a timer turns that into a cold shutdown.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

from billiard.process import active_children

from generator.errors import BrokerUnavailable
from workers.jobs.pool import Pool
from workers.ledger.claims import nonce_prefix

log = logging.getLogger(__name__)

_RELEASE_SECONDS = 3.0  # for the ledger to take back what is held
_COLD_SHUTDOWN_SECONDS = 10.0  # for the cold shutdown; who hangs in it is ended


class GracefulShutdown:
    """The end of one worker's main process. ``begin`` may be called in a signal handler, any number of times."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._begun, self._ended = pool, threading.Event(), threading.Event()

    def begin(self, worker: str, *, patient: bool) -> None:
        """Take no more tickets; a ``patient`` farewell gives running shards their grace period, any other none."""
        if not self._begun.is_set():
            self._begun.set()
            threading.Thread(target=self._run, args=(worker, patient), name="farewell", daemon=True).start()

    def end(self) -> None:
        """The main process is about to end by itself."""
        self._ended.set()

    def _run(self, worker: str, patient: bool) -> None:
        settings = self._pool.settings
        _run_with_timeout(lambda: self._pool.ledger.unregister_worker(worker, settings.concurrency), wait=0.0)
        if patient and self._ended.wait(settings.grace_seconds):
            return
        _run_with_timeout(lambda: self._release_shards(worker), wait=_RELEASE_SECONDS)
        if patient:
            log.warning("the grace period of %.0f s is over: running shards are handed back", settings.grace_seconds)
            os.kill(os.getpid(), signal.SIGQUIT)
        if not self._ended.wait(_COLD_SHUTDOWN_SECONDS):
            log.error("the cold shutdown hangs: ending at once")
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)
            os._exit(1)

    def _release_shards(self, worker: str) -> None:
        if count := self._pool.ledger.release_all(nonce_prefix(worker)):
            log.warning("%d shard(s) handed back", count)


def _run_with_timeout(step: Callable[[], None], wait: float) -> None:
    """``step`` in a thread that is waited for so many seconds: Redis may be away, or silent; leases run out anyway."""

    def run() -> None:
        try:
            step()
        except BrokerUnavailable as away:
            log.warning("leaving without Redis: %s", away)

    thread = threading.Thread(target=run, name="last words", daemon=True)
    thread.start()
    thread.join(wait)
