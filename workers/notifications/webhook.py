"""One POST to a receiver that may be slow, gone or hostile: it costs a few seconds and a few kilobytes, not more."""

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

READ_TIMEOUT, TOTAL_TIMEOUT = 10.0, 20.0


class DeliveryFailed(Exception):
    """The receiver did not take the message. ``gone``: it never wants another (HTTP 410)."""

    def __init__(self, why: str, *, gone: bool = False) -> None:
        super().__init__(why)
        self.gone = gone


def post(url: str, headers: Mapping[str, str], body: bytes, *, whole_seconds: float = TOTAL_TIMEOUT) -> None:
    """Send ``body``; raises ``Undelivered`` for any answer but 2xx.

    Of an answer only its status and headers are read, never the body, and redirects are not followed: a receiver cannot
    send us elsewhere. After ``whole_seconds`` the connection is cut, in whatever state it is.
    """
    connection = _new_connection(url)
    done = threading.Event()
    threading.Thread(
        target=_cut_after, args=(connection, done, whole_seconds), name="webhook-watch", daemon=True
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
        more = ", a redirect, which is not followed" if 300 <= status < 400 else ""
        raise DeliveryFailed(f"HTTP {status}{more}", gone=status == http.client.GONE)


def _new_connection(url: str) -> HTTPConnection:
    parts = parse_url(url)
    host, timeout = (parts.host or "").strip("[]"), READ_TIMEOUT
    if parts.scheme == "http":
        return HTTPConnection(host, parts.port, timeout=timeout)
    return HTTPSConnection(host, parts.port, timeout=timeout, ssl_context=ssl.create_default_context())


def _cut_after(connection: HTTPConnection, done: threading.Event, whole_seconds: float) -> None:
    """Cut the connection when its time is over, and again, as it may only be made by then."""
    pause = whole_seconds
    while not done.wait(pause):
        with suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)
        pause = 0.5
