"""S3 faults over real sockets: wrong buckets or credentials, truncated bodies, slow and conflicting answers."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import socket
import struct
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from generator.errors import AccessDenied, AlreadyExists, BucketMissing, Changed, StoreError, StoreUnavailable
from generator.store import S3Settings, Store, open_store, s3_credentials
from generator.store.put_once import put_once

SECRET, TOKEN = "very-secret-key", "very-secret-token"
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Gives the next scripted answer for its method, and repeats the last one."""

    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.asked[self.command] += 1
            self.server.callers.add(self.client_address)
            answers = self.server.answers[self.command]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    do_GET = do_PUT = do_HEAD = do_DELETE = do

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class ScriptedServer(ThreadingHTTPServer):
    """A small HTTP server on a loopback port that gives scripted answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.asked: dict[str, int] = defaultdict(int)
        self.callers: set[object] = set()
        self.lock = threading.Lock()


def ok(body: bytes = b"", sent: int | None = None) -> Answer:
    """200 with ``body``, of which only ``sent`` bytes arrive before the connection is closed."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", '"etag"')
        handler.end_headers()
        handler.wfile.write(body[:sent])
        handler.close_connection = sent is not None

    return answer


def reset(handler: Handler) -> None:
    """Half an answer, then RST."""
    ok(b"0123456789", sent=5)(handler)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def silence(handler: Handler) -> None:
    """Half an answer, then silence for longer than the reader's time-out."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    handler.wfile.write(b"01234")
    threading.Event().wait(1.0)
    handler.close_connection = True


def refuse(status: int, code: str, message: str = "because") -> Answer:
    """An error in S3's XML."""

    def answer(handler: Handler) -> None:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/xml")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


@pytest.fixture(scope="module")
def one_server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def scripted(one_server: ScriptedServer) -> ScriptedServer:
    """The server, reset to no answers."""
    for memory in (one_server.answers, one_server.asked, one_server.callers):
        memory.clear()
    return one_server


def quick_settings(endpoint_url: str, max_attempts: int = 3, **more: object) -> S3Settings:
    return S3Settings.model_validate(
        {
            "endpoint_url": endpoint_url,
            "region": "us-east-1",
            "access_key": "an-access-key",
            "secret_key": SECRET,
            "session_token": TOKEN,
            "connect_timeout": 1,
            "read_timeout": 0.5,
            "max_attempts": max_attempts,
            **more,
        }
    )


def store_of(server: ScriptedServer, max_attempts: int = 3) -> Store:
    return open_store("s3://some-bucket/prefix", quick_settings(f"http://127.0.0.1:{server.server_port}", max_attempts))


@pytest.mark.parametrize("failure", [ok(b"0123456789", sent=5), ok(b"0123456789", sent=0), reset, silence])
def test_a_truncated_body_is_read_again(scripted: ScriptedServer, failure: Answer) -> None:
    scripted.answers["GET"] = [failure, failure, ok(b"0123456789")]
    assert store_of(scripted).get("a") == b"0123456789"
    assert scripted.asked["GET"] == 3


def test_a_body_that_is_always_truncated_is_an_error(scripted: ScriptedServer) -> None:
    scripted.answers["GET"] = [ok(b"0123456789", sent=5)]
    with pytest.raises(StoreUnavailable):
        store_of(scripted).get("a")
    assert scripted.asked["GET"] == 3
    with pytest.raises(StoreUnavailable):
        store_of(scripted).read("a", 0, 10)
    assert scripted.asked["GET"] == 6


@pytest.mark.parametrize(
    "failure",
    [refuse(503, "SlowDown"), refuse(409, "ConditionalRequestConflict"), refuse(500, "InternalError")],
)
def test_a_delayed_write_is_sent_again(scripted: ScriptedServer, failure: Answer) -> None:
    scripted.answers["PUT"] = [failure, failure, ok()]
    assert store_of(scripted).create("a", b"x") == '"etag"'
    assert scripted.asked["PUT"] == 3


def test_a_server_that_stays_slow_is_an_error(scripted: ScriptedServer) -> None:
    scripted.answers["PUT"] = [refuse(503, "SlowDown", "Please reduce your request rate.")]
    with pytest.raises(StoreUnavailable, match="SlowDown"):
        store_of(scripted, max_attempts=2).create("a", b"x")
    assert scripted.asked["PUT"] == 2
    scripted.answers["PUT"] = [refuse(409, "ConditionalRequestConflict")]
    with pytest.raises(StoreUnavailable, match="ConditionalRequestConflict"):
        store_of(scripted, max_attempts=2).replace("a", b"x", '"etag"')
    assert scripted.asked["PUT"] == 4


def test_a_retried_write_finds_its_own_object(scripted: ScriptedServer) -> None:
    """The retry gets 412 for the object of the first attempt; put_once reads it back and finds its own bytes."""

    def lost(handler: Handler) -> None:
        handler.connection.close()

    scripted.answers["PUT"] = [lost, refuse(412, "PreconditionFailed")]
    scripted.answers["GET"] = [ok(b"mine")]
    with pytest.raises(AlreadyExists):
        store_of(scripted).create("a", b"mine")
    scripted.answers["PUT"] = [lost, refuse(412, "PreconditionFailed")]
    assert put_once(store_of(scripted), "a", b"mine") is False


