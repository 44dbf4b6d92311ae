"""The Celery side of ``coordination.py``: the worker of ``workers.worker.tasks`` with instant shards.

``LATENTMILL_BENCHMARK`` says what a ticket does: ``ledger`` claims a shard and completes it; ``store`` also reads the
store as a real worker does; ``hold`` claims a shard and keeps it until the process is killed.
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
    """The empty task that coordination is compared with."""


@dataclass
class InstantTicketHandler:
    """A ticket handler whose shards take ``seconds`` and no work."""

    pool: Pool
    seconds: float

    def serve(self) -> TicketResult:
        claim = self.pool.ledger.claim(settings.lease_seconds)
        if claim is None:
            return TicketResult("nothing to do")
        ledger, lease = self.pool.ledger, settings.lease_seconds
        with LeaseKeeper(lambda done: ledger.renew(claim, lease, done), lease, claim.job):
            time.sleep(self.seconds)
        ledger.complete(claim)
        return TicketResult(f"{claim.job} {claim.shard}", progressed=True)


@cache
def _open_handler(worker: str) -> Any:
    if _MODE == "store":
        return replace(open_ticket_handler(settings, worker), produce=lambda *_, **__: None)
    return InstantTicketHandler(Pool(settings), 3600.0 if _MODE == "hold" else 0.0)


tasks._ticket_handler = _open_handler
