"""Runs the application in this process (`latentmill serve`)."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp

from generator.errors import SettingsError
from workers.server.application import make_application
from workers.server.headers import trusted_proxies
from workers.server.limits import MAX_HEADER_BYTES, TimedProtocol
from workers.settings import DEFAULT_SERVER_PORT as DEFAULT_PORT
from workers.settings import Settings

_IDLE_SECONDS = 15
_CONNECTIONS = 512
_GRACE_SECONDS = 10


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ``SettingsError`` before the port is opened."""
    server = uvicorn.Server(server_config(settings, checked_application(settings)))
    server.run(sockets=[bind_port(settings)])


def checked_application(settings: Settings) -> ASGIApp:
    """The application. Raises ``SettingsError`` for settings that a server cannot start with; nothing is opened."""
    trusted_proxies(settings)
    if (settings.server_cert_file is None) != (settings.server_key_file is None):
        raise SettingsError("LATENTMILL_SERVER_KEY_FILE", "a certificate and its key together, or neither", "one")
    for name, path in (("CERT", settings.server_cert_file), ("KEY", settings.server_key_file)):
        if path is not None and not path.is_file():
            raise SettingsError(f"LATENTMILL_SERVER_{name}_FILE", "a file that can be read", str(path))
    return make_application(settings)


def bind_port(settings: Settings) -> socket.socket:
    """A socket at the server's address that does not listen yet. Raises ``SettingsError`` if it cannot be bound."""
    host, port = settings.server_host, settings.server_port or DEFAULT_PORT
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as unknown:
        raise SettingsError("LATENTMILL_SERVER_HOST", "an address of this machine", repr(host)) from unknown
    bound = socket.socket(family, kind, protocol)  # without the protocol, asyncio would leave small packets waiting
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as taken:
        bound.close()
        expected, got = "a free port on this machine", f"{host}:{port} ({taken.strerror})"
        hint = "--port or this setting chooses another one"
        raise SettingsError("LATENTMILL_SERVER_PORT", expected, got, hint) from taken
    return bound


def server_config(settings: Settings, app: ASGIApp) -> uvicorn.Config:
    """How uvicorn serves ``app``: HTTP/1.1 alone, with limits on heads, idle connections and their number."""
    proxies = trusted_proxies(settings)
    return uvicorn.Config(
        app,
        host=settings.server_host,
        port=settings.server_port or DEFAULT_PORT,
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        log_config=_log_config(settings.log_level),
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ssl_certfile=settings.server_cert_file,
        ssl_keyfile=settings.server_key_file,
    )


def _log_config(level: str) -> dict[str, object]:
    """Lines on standard error. Query strings are not logged: uvicorn's own log of requests is off."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {
            "uvicorn.access": {"level": "WARNING"},
            "latentmill.audit": {"level": "INFO"},
            **{name: {"level": "INFO"} for name in ("botocore", "boto3", "urllib3")},
        },
    }
