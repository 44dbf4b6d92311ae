"""Keeping a lease while a shard is made, and noticing when it is lost."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from generator.errors import BrokerUnavailable
from workers.ledger import Claim, Ledger

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The lease ran out or the job is no longer active: whoever holds the shard now will make the same bytes."""


class LeaseKeeper:
    """A thread that renews one lease at a third of its length, until the block ends or the lease is lost.

    While Redis is away the work goes on: the store decides what counts, and a second worker makes equal bytes.
    """

    def __init__(self, ledger: Ledger, claim: Claim, lease_seconds: float) -> None:
        self._ledger, self._claim, self._seconds = ledger, claim, lease_seconds
        self._made = 0
        self._ended, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{claim.nonce[:8]}", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def on_batch(self, made: int) -> None:
        """Record progress. Raises ``LeaseLost`` when the shard is no longer ours to make."""
        self._made = made
        if self._lost.is_set():
            raise LeaseLost(f"{self._claim.job}, shard {self._claim.shard}")

    def _renew(self) -> None:
        while not self._ended.wait(min(self._seconds / 3, 2.0)):
            try:
                if not self._ledger.renew(self._claim, self._seconds, self._made):
                    self._lost.set()
                    return
            except BrokerUnavailable as away:
                log.warning("lease of %s shard %d not renewed: %s", self._claim.job, self._claim.shard, away)
