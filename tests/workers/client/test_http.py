"""The client over HTTP against servers that are away, something else, or hostile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from generator.errors import (
    AccessRefused,
    BrokerUnavailable,
    JobFailed,
    LatentmillError,
    QuotaExceeded,
    ServerUnavailable,
    SpecError,
)
from workers.client import Client
from workers.client import http_connection as module

JOB = "tiny-0123456789ab"


class Fake(ThreadingHTTPServer):
    """Answers each request with ``answer``: status, headers, body. Notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Fake

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def problem(status: int, **facts: Any) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/problem+json"}, json.dumps(facts).encode()


@pytest.mark.parametrize("kind", [SpecError, QuotaExceeded, BrokerUnavailable, JobFailed, AccessRefused])
def test_a_problem_is_the_error_that_it_describes(fake: Fake, kind: type[LatentmillError]) -> None:
    fake.answer = problem(418, error=kind.__name__, field="a", expected="b", got="c", hint="d")
    with pytest.raises(kind) as raised:
        Client(fake.url, token="lm_x").status(JOB)
    assert raised.value.facts() == {"error": kind.__name__, "field": "a", "expected": "b", "got": "c", "hint": "d"}


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b""),
        (200, {}, b"<html>sign in</html>"),
        (200, {}, b"[]"),
        (200, {}, b'{"job": 5}'),
        (200, {}, b"[" * 100_000),
        (200, {}, b"\xff\xfe"),
        (200, {"Content-Encoding": "gzip"}, b"not gzip"),
        (500, {}, b"Traceback"),
        (502, {}, b"<html>Bad gateway</html>"),
        problem(500, error="SystemExit", field="x"),
        problem(500, error="Exception"),
        problem(500, error="__builtins__"),
        problem(500, error=["SpecError"]),
        problem(500, error=None),
        (301, {"Location": "http://127.0.0.1:1/"}, b""),
        (302, {"Location": "/elsewhere"}, b""),
    ],
    ids=str,
)
def test_what_is_no_answer_of_a_server_is_said_so(fake: Fake, answer: tuple[int, dict[str, str], bytes]) -> None:
    fake.answer = answer
    with pytest.raises(ServerUnavailable):
        Client(fake.url, token="lm_x").status(JOB)
    assert all(path == f"/api/v1/jobs/{JOB}" for _, path, _ in fake.asked)  # no redirect is followed


def test_an_answer_that_is_too_large_is_not_read(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)
    fake.answer = (200, {}, b'{"a": "' + b"x" * 2000 + b'"}')
    with pytest.raises(ServerUnavailable, match="1000 bytes"):
        Client(fake.url).status(JOB)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_said_so_whoever_refuses_it(fake: Fake, status: int) -> None:
    fake.answer = (status, {}, b"<html>a proxy</html>")
    with pytest.raises(AccessRefused):
        Client(fake.url, token="lm_x").status(JOB)


def test_names_of_jobs_stay_within_their_segment(fake: Fake) -> None:
    for job in ("../self", "a?b=c", "a#b", "a b", "ä"):
        with pytest.raises(ServerUnavailable):
            Client(fake.url).status(job)
    assert [path.count("/") for _, path, _ in fake.asked] == [4] * 5
    assert not any(character in path for _, path, _ in fake.asked for character in "?# ")


@pytest.mark.parametrize(
    "url",
    ["", "mill.example.org", "ftp://x", "https://user:secret@x", "https://x?token=secret", "https://x y", "file:///x"],
)
def test_a_url_that_is_none_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="server") as refused:
        Client(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["lm_x\r\nX-Evil: 1", "lm x", "lm_ä", "\0"])
def test_a_token_that_is_none_is_refused_and_not_shown(fake: Fake, token: str) -> None:
    with pytest.raises(SpecError, match="token") as refused:
        Client(fake.url, token=token)
    assert token not in str(refused.value)
    assert fake.asked == []


def test_settings_choose_the_server(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTMILL_SERVER_URL", fake.url)
    monkeypatch.setenv("LATENTMILL_TOKEN", "lm_from_settings")
    fake.answer = (200, {}, b'{"items": [], "next": null}')
    assert Client().jobs() == []
    assert fake.asked[-1][2]["Authorization"] == "Bearer lm_from_settings"
    assert Client(fake.url, token="lm_given").jobs() == []
    assert fake.asked[-1][2]["Authorization"] == "Bearer lm_given"
    assert "lm_given" not in repr(vars(Client(fake.url, token="lm_given")))
