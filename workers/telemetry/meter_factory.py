"""The meter of one process of the pool: one that counts, if metrics are on."""

from __future__ import annotations

import logging

from workers.settings import Settings
from workers.telemetry.meters import Meter, NullMeter

log = logging.getLogger(__name__)


def open_meter(settings: Settings) -> Meter:
    """The meter of this process. Where it cannot be opened the log says so, and shards are made uncounted."""
    if settings.metrics_port is None:
        return NullMeter()
    try:
        from workers.telemetry.prometheus_meter import open_prometheus_meter

        return open_prometheus_meter()
    except Exception:
        log.exception("this process counts nothing for the metrics")
        return NullMeter()
