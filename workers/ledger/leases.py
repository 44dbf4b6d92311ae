"""The lease keeper: renews a lease while a shard is made or a build committed, and reports when it is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from generator.errors import BrokerUnavailable

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The lease expired or the job is no longer live. Stopping is safe: the next holder makes the same bytes."""


class LeaseKeeper:
    """A thread that renews one lease until the block ends or the lease is lost.

    It renews at a third of the lease's ``seconds``, and every 2 s at least. ``renew`` takes the number of images made
    so far and returns whether the lease is still ours. While Redis is unavailable the work continues: the store
    decides which result counts, and a second worker makes equal bytes. ``label`` names the lease in logs and errors.
    """

    def __init__(self, renew: Callable[[int], bool], seconds: float, label: str) -> None:
        self._renew, self._seconds, self._label = renew, seconds, label
        self._made = 0
        self._ended, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew_loop, name=f"lease of {label}", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()  # not joined: a late renewal has no effect after completion or release

    def on_batch(self, made: int) -> None:
        """Record the number of images made so far. Raises ``LeaseLost`` once the lease is lost."""
        self._made = made
        if self._lost.is_set():
            raise LeaseLost(self._label)

    def _renew_loop(self) -> None:
        while not self._ended.wait(min(self._seconds / 3, 2.0)):
            try:
                if not self._renew(self._made):
                    self._lost.set()
                    return
            except BrokerUnavailable as away:
                log.warning("lease of %s not renewed: %s", self._label, away)
