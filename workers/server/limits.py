"""Limits on requests: bytes of a body, seconds for sending it and for taking the answer."""

from __future__ import annotations

import asyncio
import re
from typing import Any, final

import h11
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from generator.errors import SpecError
from workers.server.problems import Problem, problem_response

MAX_BODY_BYTES = 1024 * 1024
MAX_SPEC_BODY_BYTES = 16 * 1024 * 1024  # specs with images in base64
MAX_HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 10.0
BODY_SECONDS = 30.0
MIN_BYTES_PER_SECOND = 64 * 1024  # a body may take longer if it comes at least so fast
SEND_SECONDS = 60.0  # for a reader to take the next part of an answer
_UPLOADS = re.compile(r"/api/v1/bundles/?")
_SPECS = re.compile(r"/api/v1/(?:jobs|preview)/?")


@final
class RequestLimits:
    """Refuses bodies that are too large or come too slowly."""

    def __init__(self, app: ASGIApp, upload_bytes: int) -> None:
        self._app, self._upload_bytes = app, upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (size := _head_size(scope)) > MAX_HEADER_BYTES:
            error = SpecError("head", f"at most {MAX_HEADER_BYTES} bytes", f"{size} bytes")
            await problem_response(431, error, {"Connection": "close"})(scope, receive, send)
            return
        limit, stated = self._limit(scope), Headers(scope=scope).get("content-length", "0")
        if not stated.isdigit() or int(stated) > limit:
            await problem_response(413, _too_large(limit, stated), {"Connection": "close"})(scope, receive, send)
            return
        sender = _NotedSend(send)
        try:
            await self._app(scope, _BoundedReceive(receive, limit), sender)
        except Problem as slow_or_large:  # where the application does not read the body itself
            if sender.started:
                raise
            await problem_response(slow_or_large.status_code, slow_or_large.error)(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        if scope["method"] == "POST" and _UPLOADS.fullmatch(scope["path"]):
            return self._upload_bytes
        return MAX_SPEC_BODY_BYTES if _SPECS.fullmatch(scope["path"]) else MAX_BODY_BYTES


@final
class _BoundedReceive:
    """Counts the bytes of a body and the time that it takes. Raises ``Problem`` (413, 408)."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._bytes = receive, limit, 0
        self._begun: float | None = None
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()  # waits for the client to leave
        now = asyncio.get_running_loop().time()
        self._begun = now if self._begun is None else self._begun
        left = self._begun + BODY_SECONDS + self._bytes / MIN_BYTES_PER_SECOND - now
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, left))
        except TimeoutError as slow:
            error = SpecError("body", f"at least {MIN_BYTES_PER_SECOND} bytes a second", f"{self._bytes} bytes in all")
            raise Problem(408, error, {"Connection": "close"}) from slow
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._bytes > self._limit:
                raise Problem(413, _too_large(self._limit, "more"), {"Connection": "close"})
        return message


@final
class _NotedSend:
    """Knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.started = send, False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


@final
class TimedProtocol(H11Protocol):
    """HTTP/1.1 whose clients have ten seconds for the head of a request, also of one that never begins, and a minute
    for taking what waits for them of an answer."""

    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and self._waits_for_head():
            self._start_timer()
        super().data_received(data)
        if not self._waits_for_head():
            self._stop_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def _waits_for_head(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEADER_SECONDS, self._close_if_waiting)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _close_if_waiting(self) -> None:
        self._head_timer = None
        if self._waits_for_head() and not self.transport.is_closing():
            self.transport.abort()


def _head_size(scope: Scope) -> int:
    fields = sum(len(name) + len(value) for name, value in scope["headers"])
    return fields + len(scope.get("raw_path") or b"") + len(scope["query_string"])


def _too_large(limit: int, got: str) -> SpecError:
    return SpecError("body", f"at most {limit} bytes", f"{got} bytes" if got.isdigit() else got)
