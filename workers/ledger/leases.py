"""Keeping a lease while a shard is made or a build committed, and noticing when it is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from generator.errors import BrokerUnavailable

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The lease ran out or the job is no longer live: whoever holds the shard now will make the same bytes."""


class LeaseKeeper:
    """A thread that renews one lease at a third of its length, until the block ends or the lease is lost.

    ``renew`` takes the number of images made so far, and says whether the lease is still ours. While Redis is away
    the work goes on: the store decides what counts, and a second worker makes equal bytes.
    """

    def __init__(self, renew: Callable[[int], bool], seconds: float, held: str) -> None:
        self._renew, self._seconds, self._label = renew, seconds, held
        self._made = 0
        self._ended, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew_loop, name=f"lease of {held}", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()  # not joined: a renewal that is under way changes nothing after completion or release

    def on_batch(self, made: int) -> None:
        """Record progress. Raises ``LeaseLost`` when the shard is no longer ours to make."""
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
