"""Prometheus metrics of workers and schedulers. ``prometheus_client`` is imported only if metrics are on.

The processes of a worker's pool count in files (``Meter``) that the main process reads and serves on a port
(``Exporter``). An error of a meter never fails a shard.
"""

from __future__ import annotations

from workers.telemetry.exporter import Exporter
from workers.telemetry.meter_factory import open_meter
from workers.telemetry.meters import Meter, NullMeter
from workers.telemetry.ports import check_ports, with_port

__all__ = ["Exporter", "Meter", "NullMeter", "open_meter", "check_ports", "with_port"]
