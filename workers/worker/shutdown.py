"""Graceful shutdown of a worker: running shards finish within the grace period or are released at its end.

Celery's soft shutdown sleeps for the whole grace period even if the shard ends at once, and its warm shutdown has no
time limit (docs/decisions/0006-leaving.md). So a worker starts a warm shutdown, and a timer turns it into a cold one.

systemd, Slurm and supervisors may send SIGTERM to all processes of a worker at once. It is meant for the main process:
a pool process ignores it and finishes its shard, and is ended by ``_CHILD_SIGNAL`` or by the end of its parent.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

from billiard.process import active_children

from generator.errors import BrokerUnavailable
from workers.jobs.pool import Pool
from workers.ledger.claims import nonce_prefix

log = logging.getLogger(__name__)

_RELEASE_SECONDS = 3.0  # to release the leases in the ledger
_COLD_SHUTDOWN_SECONDS = 10.0  # for the cold shutdown; after that the worker is killed
_CANCEL_SECONDS = 0.5  # for Celery to cancel its requests, so that it does not replace processes that end
_CHILD_SIGNAL = signal.SIGHUP  # billiard's processes end in order on it, as they would on SIGTERM


class GracefulShutdown:
    """The shutdown of one worker. ``begin`` may be called in a signal handler, any number of times."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._begun, self._ended = pool, threading.Event(), threading.Event()

    def begin(self, worker: str, *, warm: bool) -> None:
        """Unregister the worker and release its shards: after the grace period if ``warm``, at once otherwise."""
        if not self._begun.is_set():
            self._begun.set()
            threading.Thread(target=self._run, args=(worker, warm), name="shutdown", daemon=True).start()

    def end(self) -> None:
        """Cancel the timers: the main process is about to end by itself."""
        self._ended.set()

    def _run(self, worker: str, warm: bool) -> None:
        settings = self._pool.settings
        _run_with_timeout(lambda: self._pool.ledger.unregister_worker(worker, settings.concurrency), wait=0.0)
        if warm and self._ended.wait(settings.grace_seconds):
            return
        _run_with_timeout(lambda: self._release_shards(worker), wait=_RELEASE_SECONDS)
        if warm:
            log.warning("the grace period of %.0f s is over: running shards are released", settings.grace_seconds)
            os.kill(os.getpid(), signal.SIGQUIT)
        if self._ended.wait(_CANCEL_SECONDS):
            return
        for child in active_children():
            with suppress(ProcessLookupError):
                os.kill(child.pid, _CHILD_SIGNAL)
        if not self._ended.wait(_COLD_SHUTDOWN_SECONDS):
            log.error("the cold shutdown hangs: killing the worker")
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)
            os._exit(1)

    def _release_shards(self, worker: str) -> None:
        if count := self._pool.ledger.release_all(nonce_prefix(worker)):
            log.warning("%d shard(s) released", count)


def ignore_termination() -> None:
    """Ignore SIGTERM in this process, and in those that it starts, such as compilers. Call it in pool processes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _run_with_timeout(step: Callable[[], None], wait: float) -> None:
    """Run ``step`` in a thread and wait at most ``wait`` seconds: if Redis is unavailable, the leases expire anyway."""

    def run() -> None:
        try:
            step()
        except BrokerUnavailable as away:
            log.warning("shutting down without Redis: %s", away)

    thread = threading.Thread(target=run, name="release leases", daemon=True)
    thread.start()
    thread.join(wait)