def test_a_412_is_typed_by_its_condition(scripted: ScriptedServer) -> None:
    scripted.answers["PUT"] = [refuse(412, "PreconditionFailed")]
    with pytest.raises(AlreadyExists):
        store_of(scripted).create("a", b"x")
    with pytest.raises(Changed):
        store_of(scripted).replace("a", b"x", '"etag"')
    scripted.answers["PUT"] = [refuse(404, "NoSuchKey")]
    with pytest.raises(Changed):
        store_of(scripted).replace("a", b"x", '"etag"')


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
        (403, "InvalidAccessKeyId"),
        (401, "Unauthorized"),
        (400, "ExpiredToken"),
        (400, "AuthorizationHeaderMalformed"),  # a wrong region
    ],
)
def test_refused_credentials_are_named_and_never_shown(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    monkeypatch.setattr(s3_credentials, "WAIT_SECONDS", 0.1)
    for method in ("GET", "PUT", "HEAD"):
        scripted.answers[method] = [refuse(status, code)]
    store = store_of(scripted)
    calls: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.create("a", b"x"),
        lambda: list(store.list()),
        lambda: list(store.children()),
        store.check_writable,
    ]
    for call in calls:
        with pytest.raises(AccessDenied, match=code) as refused:
            call()
        text = "".join(traceback.format_exception(refused.value)) + repr(refused.value.facts()) + repr(store)
        assert SECRET not in text
        assert TOKEN not in text


def test_a_service_without_conditional_writes_is_refused(scripted: ScriptedServer) -> None:
    scripted.answers.update({"PUT": [ok()], "DELETE": [ok()]})
    with pytest.raises(StoreUnavailable, match="If-None-Match"):
        store_of(scripted).check_writable()
    assert scripted.asked["DELETE"] == 1
    scripted.answers["PUT"] = [ok(), refuse(412, "PreconditionFailed"), ok()]
    with pytest.raises(StoreUnavailable, match="If-Match"):
        store_of(scripted).check_writable()
    assert scripted.asked["DELETE"] == 2


@pytest.mark.slow
def test_a_closed_port_is_no_answer() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"  # bound, but not listening
        store = open_store("s3://some-bucket", quick_settings(endpoint, max_attempts=2))
        for call in (lambda: store.get("a"), lambda: store.create("a", b"x"), lambda: list(store.list())):
            with pytest.raises(StoreUnavailable, match=re.escape(endpoint)):
                call()


def test_an_unknown_bucket_is_named(s3_settings: S3Settings) -> None:
    store = open_store("s3://nobody-made-this-bucket/prefix", s3_settings)
    calls: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.read("a", 0, 1),
        lambda: store.head("a"),
        lambda: store.create("a", b"x"),
        lambda: store.replace("a", b"x", '"etag"'),
        lambda: store.put("a", b"x"),
        lambda: store.delete("a"),
        lambda: list(store.list()),
        lambda: list(store.children()),
        store.check_writable,
    ]
    for call in calls:
        with pytest.raises(BucketMissing) as missing:
            call()
        assert missing.value.field == "s3://nobody-made-this-bucket"


def test_missing_credentials_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, s3_settings: S3Settings
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = open_store("s3://some-bucket", S3Settings(endpoint_url=s3_settings.endpoint_url, region="us-east-1"))
    with pytest.raises(AccessDenied, match="access_key"):
        store.get("a")


def test_foreign_objects_are_not_listed(bucket: str, s3_settings: S3Settings) -> None:
    from generator.store import s3_client

    foreign = ["p/", "p/a//b", "p/sub/", "p/with space", "p/.hidden", "p/.dir/x", "p/é", "p-/x"]
    for key in foreign:
        s3_client.client_of(s3_settings).put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=b"x")
    store = open_store(f"{bucket}/p", s3_settings)
    store.create("mine", b"x")
    assert [info.key for info in store.list()] == ["mine"]
    assert list(store.children()) == ["a", "sub"]


def test_a_list_goes_on_after_its_first_page(scripted: ScriptedServer) -> None:
    def page(key: str, rest: str) -> Answer:
        facts = "<ETag>&quot;e&quot;</ETag><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified>"
        contents = f"<Contents><Key>prefix/{key}</Key>{facts}</Contents>"
        return ok(f"<ListBucketResult>{contents}{rest}</ListBucketResult>".encode())

    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>"
    scripted.answers["GET"] = [page("a", more), page("b", "<IsTruncated>false</IsTruncated>")]
    assert [(info.key, info.size) for info in store_of(scripted).list()] == [("a", 1), ("b", 1)]


def test_checksums_can_be_left_out(bucket: str, s3_settings: S3Settings) -> None:
    store = open_store(bucket, s3_settings.model_copy(update={"checksums": "when_required"}))
    store.create("a", b"x")
    assert store.get("a") == b"x"


def test_a_spawned_process_reaches_the_same_objects(bucket: str, s3_settings: S3Settings) -> None:
    store = open_store(bucket, s3_settings)
    store.create("a", b"x")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(store.get, "a").result() == b"x"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_talks_over_its_own_connection(scripted: ScriptedServer) -> None:
    scripted.answers["GET"] = [ok(b"x")]
    store = store_of(scripted)
    assert store.get("a") == store.get("a") == b"x"
    assert len(scripted.callers) == 1  # the parent keeps its connection open
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(store.get, "a").result() == b"x"
    assert len(scripted.callers) == 2
    assert store.get("a") == b"x"
    assert len(scripted.callers) == 2


def test_errors_survive_pickling() -> None:
    error = StoreUnavailable("s3://b/k", "an answer", "none", "look")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, StoreError)
    assert copy.facts() == error.facts()
