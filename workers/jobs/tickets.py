"""Tickets: Celery messages that name no shard. The broker holds a few for each worker process, not one per shard."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import OperationalError

from generator.errors import BrokerUnavailable
from workers.broker.app import TICKET_TASK
from workers.ledger.ledger import Ledger
from workers.settings import Settings

_MIN_SLOTS = 2  # assumed while fewer are registered


def send_ticket(app: Celery, settings: Settings) -> None:
    """Publish one ticket, for a query. Raises ``BrokerUnavailable``."""
    try:
        app.send_task(TICKET_TASK, queue=settings.queue, retry=False)
    except OperationalError as down:
        raise BrokerUnavailable("redis", "a broker that takes tickets", type(down).__name__) from down


def top_up(app: Celery, ledger: Ledger, settings: Settings) -> int:
    """Publish the missing tickets; return their number. Too many or too few are harmless."""
    missing = ledger.missing_tickets(settings.queue, settings.tickets_per_slot, _MIN_SLOTS)
    try:
        for _ in range(missing):
            app.send_task(TICKET_TASK, queue=settings.queue, retry=False)
    except OperationalError as down:
        raise BrokerUnavailable("redis", "a broker that takes tickets", type(down).__name__) from down
    return missing
