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
from workers.worker.ticket_handler import Served, open_workshop

_MODE = os.environ["LATENTMILL_BENCHMARK"]


@app.task(name="benchmark.nothing")
def nothing() -> None:
    """The bare task that coordination is compared with."""


@dataclass
class Instant:
    """A workshop whose shards take no time, or all of it."""

    pool: Pool
    seconds: float

    def serve(self) -> Served:
        claim = self.pool.ledger.claim(settings.lease_seconds)
        if claim is None:
            return Served("nothing to do")
        ledger, lease = self.pool.ledger, settings.lease_seconds
        with LeaseKeeper(lambda made: ledger.renew(claim, lease, made), lease, claim.job):
            time.sleep(self.seconds)
        ledger.complete(claim)
        return Served(f"{claim.job} {claim.shard}", made=True)


@cache
def _workshop(worker: str) -> Any:
    if _MODE == "store":
        return replace(open_workshop(settings, worker), produce=lambda *_, **__: None)
    return Instant(Pool(settings), 3600.0 if _MODE == "hold" else 0.0)


tasks._workshop = _workshop
