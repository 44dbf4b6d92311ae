"""The Celery application and its settings; docs/design.md, section 6, gives the reasons for them."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Queue

from workers.broker import transport
from workers.broker.address import RedisAddress
from workers.broker.connection import redis_address
from workers.broker.identity import broker_prefix
from workers.settings import Settings

TICKET_TASK = "latentmill.work"
_CONNECT_SECONDS = 5.0


def make_app(settings: Settings, prefix: str) -> Celery:
    """The Celery application for the configured Redis, of the pool whose keys begin with ``prefix``; it connects on
    first use. Raises ``SettingsError``."""
    transport.install()
    address = redis_address(settings)
    app = Celery("latentmill", broker=address.broker_url)
    shared = {"visibility_timeout": settings.visibility_timeout, "global_keyprefix": broker_prefix(prefix)}
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_track_started=False,
        task_time_limit=settings.shard_seconds,
        worker_max_tasks_per_child=settings.shards_per_child,
        worker_max_memory_per_child=settings.child_bytes and settings.child_bytes // 1024,  # in KiB
        task_queues=[Queue(settings.queue)],
        task_default_queue=settings.queue,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_pool_start_method="spawn",  # CUDA cannot be used after fork
        worker_proc_alive_timeout=300.0,  # a child takes long to import torch
        worker_cancel_long_running_tasks_on_connection_loss=False,  # results depend on the store, not on Redis
        worker_hijack_root_logger=True,
        worker_send_task_events=False,
        worker_enable_remote_control=False,  # anyone with access to Redis could use it
        visibility_timeout=settings.visibility_timeout,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_use_ssl=dict(address.tls) if address.tls is not None else None,
        broker_transport_options={
            **shared,
            **_sentinel_options(address, settings),
            "socket_timeout": settings.redis_timeout,
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_keepalive": True,
            # Check idle connections: a firewall may drop one without notice.
            "health_check_interval": max(1, round(settings.redis_timeout / 2)),
        },
        result_backend_transport_options=shared,
        enable_utc=True,
    )
    return app


def _sentinel_options(address: RedisAddress, settings: Settings) -> dict[str, Any]:
    if address.kind != "sentinel":
        return {}
    limits = {"socket_timeout": settings.redis_timeout, "socket_connect_timeout": _CONNECT_SECONDS}
    return {"master_name": address.master, "sentinel_kwargs": address.sentinel_options(limits)}
