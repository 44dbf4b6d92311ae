"""The exporter: serves the metrics of a worker or a scheduler over HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import version
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, Literal, final

from generator.errors import SettingsError
from workers.broker.connection import redis_address, store_root
from workers.broker.identity import PoolIdentity
from workers.ledger.ledger import Ledger
from workers.settings import ENV_PREFIX, Settings
from workers.telemetry.ports import bind_server
from workers.telemetry.process_files import MultiprocessDir

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = logging.getLogger(__name__)

Role = Literal["worker", "scheduler"]
_IDLE_SECONDS = 10.0  # then a connection without a request is closed


@final
class Exporter:
    """Serves Prometheus text on ``LATENTMILL_METRICS_PORT``; if that is not set, nothing is opened or imported.

    ``extra_gauges``: further gauges of this process, as pairs of help text and value function by name. The exporter of
    a ``worker`` must be started before its process pool.
    """

    def __init__(
        self, settings: Settings, role: Role, extra_gauges: Mapping[str, tuple[str, Callable[[], float]]] | None = None
    ) -> None:
        self._settings, self._role, self._extra_gauges = settings, role, dict(extra_gauges or {})
        self._directory: MultiprocessDir | None = None
        self._server: ThreadingTCPServer | None = None

    def start(self) -> None:
        """Start to listen. Raises ``SettingsError`` if the port is taken or the state directory is not writable."""
        if self._settings.metrics_port is None:
            return
        if self._role == "worker":
            self._directory = _open_directory(self._settings)
        try:
            self._server = self._open_server()
        except BaseException:
            self.stop()
            raise
        threading.Thread(target=self._server.serve_forever, name="metrics server", daemon=True).start()
        log.info("metrics on http://%s:%d/metrics", self._settings.metrics_host, self._settings.metrics_port)

    def stop(self) -> None:
        """Stop to listen, and remove the counter files."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._directory is not None:
            self._directory.close()
        self._server = self._directory = None

    def _open_server(self) -> ThreadingTCPServer:
        from prometheus_client import MetricsHandler

        attributes = {"registry": self._registry(), "timeout": _IDLE_SECONDS, "server_version": "latentmill"}
        return bind_server(self._settings, type("Handler", (MetricsHandler,), attributes | {"sys_version": ""}))

    def _registry(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.multiprocess import MultiProcessCollector

        from workers.telemetry.gauges import PoolCounters, PoolGauges, ProcessGauges

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        # A scrape must end well before the timeout of a Prometheus that waits as long as we do for Redis.
        timeout = self._settings.redis_timeout / 2
        identity = PoolIdentity(store_root(self._settings))
        ledger = Ledger(redis_address(self._settings), identity.prefix, timeout)
        registry.register(PoolGauges(lambda: ledger.pool_snapshot(self._settings.queue), timeout))
        registry.register(ProcessGauges(self._role, version("latentmill"), self._extra_gauges))
        if self._directory is not None:
            registry.register(PoolCounters(MultiProcessCollector(None, str(self._directory.path))))  # type: ignore[no-untyped-call]
        return registry


def _open_directory(settings: Settings) -> MultiprocessDir:
    try:
        return MultiprocessDir(settings.metrics_dir)
    except OSError as wrong:
        got = f"{settings.metrics_dir} ({wrong.strerror})"
        raise SettingsError(f"{ENV_PREFIX}STATE_DIR", "a directory that can be written", got) from wrong
