"""Metrics ports: which process of a machine gets which, whether it is free, and the server that listens on it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from generator.errors import SettingsError
from workers.settings import ENV_PREFIX, Settings

log = logging.getLogger(__name__)

_LAST_PORT = 65535


def with_port(settings: Settings, index: int) -> Settings:
    """``settings`` with a metrics port for the process of this index (from 0): the base port plus ``index``."""
    if settings.metrics_port is None:
        return settings
    return settings.model_copy(update={"metrics_port": settings.metrics_port + index})


def check_ports(settings: Iterable[Settings]) -> None:
    """Raise ``SettingsError`` if one of the ports is taken or cannot be bound."""
    for each in settings:
        if each.metrics_port is not None:
            bind_server(each, BaseRequestHandler).server_close()


def bind_server(settings: Settings, handler: Any) -> ThreadingTCPServer:
    """A listening server that does not answer yet. Raises ``SettingsError`` if the address cannot be bound."""
    host, port = settings.metrics_host, settings.metrics_port or 0
    if port > _LAST_PORT:
        raise SettingsError(f"{ENV_PREFIX}METRICS_PORT", f"a port for each process, up to {_LAST_PORT}", str(port))
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as unknown:
        raise SettingsError(f"{ENV_PREFIX}METRICS_HOST", "an address of this machine", repr(host)) from unknown

    class Server(ThreadingTCPServer):
        address_family, allow_reuse_address, daemon_threads = family, True, True

        def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
            log.debug("metrics: %s went away", client_address, exc_info=True)

    try:
        return Server((str(address[0]), port), handler)
    except OSError as taken:
        raise SettingsError(
            f"{ENV_PREFIX}METRICS_PORT",
            "a free port on this machine",
            f"{host}:{port} ({taken.strerror})",
            "each worker and scheduler on a machine needs its own port",
        ) from taken
