"""Opens the meter of one process of the pool: a Prometheus meter if metrics are on, else a null meter."""

from __future__ import annotations

import logging

from workers.settings import Settings
from workers.telemetry.meters import Meter, NullMeter

log = logging.getLogger(__name__)


def open_meter(settings: Settings) -> Meter:
    """The meter of this process. If it cannot be opened, the error is logged and a null meter returned."""
    if settings.metrics_port is None:
        return NullMeter()
    try:
        from workers.telemetry.prometheus_meter import open_prometheus_meter

        return open_prometheus_meter()
    except Exception:
        log.exception("this process counts nothing for the metrics")
        return NullMeter()
