"""The Celery side of a worker: ``celery -A workers.tasks worker``. One thin task over plain functions.

torch is imported in the pool's children when the first ticket arrives, never in the main process.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from celery.signals import worker_process_init, worker_ready, worker_shutting_down

from workers.app import TICKET, make_app
from workers.reconcile import Reconciler
from workers.settings import load_settings

if TYPE_CHECKING:
    from workers.work import Workshop

log = logging.getLogger(__name__)
settings = load_settings()
app = make_app(settings)
_reconciler = Reconciler(settings)


@app.task(name=TICKET)
def work() -> None:
    """Serve one ticket; after a shard was made, see that there are tickets for what is left.

    After anything else that is left to the reconciler, so that work which nobody here can do is not tried in a circle.
    """
    shop = _workshop()
    served = shop.serve()
    log.info("%s", served.told)
    if served.made:
        shop.pool.top_up()


@cache
def _workshop() -> Workshop:
    from workers.work import open_workshop

    return open_workshop(settings)


@worker_process_init.connect
def _limit_threads(**_: Any) -> None:
    if settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)


@worker_ready.connect
def _start_reconciler(sender: Any, **_: Any) -> None:
    _reconciler.start(sender.hostname)


@worker_shutting_down.connect
def _stop_reconciler(**_: Any) -> None:
    _reconciler.stop()
