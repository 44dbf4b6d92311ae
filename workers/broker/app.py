"""The Celery application and its settings; docs/design.md, section 6, gives the reasons for them."""

from __future__ import annotations

from celery import Celery
from kombu.entity import Queue

from workers.broker import transport
from workers.broker.connection import redis_url
from workers.settings import Settings

TICKET_TASK = "latentmill.work"


def make_app(settings: Settings) -> Celery:
    """The Celery application for the configured Redis; it connects on first use."""
    transport.install()
    app = Celery("latentmill", broker=redis_url(settings))
    visibility = {"visibility_timeout": settings.visibility_timeout}
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
        broker_transport_options={
            **visibility,
            "socket_timeout": settings.redis_timeout,
            "socket_connect_timeout": 5.0,
            "socket_keepalive": True,
            # Check idle connections: a firewall may drop one without notice.
            "health_check_interval": max(1, round(settings.redis_timeout / 2)),
        },
        result_backend_transport_options=visibility,
        enable_utc=True,
    )
    return app
