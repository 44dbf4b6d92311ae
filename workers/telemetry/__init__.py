"""What workers and schedulers tell Prometheus. Nothing here is imported from ``prometheus_client`` unless it is on.

The processes of a worker's pool count what they do (``Meter``) in files that they share with the main process, which
answers on a port (``Exporter``). Counting never fails a shard.
"""

from __future__ import annotations

from workers.telemetry.exporter import Exporter
from workers.telemetry.meter_factory import open_meter
from workers.telemetry.meters import Meter, NullMeter
from workers.telemetry.ports import check_ports, with_port

__all__ = ["Exporter", "Meter", "NullMeter", "open_meter", "check_ports", "with_port"]
