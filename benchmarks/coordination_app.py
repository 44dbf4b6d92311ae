"""The Celery side of ``coordination.py``: the worker of ``workers.worker.tasks`` with shards that take no time.

``LATENTMILL_BENCHMARK`` says what a ticket does: ``ledger`` claims a shard, holds and completes it; ``store`` also
looks at the store as a real worker does; ``hold`` claims one and keeps it until the process is killed.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from workers.jobs.pool import Pool
from workers.ledger.leases import LeaseKeeper
from workers.worker import tasks
from workers.worker.tasks import app, settings
from workers.worker.ticket_handler import TicketResult, open_ticket_handler

_MODE = os.environ["LATENTMILL_BENCHMARK"]


@app.task(name="benchmark.nothing")
def nothing() -> None:
    """The bare task that coordination is compared with."""


@dataclass
class InstantWorkshop:
    """A workshop whose shards take no time, or all of it."""

    pool: Pool
    seconds: float

    def serve(self) -> TicketResult:
        claim = self.pool.ledger.claim(settings.lease_seconds)
        if claim is None:
            return TicketResult("nothing to do")
        ledger, lease = self.pool.ledger, settings.lease_seconds
        with LeaseKeeper(lambda made: ledger.renew(claim, lease, made), lease, claim.job):
            time.sleep(self.seconds)
        ledger.complete(claim)
        return TicketResult(f"{claim.job} {claim.shard}", progressed=True)


@cache
def _workshop(worker: str) -> Any:
    if _MODE == "store":
        return replace(open_ticket_handler(settings, worker), produce=lambda *_, **__: None)
    return InstantWorkshop(Pool(settings), 3600.0 if _MODE == "hold" else 0.0)


tasks._ticket_handler = _workshop
