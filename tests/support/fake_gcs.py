"""A small server on loopback that speaks the XML API of Google Cloud Storage, with objects in memory.

It answers what stores ask: objects with ranges, conditions on generations, and lists. Nobody has to sign.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.served import served


@dataclass(frozen=True)
class _Object:
    data: bytes
    generation: int
    kind: str
    modified: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


class FakeGcs(ThreadingHTTPServer):
    """The server. ``honours_conditions``: set it to ``False`` for one that ignores them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets: dict[str, dict[str, _Object]] = {}
        self.lock, self.generations = threading.RLock(), count(1000)
        self.honours_conditions, self.page = True, 1000

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def fake_gcs() -> Iterator[FakeGcs]:
    """A running server without buckets."""
    server = FakeGcs()
    with served(server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeGcs

    def do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # the writer was killed
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        with self.server.lock:
            objects = self.server.buckets.get(bucket)
            if objects is None:
                self._refuse(404, "NoSuchBucket")
            elif not key:
                self._list(objects, query)
            elif self.command == "PUT":
                self._put(objects, key, body)
            elif self.command == "DELETE":
                self._send(204) if objects.pop(key, None) else self._refuse(404, "NoSuchKey")
            else:
                self._get(objects.get(key))

    do_GET = do_PUT = do_HEAD = do_DELETE = do

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _put(self, objects: dict[str, _Object], key: str, body: bytes) -> None:
        wanted, before = self.headers.get("x-goog-if-generation-match"), objects.get(key)
        if wanted is not None and self.server.honours_conditions:
            current = 0 if before is None else before.generation
            if int(wanted) != current:
                return self._refuse(412, "PreconditionFailed")
        kind, now = self.headers.get("Content-Type", ""), datetime.now(UTC)
        written = objects[key] = _Object(body, next(self.server.generations), kind, now)
        self._send(200, headers=self._facts(written))

    def _get(self, found: _Object | None) -> None:
        if found is None:
            return self._refuse(404, "NoSuchKey")
        if self.headers.get("If-Match") not in (None, found.etag):
            return self._refuse(412, "PreconditionFailed")
        data, status, headers = found.data, 200, self._facts(found)
        if span := self.headers.get("Range"):
            first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
            if first >= len(data):
                return self._refuse(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            data, status = data[first : last + 1], 206
        self._send(status, data, headers)

    def _list(self, objects: dict[str, _Object], query: dict[str, str]) -> None:
        prefix, delimiter, after = (query.get(name, "") for name in ("prefix", "delimiter", "continuation-token"))
        keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
        most = min(self.server.page, int(query.get("max-keys", self.server.page)))
        xml, common = "", set[str]()
        for key in keys[:most]:
            inner = key.removeprefix(prefix)
            if delimiter and delimiter in inner:
                common.add(prefix + inner.partition(delimiter)[0] + delimiter)
                continue
            found = objects[key]
            xml += f"<Contents><Key>{escape(key)}</Key><Size>{len(found.data)}</Size><ETag>{escape(found.etag)}</ETag>"
            xml += f"<LastModified>{found.modified:%Y-%m-%dT%H:%M:%S.%fZ}</LastModified></Contents>"
        xml += "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(common))
        if keys[most:]:
            xml += f"<NextContinuationToken>{escape(keys[most - 1])}</NextContinuationToken>"
        self._send(200, f"<ListBucketResult>{xml}</ListBucketResult>".encode())

    def _facts(self, found: _Object) -> dict[str, str]:
        modified = format_datetime(found.modified, usegmt=True)
        return {
            "ETag": found.etag,
            "x-goog-generation": str(found.generation),
            "Last-Modified": modified,
            "Content-Type": found.kind,
        }

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code><Message>because</Message></Error>".encode())

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
