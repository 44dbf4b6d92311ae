"""Receivers of webhooks: real HTTP servers on loopback that behave as they are told, and remember what they got."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

Behaviour = Callable[[socket.socket], None]


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers each connection with ``behave``, after the request is read; ends with ``stop``."""

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
    """A whole answer without a body."""
    head = "\r\n".join((f"HTTP/1.1 {status} X", *lines, "content-length: 0", "connection: close", "", ""))
    return lambda connection: connection.sendall(head.encode())


def answer_endlessly(begin: bytes, again: bytes) -> Behaviour:
    """``begin``, then ``again`` until nobody listens any more."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(again)

    return behave


def answer_slowly(again: bytes) -> Behaviour:
    """``again`` every tenth of a second, so that no single read ever waits long."""

    def behave(connection: socket.socket) -> None:
        pause = threading.Event()
        while True:
            connection.sendall(again)
            pause.wait(0.1)

    return behave


def never_answer(connection: socket.socket) -> None:
    """Takes the request and says nothing, until the other side leaves."""
    while connection.recv(65536):
        pass
