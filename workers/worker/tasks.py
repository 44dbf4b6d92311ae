"""The Celery entry point of a worker (``celery -A workers.worker.tasks worker``): one task, and the signal handlers.

The child processes import torch before they take a ticket, so that the time limit applies to the shard alone. The main
process never imports it.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.signals import worker_init, worker_process_init, worker_ready, worker_shutdown, worker_shutting_down

from generator.errors import LatentmillError
from generator.production.heap import keep_freed_memory
from workers.broker.app import TICKET_TASK, make_app
from workers.jobs.pool import Pool
from workers.ledger.claims import nonce_prefix
from workers.settings import load_settings
from workers.telemetry import Exporter, Meter, open_meter
from workers.worker.heartbeat import Heartbeat
from workers.worker.reconciler import Reconciler
from workers.worker.restart import await_key_prefix, restart_worker
from workers.worker.shutdown import GracefulShutdown, ignore_termination

if TYPE_CHECKING:
    from workers.worker.ticket_handler import TicketHandler

log = logging.getLogger(__name__)
for _name in ("botocore", "boto3", "urllib3"):  # at DEBUG they log whole requests, including keys
    logging.getLogger(_name).setLevel(logging.INFO)
settings = load_settings()
app = make_app(settings, await_key_prefix(settings))
_reconciler = Reconciler(settings, restart_worker)
_heartbeat = Heartbeat(settings.heartbeat_dir, _reconciler.is_healthy)
_shutdown = GracefulShutdown(Pool(settings))
_exporter = Exporter(settings, "worker")


@app.task(name=TICKET_TASK, bind=True)
def serve_ticket(self: Task) -> None:
    """Serve one ticket; after progress, top up the tickets.

    Without progress the reconciler tops up, so that a job that no worker can serve does not loop.
    """
    handler = _ticket_handler(self.request.hostname)
    result = handler.serve()
    log.info("%s", result.summary)
    if result.progressed:
        handler.pool.top_up()


@cache
def _ticket_handler(worker: str) -> TicketHandler:
    from workers.worker.ticket_handler import open_ticket_handler

    return open_ticket_handler(settings, nonce_prefix(worker), _meter())


@cache
def _meter() -> Meter:
    return open_meter(settings)


@worker_init.connect
def _on_worker_init(**_: Any) -> None:
    """Start the exporter before the process pool. Celery ignores a handler's errors, except for ``SystemExit``."""
    try:
        _exporter.start()
    except LatentmillError as wrong:
        sys.stderr.write(f"error: {wrong}\n")
        raise SystemExit(wrong.exit_code) from wrong


@worker_process_init.connect
def _on_process_init(**_: Any) -> None:
    ignore_termination()
    keep_freed_memory()
    import workers.worker.ticket_handler  # noqa: F401

    if settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)
    _meter()
    log.info("this process is ready for tickets")


@worker_ready.connect
def _on_worker_ready(sender: Any, **_: Any) -> None:
    _heartbeat.start(lambda: _ready_children(sender) >= settings.concurrency)
    _reconciler.start(sender.hostname)


def _ready_children(consumer: Any) -> int:
    """The number of pool processes that are ready for tickets; all of them, if Celery does not tell."""
    pool = getattr(consumer.pool, "_pool", None)
    return len(getattr(pool, "_all_inqueues", range(settings.concurrency)))


@worker_shutting_down.connect
def _on_shutting_down(sender: str, how: str, **_: Any) -> None:
    _reconciler.stop()
    _shutdown.begin(sender, warm=how == "Warm")


@worker_shutdown.connect
def _on_shutdown(**_: Any) -> None:
    _shutdown.end()
    _heartbeat.stop()
    _exporter.stop()
