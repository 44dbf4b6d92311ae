"""One HTTP POST to a receiver that may be slow, gone or hostile, with bounded time and memory."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

READ_TIMEOUT, TOTAL_TIMEOUT = 10.0, 20.0  # seconds


class DeliveryFailed(Exception):
    """The receiver did not accept the message. ``gone``: it wants no further messages (HTTP 410)."""

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


def post(url: str, headers: Mapping[str, str], body: bytes, *, total_timeout: float = TOTAL_TIMEOUT) -> None:
    """Send ``body``. Raises ``DeliveryFailed`` for any response but 2xx.

    Only the status and headers of a response are read, never its body. Redirects are not followed, so that a receiver
    cannot redirect us to another host. After ``total_timeout`` seconds the connection is shut down in any state.
    """
    connection = _new_connection(url)
    done = threading.Event()
    threading.Thread(
        target=_shut_down_after, args=(connection, done, total_timeout), name="webhook-watch", daemon=True
    ).start()
    try:
        path = parse_url(url).request_uri
        connection.request("POST", path, body=body, headers=headers, preload_content=False, decode_content=False)
        status = connection.getresponse().status
    except (HTTPError, OSError, http.client.HTTPException, ValueError) as failed:
        raise DeliveryFailed(f"{type(failed).__name__}: {failed}"[:300]) from failed
    finally:
        done.set()
        connection.close()
    if not 200 <= status < 300:
        note = ", a redirect, which is not followed" if 300 <= status < 400 else ""
        raise DeliveryFailed(f"HTTP {status}{note}", gone=status == http.client.GONE)


def _new_connection(url: str) -> HTTPConnection:
    parts = parse_url(url)
    host, timeout = (parts.host or "").strip("[]"), READ_TIMEOUT
    if parts.scheme == "http":
        return HTTPConnection(host, parts.port, timeout=timeout)
    return HTTPSConnection(host, parts.port, timeout=timeout, ssl_context=ssl.create_default_context())


def _shut_down_after(connection: HTTPConnection, done: threading.Event, timeout: float) -> None:
    """Shut the connection down after ``timeout`` seconds, repeatedly, as it may be established only after that."""
    pause = timeout
    while not done.wait(pause):
        with suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)
        pause = 0.5
