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
    """Publish tickets up to the window, or up to the work there is; how many. Too many or too few are harmless.

    While half of the window waits in the broker nobody lacks a ticket, and nothing more is asked.
    """
    window = max(ledger.slots(), _MIN_SLOTS) * settings.tickets_per_slot
    waiting = ledger.waiting_tickets(settings.queue)
    if 2 * waiting > window:
        return 0
    missing = ledger.work(window) - waiting
    try:
        for _ in range(missing):
            app.send_task(TICKET, queue=settings.queue, retry=False)
    except OperationalError as down:
        raise BrokerUnavailable("redis", "a broker that takes tickets", type(down).__name__) from down
    return max(0, missing)
