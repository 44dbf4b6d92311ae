"""S3 responses that are truncated at any byte are never accepted as complete."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from generator.errors import StoreUnavailable
from generator.store import S3Settings, Store, open_store

_COMMON = b'HTTP/1.1 200 OK\r\nServer: S3\r\nETag: "etag"\r\nLast-Modified: Mon, 01 Jan 2026 00:00:00 GMT\r\n'
_ITEM = (
    "<Contents><Key>{}</Key><ETag>e</ETag><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
)


def with_body(body: bytes) -> bytes:
    return _COMMON + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def listing(prefix: str) -> bytes:
    items = "".join(_ITEM.format(f"{prefix}/{name}") for name in "ab")
    return with_body(f"<ListBucketResult>{items}<IsTruncated>false</IsTruncated></ListBucketResult>".encode())


class Handler(BaseHTTPRequestHandler):
    """Answers in raw bytes; the first answer for each key is truncated at the byte that the key names, and closed."""

    protocol_version = "HTTP/1.1"
    server: TruncatingServer

    def do(self) -> None:
        if self.headers.get("Expect"):
            self.server.waited.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = re.search(r"(?:get|head|put|list)-\d+", self.path)
        assert name is not None
        kind, _, cut = name[0].partition("-")
        whole = {"get": with_body(b"0123456789"), "list": listing(name[0])}.get(kind, with_body(b""))
        with self.server.lock:
            first = name[0] not in self.server.seen or self.server.always
            self.server.seen.add(name[0])
        self.wfile.write(whole[: int(cut)] if first else whole)
        self.close_connection = first

    do_GET = do_PUT = do_HEAD = do

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class TruncatingServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.lock, self.always = set[str](), threading.Lock(), False
        self.waited: list[str] = []


@pytest.fixture
def server() -> Iterator[TruncatingServer]:
    with TruncatingServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def store_of(server: TruncatingServer, attempts: int) -> Store:
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    given = {"endpoint_url": endpoint, "region": "us-east-1", "access_key": "a", "secret_key": "b"}
    return open_store("s3://some-bucket", S3Settings.model_validate(given | {"max_attempts": attempts}))


def ask_all(store: Store, lengths: dict[str, int], step: int) -> dict[str, object]:
    """The result of each request, by its key, which tells the server where to truncate."""
    asked: dict[str, Callable[[str], object]] = {
        "get": store.get,
        "head": lambda key: (info := store.head(key)) and (info.etag, info.size),
        "put": lambda key: store.create(key, b"x" * 100),
        "list": lambda key: [(info.key, info.size) for info in store.list(key)],
    }
    cuts = [(kind, f"{kind}-{cut}") for kind, length in lengths.items() for cut in range(0, length, step)]

    def ask(kind: str, key: str) -> object:
        try:
            return asked[kind](key)
        except StoreUnavailable as unavailable:
            return type(unavailable)

    with ThreadPoolExecutor(32) as pool:
        given = pool.map(lambda each: ask(*each), cuts)
    return dict(zip([key for _, key in cuts], given, strict=True))


# Without a body, the last line ends of a response may be missing.
LENGTHS = {
    "get": len(with_body(b"0123456789")),
    "head": len(with_body(b"")) - 5,
    "put": len(with_body(b"")) - 5,
    "list": len(listing("list-100")),
}


def test_a_truncated_answer_is_requested_again(server: TruncatingServer) -> None:
    expected: dict[str, object] = {"get": b"0123456789", "head": ('"etag"', 0), "put": '"etag"'}
    for key, given in ask_all(store_of(server, 3), LENGTHS, step=17).items():
        kind = key.partition("-")[0]
        assert given == (expected.get(kind) or [(f"{key}/a", 1), (f"{key}/b", 1)]), key
    assert server.waited == []  # botocore would wait forever for the rest of a truncated "100 Continue"


def test_an_answer_that_is_always_truncated_is_an_error(server: TruncatingServer) -> None:
    server.always = True
    assert set(ask_all(store_of(server, 1), LENGTHS, step=29).values()) == {StoreUnavailable}
