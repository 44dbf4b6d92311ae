"""The HTTP server of `latentmill up`: its port, and a key for the browser of whoever started it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from generator.errors import LatentmillError, SettingsError, StoreError

if TYPE_CHECKING:
    from workers.settings import Settings

_LIFE = timedelta(days=7)
_LINK_LIFE = timedelta(minutes=30)


def with_server_port(settings: Settings) -> Settings:
    """``settings`` with a port for the HTTP server: the one that is set, or the usual one, or any that is free.

    Raises ``SettingsError`` if the one that is set is taken.
    """
    from workers.settings import DEFAULT_SERVER_PORT, ENV_PREFIX

    for port in (settings.server_port or DEFAULT_SERVER_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.server_host, port))
            except OSError as taken:
                if settings.server_port is None and port:
                    continue
                expected, got = "a free port on this machine", f"{settings.server_host}:{port} ({taken.strerror})"
                raise SettingsError(f"{ENV_PREFIX}SERVER_PORT", expected, got) from taken
            return settings.model_copy(update={"server_port": probe.getsockname()[1]})
    raise AssertionError("port 0 is any free port")


@contextmanager
def first_key(settings: Settings, *, with_server: bool) -> Iterator[dict[str, str]]:
    """What to show about the server: its address, with a one-time link to a session as operator of tenant ``default``.

    The key behind it is revoked after the block. Where keys cannot be written, the reason is shown instead.
    """
    from generator.store import open_store
    from workers.server.access.keys import add_key, revoke_key
    from workers.server.access.links import add_link

    scheme = "http" if settings.server_cert_file is None else "https"
    address = f"{scheme}://{settings.server_host}:{settings.server_port}"
    if not with_server or settings.server_without_keys:
        yield {"pages": address} if with_server else {}
        return
    root = open_store(settings.root, settings.s3)
    try:
        key, token = add_key(root, "default", "operator", _LIFE, note="latentmill up")
        code = add_link(root, token, _LINK_LIFE)
    except StoreError as refused:
        yield {"pages": f"{address} (no key was made: {refused})"}
        return
    try:
        yield {"pages": f"{address}/login/{code}"}
    finally:
        with suppress(LatentmillError):
            revoke_key(root, key.id)
