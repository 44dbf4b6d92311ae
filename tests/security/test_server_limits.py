"""Limits of the server: large bodies, and clients that send or read slowly."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from generator.store import open_store
from tests.support.http_server import RunningServer, running_server
from tests.support.mill_server import MillServer, mill_server
from tests.support.multipart import multipart
from tests.support.servers import RedisServer
from workers.jobs import queries
from workers.server import limits


@pytest.fixture(scope="module")
def mill(server: RedisServer, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MillServer]:
    with mill_server(server, bundle, tmp_path_factory.mktemp("mill"), server_upload_bytes=2**20) as found:
        yield found


def head(method: str, path: str, token: str, **headers: object) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def exchange(web: RunningServer, *parts: bytes) -> bytes:
    """Send ``parts`` and read until the server closes; what was read."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=60.0) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has refused it before its end
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/v1/schedules/nightly", limits.MAX_BODY_BYTES),
        ("/api/v1/jobs/x/clone", limits.MAX_BODY_BYTES),
        ("/login", limits.MAX_BODY_BYTES),
        ("/api/v1/jobs", limits.MAX_SPEC_BODY_BYTES),
        ("/api/v1/preview", limits.MAX_SPEC_BODY_BYTES),
        ("/api/v1/bundles", 2**20),
    ],
)
def test_a_body_that_is_stated_to_be_too_large_is_refused_unread(mill: MillServer, path: str, limit: int) -> None:
    method = "PUT" if "schedules" in path else "POST"
    sent = head(method, path, mill.tokens["red-operator"], Content_Length=limit + 1, Content_Type="application/json")
    answer = exchange(mill.web, sent)  # not a byte of the body is sent
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
    assert b"problem+json" in answer


@pytest.mark.parametrize("stated", ["-1", "x", "1e9", "", "0x10", "99999999999999999999999999"])
def test_a_length_that_is_no_number_is_refused(mill: MillServer, stated: str) -> None:
    answer = exchange(mill.web, head("POST", "/api/v1/jobs", mill.tokens["red-operator"], Content_Length=stated))
    assert answer[9:12] in (b"400", b"413"), answer[:200]


def test_a_body_of_unstated_length_is_counted(mill: MillServer) -> None:
    before = mill.objects()
    sent = head(
        "PUT", "/api/v1/schedules/x", mill.tokens["red-operator"], Transfer_Encoding="chunked", Connection="close"
    )
    block = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = exchange(mill.web, sent, *[block] * 40)
    assert b"HTTP/1.1 413" in answer, answer[:200]
    assert mill.objects() == before


def test_an_upload_of_unstated_length_is_counted_and_leaves_nothing(mill: MillServer) -> None:
    before = mill.objects()
    kind = "multipart/form-data; boundary=x"
    sent = head("POST", "/api/v1/bundles", mill.tokens["red-submitter"], Transfer_Encoding="chunked", Content_Type=kind)
    part = b'--x\r\nContent-Disposition: form-data; name="decoder.safetensors"; filename="a"\r\n\r\n'
    block = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    answer = exchange(mill.web, sent, f"{len(part):x}\r\n".encode() + part + b"\r\n", *[block] * 40)
    assert b"HTTP/1.1 413" in answer, answer[:200]
    assert mill.objects() == before


def test_a_large_head_is_refused(mill: MillServer) -> None:
    answer = exchange(mill.web, head("GET", "/api/v1/self", "x" * 100_000))
    assert answer[9:12] in (b"400", b"431"), answer[:200]


def test_a_stranger_uploads_nothing(mill: MillServer) -> None:
    """Without a key the answer comes before the body."""
    for path, kind in (("/api/v1/bundles", "multipart/form-data; boundary=x"), ("/api/v1/jobs", "application/json")):
        sent = head("POST", path, "lm_no", Content_Length=900_000, Content_Type=kind, Connection="close")
        answer = exchange(mill.web, sent)
        assert answer.startswith(b"HTTP/1.1 401"), answer[:200]


def test_a_client_that_sends_no_head_is_closed(mill: MillServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.5)
    assert exchange(mill.web) == b""
    assert exchange(mill.web, b"GET / HTTP/1.1\r\nHost: localhost\r\n") == b""
    # A connection that is kept alive is closed when the next head does not come, or not in full.
    first = head("GET", "/api/v1/self", mill.tokens["red-reader"])
    with running_server(mill.service.settings, timeout_keep_alive=1) as web:
        for rest in ((), (b"GET /api",)):
            assert exchange(web, first, *rest).count(b"HTTP/1.1") == 1


def test_a_client_that_drips_its_head_is_closed(mill: MillServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.5)
    stop = threading.Event()
    with socket.create_connection(("127.0.0.1", mill.web.port), timeout=60.0) as connection:

        def drip() -> None:
            try:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
                while not stop.wait(0.05):
                    connection.sendall(b"a")
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        assert read_all(connection) == b""
        stop.set()
        thread.join()


def test_a_client_that_sends_its_body_slowly_is_refused(mill: MillServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.5)
    token, before = mill.tokens["red-operator"], mill.objects()
    for path, kind in (
        ("/api/v1/jobs", "application/json"),
        ("/api/v1/bundles", "multipart/form-data; boundary=x"),
        ("/login", "application/x-www-form-urlencoded"),
    ):
        sent = head("POST", path, token, Content_Length=1000, Content_Type=kind, Connection="close")
        answer = exchange(mill.web, sent, b"--x\r\n" if "multipart" in kind else b"{")
        assert b"HTTP/1.1 408" in answer, (path, answer[:300])
    assert mill.objects() == before


