"""Tickets: Celery messages that name no shard. A few for each worker process lie in the broker, the rest waits."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import OperationalError

from generator.errors import BrokerUnavailable
from workers.app import TICKET
from workers.ledger import Ledger
from workers.settings import Settings

_MIN_SLOTS = 2  # assumed while no worker has announced itself


def top_up(app: Celery, ledger: Ledger, settings: Settings) -> int:
    """Publish tickets up to the window, or up to the work there is; how many. Too many or too few are harmless."""
    work = sum(_work(ledger, job) for job in ledger.active())
    window = max(ledger.slots(), _MIN_SLOTS) * settings.tickets_per_slot
    missing = min(work, window) - ledger.waiting_tickets(settings.queue)
    try:
        for _ in range(missing):
            app.send_task(TICKET, queue=settings.queue, retry=False)
    except OperationalError as down:
        raise BrokerUnavailable("redis", "a broker that takes tickets", type(down).__name__) from down
    return max(0, missing)


def _work(ledger: Ledger, job: str) -> int:
    counts = ledger.counts(job)
    return counts.free + (counts.finished and not counts.committing)  # a finished build needs one more: its commit
