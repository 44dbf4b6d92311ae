"""The port that metrics are served on: whether it is to be had, and who of several on one machine gets which."""

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


def with_port(settings: Settings, place: int) -> Settings:
    """The settings of the process at ``place`` among those that share them: each has a port of its own, if any has."""
    if settings.metrics_port is None:
        return settings
    return settings.model_copy(update={"metrics_port": settings.metrics_port + place})


def check_ports(settings: Iterable[Settings]) -> None:
    """Raises ``SettingsError`` where somebody else has one of the ports, or they are not to be had."""
    for each in settings:
        if each.metrics_port is not None:
            bind_server(each, BaseRequestHandler).server_close()


def bind_server(settings: Settings, handler: Any) -> ThreadingTCPServer:
    """A server that listens, and answers nobody yet. Raises ``SettingsError``."""
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
            "each worker and scheduler on a machine needs one of its own",
        ) from taken
