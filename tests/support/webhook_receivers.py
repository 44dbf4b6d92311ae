"""Receivers of webhooks: real HTTP servers on loopback with a given behaviour; they record their requests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

Behaviour = Callable[[socket.socket], None]


@dataclass(frozen=True)
class ReceivedRequest:
    """One recorded request: its first line, headers by lower-case name, and body."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Reads one request from each connection, then calls ``behave`` with it; ``stop`` ends the server."""

    behave: Behaviour
    requests: list[ReceivedRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.port = int(self._server.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/hook?token=very-secret-token"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(30)

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(20)
                self.requests.append(_request(connection))
                self.behave(connection)


def _request(connection: socket.socket) -> ReceivedRequest:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return ReceivedRequest(line, headers, body)


def answer_with(status: int, *lines: str) -> Behaviour:
    """Send a complete response without a body."""
    head = "\r\n".join((f"HTTP/1.1 {status} X", *lines, "content-length: 0", "connection: close", "", ""))
    return lambda connection: connection.sendall(head.encode())


def answer_endlessly(first: bytes, repeated: bytes) -> Behaviour:
    """Send ``first``, then ``repeated`` until the client closes the connection."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(repeated)

    return behave


def answer_slowly(repeated: bytes) -> Behaviour:
    """Send ``repeated`` every tenth of a second, so that no single read times out."""

    def behave(connection: socket.socket) -> None:
        pause = threading.Event()
        while True:
            connection.sendall(repeated)
            pause.wait(0.1)

    return behave


def never_answer(connection: socket.socket) -> None:
    """Send nothing until the client closes the connection."""
    while connection.recv(65536):
        pass
