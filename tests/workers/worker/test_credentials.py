"""Credentials that expire under a worker: the shard waits, no attempt is counted, and after a stated time it is."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from generator.store import s3_credentials
from tests.support.fake_s3 import Dialect, FakeS3, fake_s3
from tests.support.services import ManualService
from workers.client import Client
from workers.settings import Settings
from workers.worker.ticket_handler import TicketHandler, open_ticket_handler


class Pool:
    """A client and a ticket handler on a server whose token stands in a file."""

    def __init__(self, bench: ManualService, server: FakeS3, home: Path, **more: Any) -> None:
        self.server, self.home, self.redis = server, home, bench.redis
        self.rotate("token-1")
        (home / "access").write_text("key-1")
        (home / "secret").write_text("secret")
        given = bench.settings.model_dump() | {
            "root": "s3://bucket/mill",
            "s3_endpoint_url": server.endpoint_url,
            "s3_region": "us-east-1",
            "s3_access_key_file": home / "access",
            "s3_secret_key_file": home / "secret",
            "s3_session_token_file": home / "token",
            "s3_max_attempts": 2,
        }
        self.settings = Settings(**given | more)
        self.client = Client(self.settings)
        spec = bench.spec() | {"destination": "s3://bucket/out", "name": f"tiny-{uuid.uuid4().hex[:8]}"}
        self.job = self.client.submit(spec).job
        self.handler: TicketHandler = open_ticket_handler(self.settings)
        self.handler.pool.identity.prefix()  # a worker reads it when it starts

    def rotate(self, token: str) -> None:
        draft = self.home / "draft"
        draft.write_text(token)
        draft.replace(self.home / "token")

    def serve(self) -> str:
        """Serve a ticket, as if every pause had passed."""
        self.handler._declined.clear()
        self.redis.delete(self._key("committing"))
        if waiting := self.redis.zrange(self._key("lease"), 0, -1):
            self.redis.zadd(self._key("lease"), dict.fromkeys(waiting, 0.0))
        self.handler.pool.ledger.free_expired(self.job, 5)
        return self.handler.serve().summary

    @property
    def faults(self) -> dict[bytes, bytes]:
        faults: dict[bytes, bytes] = self.redis.hgetall(self._key("tries"))
        return faults

    def _key(self, part: str) -> str:
        return f"{self.handler.pool.identity.prefix()}{part}:{self.job}"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    monkeypatch.setattr(s3_credentials, "WAIT_SECONDS", 0.3)
    with fake_s3(Dialect(keys={"key-1": "token-1"})) as server:
        yield server


def test_an_expired_token_costs_no_attempt(bench: ManualService, service: FakeS3, tmp_path: Path) -> None:
    pool = Pool(bench, service, tmp_path)
    assert "30 images" in pool.serve()
    service.dialect.keys = {"key-1": "token-2"}
    for _ in range(7):  # more often than a shard may fail
        assert "declined" in pool.serve()
    assert pool.faults == {}
    assert pool.handler.serve().summary == "nothing to do"  # it pauses
    service.dialect.keys = {"key-1": "token-1"}
    assert "ExpiredToken" in pool.client.status(pool.job).error
    service.dialect.keys = {"key-1": "token-2"}
    pool.rotate("token-2")
    assert "committed" in pool.serve()
    assert pool.client.status(pool.job).state == "committed"
    assert pool.faults == {}


def test_after_the_stated_time_it_is_a_fault(bench: ManualService, service: FakeS3, tmp_path: Path) -> None:
    pool = Pool(bench, service, tmp_path, s3_credentials_seconds=0.0)
    assert "30 images" in pool.serve()
    service.dialect.keys = {"key-1": "token-2"}
    said = [pool.serve() for _ in range(4)]
    assert all(line.startswith("postponed") and "ExpiredToken" in line for line in said), said
    assert list(pool.faults.values()) == [b"4"]


def test_a_worker_with_a_wrong_clock_leaves_jobs_to_others(
    bench: ManualService, service: FakeS3, tmp_path: Path
) -> None:
    pool = Pool(bench, service, tmp_path)
    service.dialect.skew = timedelta(hours=1)
    for _ in range(6):
        assert "a clock within 15 minutes" in pool.serve()
    assert pool.faults == {}
    service.dialect.skew = timedelta()
    pool.serve()
    assert "committed" in pool.serve()


def test_an_expired_token_does_not_end_a_commit(bench: ManualService, service: FakeS3, tmp_path: Path) -> None:
    pool = Pool(bench, service, tmp_path)
    pool.serve()
    finish = pool.handler._commit_claimed

    def expire(job: str) -> Any:
        service.dialect.keys = {"key-1": "token-2"}
        return finish(job)

    pool.handler._commit_claimed = expire  # type: ignore[method-assign]
    assert "declined" in pool.serve()
    for _ in range(6):
        assert "declined" in pool.serve()
    assert pool.faults == {}
    pool.rotate("token-2")
    assert "committed" in pool.serve()
