"""An HTTP proxy before an S3 service that injects its faults: errors, lost and wrong responses, cut bodies.

A request is forwarded only after it was read completely (headers up to the empty line, body of the stated length), so
that an incomplete request never reaches the service, as with S3 itself.
"""

from __future__ import annotations

import http.client
import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any

_ANSWER_SECONDS = 60.0  # time limit of a response of the service
_HOP = {"connection", "transfer-encoding", "keep-alive", "expect"}


class Fault(StrEnum):
    """A fault of one request."""

    ERROR_500 = "500"  # not forwarded; InternalError
    SLOW_DOWN = "503"  # not forwarded; SlowDown
    DROPPED = "request lost"  # not forwarded; the connection is reset
    ANSWER_LOST = "answer lost"  # forwarded; the connection is reset instead of a response
    CUT = "body cut"  # forwarded; the connection is closed after half of the response's body
    LATE_412 = "late 412"  # forwarded; answered as if another client had written first
    LATE_409 = "late 409"  # forwarded; answered as if another client were writing
    TWICE = "twice"  # forwarded twice; the second response is returned
    SILENT = "silence"  # forwarded; no response, and the connection stays open
    FORBIDDEN = "403"  # not forwarded; AccessDenied


ERROR_FAULTS = tuple(fault for fault in Fault if fault not in (Fault.TWICE, Fault.FORBIDDEN))
_WRITES_ONLY = {Fault.LATE_412, Fault.LATE_409}
_REFUSALS = {
    Fault.ERROR_500: (500, "InternalError"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.FORBIDDEN: (403, "AccessDenied"),
    Fault.LATE_412: (412, "PreconditionFailed"),
    Fault.LATE_409: (409, "ConditionalRequestConflict"),
}


@dataclass(frozen=True)
class Request:
    """The request that a fault plan decides on; ``number`` counts the requests of a proxy."""

    number: int
    method: str
    path: str


FaultPlan = Callable[[Request], Fault | None]


def no_faults(_: Request) -> None:
    """Nothing fails."""


@dataclass(frozen=True)
class RandomFaults:
    """A fault plan: each fault has its chance at each request, drawn from ``seed`` and the request's number.

    A fault that is impossible for a request (a late 412 of a GET, a cut body of a PUT) becomes a 500, so that the
    chances hold for every kind of request.
    """

    seed: int
    chances: Mapping[Fault, float]

    def __call__(self, request: Request) -> Fault | None:
        draw = random.Random(f"{self.seed}/{request.number}").random()
        for fault, chance in self.chances.items():
            if draw < chance:
                return fault if _can_meet(fault, request) else Fault.ERROR_500
            draw -= chance
        return None


@dataclass
class OneFault:
    """A fault plan: one fault, with ``chance``, for requests whose path contains ``where``; at most ``most`` times."""

    fault: Fault
    chance: float
    seed: int = 0
    where: str = ""
    most: int = 10**9
    _met: int = field(default=0, init=False)

    def __call__(self, request: Request) -> Fault | None:
        if self._met >= self.most or self.where not in request.path or not _can_meet(self.fault, request):
            return None
        if random.Random(f"{self.seed}/{request.number}").random() >= self.chance:
            return None
        self._met += 1
        return self.fault


def _can_meet(fault: Fault, request: Request) -> bool:
    if fault in _WRITES_ONLY:
        return request.method == "PUT"
    return fault is not Fault.CUT or request.method == "GET"


class S3Proxy(ThreadingHTTPServer):
    """Listens on a loopback port and forwards requests to the port ``target``, with the faults of ``plan``.

    ``plan`` may be replaced at any time. ``counts`` holds the number of each injected fault, and of all ``requests``.
    """

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.plan: FaultPlan = no_faults
        self.counts: Counter[str] = Counter()
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Count a request; return its fault, if any."""
        with self._lock:
            fault = self.plan(Request(self.counts["requests"], method, path))
            self.counts["requests"] += 1
            if fault is not None:
                self.counts[fault] += 1
        return fault

    def stop(self) -> None:
        """Close all connections and stop the server."""
        self.stopped.set()
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def __enter__(self) -> S3Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection early."""


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Lines:
    """Wraps a connection's input and keeps the ``last`` line read, as the header parser accepts a premature end."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file, self.last = file, b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Proxy

    def setup(self) -> None:
        super().setup()
        self.lines = _Lines(self.rfile)
        self.rfile = self.lines  # type: ignore[assignment]

    def parse_request(self) -> bool:
        if super().parse_request() and self.lines.last in (b"\r\n", b"\n"):
            return True
        self.close_connection = True
        return False

    def _serve(self) -> None:
        body = self._body()
        fault = self.server.next_fault(self.command, self.path)
        if fault in (Fault.ERROR_500, Fault.SLOW_DOWN, Fault.FORBIDDEN):
            return self._refuse(fault)
        if fault is Fault.DROPPED:
            return self._reset()
        answer = self._passed_on(body)
        if fault is Fault.TWICE:
            answer = self._passed_on(body)
        if fault in _WRITES_ONLY and answer.status < 300:
            return self._refuse(fault)
        if fault is Fault.ANSWER_LOST:
            return self._reset()
        if fault is Fault.SILENT:
            return self._fall_silent()
        self._answer(answer, cut=fault is Fault.CUT)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) != length:
            raise ConnectionAbortedError("half a request")
        return body

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self._line().split(b";")[0], 16):
            found += self.rfile.read(size)
            self._line()
        while self._line().strip():
            pass
        return found

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise ConnectionAbortedError("half a request")
        return line

    def _passed_on(self, body: bytes) -> _Answer:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        headers |= {"Connection": "close", "Content-Length": str(len(body))}
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=_ANSWER_SECONDS)
        try:
            upstream.request(self.command, self.path, body=body, headers=headers)
            answer = upstream.getresponse()
            return _Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            upstream.close()

    def _answer(self, answer: _Answer, *, cut: bool) -> None:
        self.send_response_only(answer.status)
        named = {name.lower() for name, _ in answer.headers}
        for name, value in answer.headers:
            if name.lower() not in _HOP | ({"content-length"} if self.command != "HEAD" else set()):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        elif "content-length" not in named:
            self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        self.close_connection = self.close_connection or cut

    def _refuse(self, fault: Fault) -> None:
        status, code = _REFUSALS[fault]
        body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _fall_silent(self) -> None:
        """Send nothing until the client gives up, or ``_ANSWER_SECONDS`` have passed."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not self.server.stopped.is_set() and time.monotonic() < deadline:
            if select.select([self.connection], [], [], 0.1)[0]:
                break
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