def test_slow_clients_do_not_hold_up_others(mill: MillServer) -> None:
    waiting = [socket.create_connection(("127.0.0.1", mill.web.port)) for _ in range(100)]
    try:
        for number, connection in enumerate(waiting):
            path = "/api/v1/jobs" if number % 2 else "/api/v1/bundles"
            connection.sendall(head("POST", path, mill.tokens["red-operator"], Content_Length=1000)[: 40 + number])
        assert mill.web.get("/api/v1/self", mill.tokens["red-reader"]).status == 200
    finally:
        for connection in waiting:
            connection.close()


def test_uploads_at_the_same_time_are_few(mill: MillServer) -> None:
    token, kind = mill.tokens["red-submitter"], "multipart/form-data; boundary=x"
    sent = head("POST", "/api/v1/bundles", token, Content_Length=1000, Content_Type=kind) + b"--x\r\n"
    waiting = [socket.create_connection(("127.0.0.1", mill.web.port)) for _ in range(2)]
    try:
        for connection in waiting:
            connection.sendall(sent)
        body, kind = multipart({"bundle.json": b"{}"})
        slots = mill.web.app.state.context.uploads
        until(lambda: slots.is_full)
        answer = mill.web.post("/api/v1/bundles", token, body=body, headers={"Content-Type": kind})
        assert (answer.status, answer.document["field"]) == (429, "uploads")
        assert mill.web.get("/api/v1/self", token).status == 200
    finally:
        for connection in waiting:
            connection.close()
    until(lambda: not slots.is_full)
    answer = mill.web.post("/api/v1/bundles", token, body=body, headers={"Content-Type": kind})
    assert answer.status == 422


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_queries_of_one_process_at_the_same_time_are_few(mill: MillServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_asking", threading.BoundedSemaphore(1))
    ledger = mill.service.ticket_handler.pool.ledger
    ledger.register_worker("nobody", 1, 60.0)
    draft = mill.body("POST", "/api/v1/preview")
    statuses: list[int] = []

    def look() -> None:
        statuses.append(mill.web.post("/api/v1/preview", mill.tokens["red-submitter"], draft).status)

    monkeypatch.setattr("workers.server.api.jobs.PREVIEW_SECONDS", 2.0)
    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.unregister_worker("nobody", 1)
    assert sorted(statuses) == [429, 429, 503]


def test_too_many_connections_are_told_to_come_back(mill: MillServer) -> None:
    with running_server(mill.service.settings, limit_concurrency=5) as web:
        waiting = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(8)]
        try:
            answer = exchange(web, head("GET", "/api/v1/health", "x", Connection="close"))
            assert answer.startswith(b"HTTP/1.1 503")
        finally:
            for connection in waiting:
                connection.close()


def test_a_client_that_reads_nothing_is_closed(mill: MillServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.5)
    ended = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        disconnected = False
        while not disconnected:
            await send({"type": "http.response.body", "body": b"a" * 65536, "more_body": True})
            if web_connections(web) == 0:
                disconnected = True
        ended.set()

    with running_server(mill.service.settings) as web:
        config = web._server.config
        config.loaded_app = limits.RequestLimits(endless, 2**20)
        connection = socket.create_connection(("127.0.0.1", web.port))
        connection.sendall(head("GET", "/", "x"))
        assert ended.wait(60.0)
        connection.close()


def web_connections(web: RunningServer) -> int:
    return len(web._server.server_state.connections)


def test_an_upload_keeps_nothing_that_is_not_whole(mill: MillServer) -> None:
    before, token = mill.objects(), mill.tokens["red-submitter"]
    store = open_store(mill.service.settings.root).at(f"bundles/{mill.bundle.removeprefix('sha256:')}")
    files = {info.key: store.get(info.key) for info in store.list()}
    document = json.loads(files["bundle.json"])
    altered = document | {"classes": ["cat", "dog", "mouse"]}
    wrong: dict[str, dict[str, bytes]] = {
        "no bundle.json": {name: data for name, data in files.items() if name != "bundle.json"},
        "a file is missing": {name: data for name, data in files.items() if name != "latents.safetensors"},
        "an altered byte": files | {"decoder.safetensors": files["decoder.safetensors"][:-1] + b"x"},
        "a truncated file": files | {"decoder.safetensors": files["decoder.safetensors"][:-1]},
        "an unknown file": files | {"run.pkl": b"\x80\x04."},
        "a path": files | {"../../keys/x.json": b"{}"},
        "another document": files | {"bundle.json": json.dumps(altered).encode()},
        "no JSON": files | {"bundle.json": b"{"},
        "nothing": {},
    }
    for name, parts in wrong.items():
        body, kind = multipart(parts)
        query = f"?digest={mill.bundle}"
        answer = mill.web.post("/api/v1/bundles" + query, token, body=body, headers={"Content-Type": kind})
        assert answer.status in (400, 404, 422), (name, answer.status, answer.body)
        assert str(mill.service.home) not in answer.body.decode()
        assert "/tmp" not in answer.body.decode()
    assert mill.objects() == before
    body, kind = multipart(files)
    assert mill.web.post("/api/v1/bundles", token, body=body, headers={"Content-Type": "text/plain"}).status == 415
    answer = mill.web.post("/api/v1/bundles", token, body=body, headers={"Content-Type": kind})
    assert (answer.status, answer.document) == (201, {"bundle": mill.bundle})
