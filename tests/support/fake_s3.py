"""A small S3 server on loopback, with objects in memory, that speaks the dialect that a test asks for.

It answers what stores ask: objects (with ranges and conditions), lists, buckets, unfinished uploads. Signatures are not
verified; the access key, the session token and the time of a request are.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from generator.store import S3Settings
from tests.support.served import served
from tests.support.tls import write_certificates

HOST = "s3.test"  # the host name of virtual style: buckets are hosts below it
_MAX_SKEW = timedelta(minutes=15)


@dataclass
class Dialect:
    """What a service does in its own way; by default as AWS does. May be changed while the server runs."""

    etags: str = "quoted"  # how they are answered: quoted, bare, weak
    if_match: str = "both"  # which form a condition is understood in: quoted, bare, both
    conditions: str = "honoured"  # or: unknown (501), unknown if-match (501 for replacements alone), ignored
    checksums: str = "accepted"  # or: refused (400 for headers and trailers of checksums), no trailers
    encryption: str | None = None  # the encryption that a write must ask for
    object_lock: bool = False  # writes need a checksum; deletions put markers
    undeletable: bool = False  # deletions are refused
    styles: tuple[str, ...] = ("path", "virtual")
    skew: timedelta = timedelta()  # of the server's clock
    keys: dict[str, str | None] = field(default_factory=lambda: {"key-1": None})  # access key -> its session token
    refused_keys: str = "InvalidAccessKeyId"  # the code for other access keys
    refused_token: str = "ExpiredToken"


@dataclass(frozen=True)
class _Object:
    data: bytes
    modified: datetime

    @property
    def etag(self) -> str:
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


class Refusal(Exception):
    """An error response."""

    def __init__(self, status: int, code: str, message: str = "because") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


class FakeS3(ThreadingHTTPServer):
    """The server; ``asked`` counts requests by method, ``refused`` error responses by code."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, dialect: Dialect, home: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dialect, self.home = dialect, home
        self.buckets: dict[str, dict[str, _Object]] = {}
        self.markers: set[tuple[str, str]] = set()  # deleted objects of which a version stays
        self.uploads: dict[str, tuple[str, str]] = {}  # upload id -> bucket, key
        self.asked: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.headers_seen: list[dict[str, str]] = []  # of writes, names in lower case
        self.lock, self.numbers = threading.RLock(), count(1)
        if home is not None:
            write_certificates(home, HOST, f"*.{HOST}")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(home / "server.pem", home / "server.key")
            # The handshake is left to the thread of the request.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def endpoint_url(self) -> str:
        return f"{'https' if self.home else 'http'}://127.0.0.1:{self.server_port}"

    @property
    def virtual_url(self) -> str:
        return f"{'https' if self.home else 'http'}://{HOST}:{self.server_port}"

    def settings(self, **more: object) -> S3Settings:
        """The settings of a store on this server; ``more`` replaces some."""
        ca_file = {"ca_file": self.home / "ca.pem"} if self.home else {}
        keys = {"access_key": "key-1", "secret_key": "secret-1"}
        given: dict[str, object] = {"endpoint_url": self.endpoint_url, "region": "us-east-1", "max_attempts": 2}
        return S3Settings.model_validate(given | ca_file | (keys if "access_key_file" not in more else {}) | more)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.dialect.skew

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that do not trust the certificate close the connection."""


@contextmanager
def fake_s3(dialect: Dialect | None = None, home: Path | None = None, bucket: str = "bucket") -> Iterator[FakeS3]:
    """A running server with one bucket; over TLS with certificates below ``home``, if given."""
    server = FakeS3(dialect or Dialect(), home)
    server.buckets[bucket] = {}
    with served(server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeS3

    def do(self) -> None:
        self.body = self._read_body()
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        try:
            with self.server.lock:
                self.server.asked[self.command] += 1
                self.style, self.bucket, self.key = self._place(unquote(parts.path).lstrip("/"))
                self._check_caller()
                self._answer()
        except Refusal as refused:
            self.server.refused[refused.code] += 1
            xml = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            self._send(refused.status, xml.encode())

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = do

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.server.now(), usegmt=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    # What every request passes

    def _place(self, path: str) -> tuple[str, str, str]:
        host = self.headers["Host"].rpartition(":")[0]
        if host.endswith(f".{HOST}"):
            style, bucket, key = "virtual", host.removesuffix(f".{HOST}"), path
        else:
            style, (bucket, _, key) = "path", path.partition("/")
        if style not in self.server.dialect.styles:
            raise Refusal(403, "SecondLevelDomainForbidden", f"buckets are not addressed by {style} here")
        return style, bucket, key

    def _check_caller(self) -> None:
        dialect, signed = self.server.dialect, self.headers.get("Authorization", "")
        key = signed.partition("Credential=")[2].partition("/")[0]
        asked = datetime.strptime(self.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(asked - self.server.now()) > _MAX_SKEW:
            raise Refusal(403, "RequestTimeTooSkewed", "The difference between the request time and ours is too large.")
        if key not in dialect.keys:
            raise Refusal(403, dialect.refused_keys)
        if self.headers.get("X-Amz-Security-Token") != dialect.keys[key]:
            raise Refusal(400, dialect.refused_token, "The provided token has expired.")
        if dialect.checksums == "refused" and any(name.lower().startswith(_CHECKSUM_HEADERS) for name in self.headers):
            raise Refusal(400, "InvalidArgument", "Unsupported header")
        if dialect.checksums == "no trailers" and "X-Amz-Trailer" in self.headers:
            raise Refusal(400, "InvalidRequest", "STREAMING-UNSIGNED-PAYLOAD-TRAILER is not supported")

    def _answer(self) -> None:
        if not self.bucket:
            return self._send(200, b"<ListAllMyBucketsResult/>")
        if not self.key and self.command == "PUT":
            self.server.buckets.setdefault(self.bucket, {})
            return self._send(200)
        if self.bucket not in self.server.buckets:
            raise Refusal(404, "NoSuchBucket")
        self.objects = self.server.buckets[self.bucket]
        if not self.key:
            return self._list_uploads() if "uploads" in self.query else self._list()
        if "uploads" in self.query or "uploadId" in self.query:
            return self._change_uploads()
        return {"GET": self._get, "HEAD": self._get, "PUT": self._put, "DELETE": self._delete}[self.command]()

    # Objects

    def _get(self) -> None:
        found = self.objects.get(self.key)
        if found is None:
            raise Refusal(404, "NoSuchKey")
        if "If-Match" in self.headers and not self._matches(found):
            raise Refusal(412, "PreconditionFailed")
        data, status = found.data, 200
        headers = {"ETag": self._etag(found), "Last-Modified": format_datetime(found.modified, usegmt=True)}
        if span := self.headers.get("Range"):
            first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
            if first >= len(data):
                raise Refusal(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            data, status = data[first : last + 1], 206
        self._send(status, data, headers)

    def _put(self) -> None:
        dialect, before = self.server.dialect, self.objects.get(self.key)
        self.server.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
        self._check_sum()
        if dialect.encryption and self.headers.get("X-Amz-Server-Side-Encryption") != dialect.encryption:
            raise Refusal(403, "AccessDenied", "with an explicit deny in a resource-based policy")
        conditional = [name for name in ("If-None-Match", "If-Match") if name in self.headers]
        unknown = {"unknown": ("If-None-Match", "If-Match"), "unknown if-match": ("If-Match",)}
        if any(name in unknown.get(dialect.conditions, ()) for name in conditional):
            raise Refusal(501, "NotImplemented", "A header you provided implies functionality that is not implemented.")
        if dialect.conditions != "ignored":
            if "If-None-Match" in conditional and before is not None:
                raise Refusal(412, "PreconditionFailed")
            if "If-Match" in conditional and before is None:
                raise Refusal(404, "NoSuchKey")
            if "If-Match" in conditional and before is not None and not self._matches(before):
                raise Refusal(412, "PreconditionFailed")
        written = self.objects[self.key] = _Object(self.body, self.server.now().replace(microsecond=0))
        versions = {"x-amz-version-id": f"v{next(self.server.numbers)}"} if dialect.object_lock else {}
        self._send(200, headers={"ETag": self._etag(written)} | versions)

    def _delete(self) -> None:
        if self.server.dialect.undeletable:
            raise Refusal(403, "AccessDenied", "the object is locked")
        marker = self.server.dialect.object_lock and self.objects.pop(self.key, None) is not None
        if marker:
            self.server.markers.add((self.bucket, self.key))
        self.objects.pop(self.key, None)
        self._send(204, headers={"x-amz-delete-marker": "true"} if marker else {})

    def _check_sum(self) -> None:
        """Compare the checksums of a request with its body, as far as there are any."""
        crc = base64.b64encode(zlib.crc32(self.body).to_bytes(4, "big")).decode()
        md5 = base64.b64encode(hashlib.md5(self.body, usedforsecurity=False).digest()).decode()
        sums = {"crc": (self.headers.get("X-Amz-Checksum-Crc32") or self.trailers.get("x-amz-checksum-crc32"), crc)}
        sums["md5"] = (self.headers.get("Content-MD5"), md5)
        if any(stated not in (None, right) for stated, right in sums.values()):
            raise Refusal(400, "BadDigest")
        if self.server.dialect.object_lock and not any(stated for stated, _ in sums.values()):
            raise Refusal(
                400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required with Object Lock"
            )

    def _matches(self, found: _Object) -> bool:
        wanted = self.headers["If-Match"]
        accepted = {"quoted": [f'"{found.etag}"'], "bare": [found.etag], "both": [f'"{found.etag}"', found.etag]}
        return wanted in accepted[self.server.dialect.if_match]

    def _etag(self, found: _Object) -> str:
        return {"quoted": f'"{found.etag}"', "bare": found.etag, "weak": f'W/"{found.etag}"'}[self.server.dialect.etags]

    # Lists and uploads

    def _list(self) -> None:
        if self.command == "HEAD":
            return self._send(200)
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        most, after = int(self.query.get("max-keys", 1000)), self.query.get("continuation-token", "")
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        xml, common, rest = "", set[str](), keys[most:]
        for key in keys[:most]:
            inner = key.removeprefix(prefix)
            if delimiter and delimiter in inner:
                common.add(prefix + inner.partition(delimiter)[0] + delimiter)
                continue
            found = self.objects[key]
            xml += f"<Contents><Key>{escape(key)}</Key><Size>{len(found.data)}</Size>"
            xml += f"<ETag>{escape(self._etag(found))}</ETag>"
            xml += f"<LastModified>{found.modified:%Y-%m-%dT%H:%M:%SZ}</LastModified></Contents>"
        xml += "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(common))
        more = f"<NextContinuationToken>{escape(keys[most - 1])}</NextContinuationToken>" if rest else ""
        xml += f"<IsTruncated>{str(bool(rest)).lower()}</IsTruncated>{more}"
        self._send(200, f"<ListBucketResult>{xml}</ListBucketResult>".encode())

    def _list_uploads(self) -> None:
        prefix = self.query.get("prefix", "")
        xml = "".join(
            f"<Upload><Key>{escape(key)}</Key><UploadId>{name}</UploadId><Initiated>2026-01-01T00:00:00Z</Initiated></Upload>"
            for name, (bucket, key) in self.server.uploads.items()
            if bucket == self.bucket and key.startswith(prefix)
        )
        self._send(200, f"<ListMultipartUploadsResult>{xml}</ListMultipartUploadsResult>".encode())

    def _change_uploads(self) -> None:
        uploads, name = self.server.uploads, self.query.get("uploadId", "")
        if "uploads" in self.query:
            name = f"upload-{next(self.server.numbers)}"
            uploads[name] = (self.bucket, self.key)
            xml = f"<UploadId>{name}</UploadId><Bucket>{self.bucket}</Bucket><Key>{escape(self.key)}</Key>"
            return self._send(200, f"<InitiateMultipartUploadResult>{xml}</InitiateMultipartUploadResult>".encode())
        if uploads.pop(name, None) is None:
            raise Refusal(404, "NoSuchUpload")
        return self._send(204)

    # HTTP

    def _read_body(self) -> bytes:
        self.trailers: dict[str, str] = {}
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = self._chunks()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return body
        data, rest = b"", body
        while size := int(rest.partition(b"\r\n")[0].partition(b";")[0], 16):
            rest = rest.partition(b"\r\n")[2]
            data, rest = data + rest[:size], rest[size + 2 :]
        for line in rest.split(b"\r\n")[1:]:
            if line:
                name, _, value = line.decode().partition(":")
                self.trailers[name.lower()] = value.strip()
        return data

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(body)


_CHECKSUM_HEADERS = ("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer")
