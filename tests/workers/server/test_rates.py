"""Rates: refused keys are counted by address and by key, and stop nobody who has a key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from generator.errors import AccessRefused, SettingsError
from generator.store import open_store
from generator.store.base import MAX_OBJECT_BYTES, ObjectInfo
from tests.support.broken_stores import WrappedStore
from tests.support.http_server import Answer, RunningServer, running_server
from workers.server.access.keys import KeyRing, add_key, revoke_key
from workers.server.headers import trusted_proxies
from workers.settings import Settings

HOUR = timedelta(hours=1)
BURST = 20


@pytest.fixture
def web(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(Settings(root=str(tmp_path / "root"))) as found:
        yield stop_clock(found)


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(Settings(root=str(tmp_path / "root"), server_proxies="127.0.0.0/8, ::1")) as found:
        yield stop_clock(found)


def stop_clock(web: RunningServer) -> RunningServer:
    """What was refused stays counted, however slow this machine is."""
    context = web.app.state.context
    context.failures._clock = context.guesses._clock = lambda: 1000.0
    return web


def guess(number: int) -> str:
    return f"lm_{number:016x}_{'x' * 43}"


def fail(web: RunningServer, count: int, **headers: str) -> list[int]:
    """Ask with ``count`` keys that there are not; returns the answers' statuses."""
    return [web.get("/api/v1/self", guess(number), headers=headers).status for number in range(count)]


def sign_in(web: RunningServer, token: str, **headers: str) -> Answer:
    sent = {"Content-Type": "application/x-www-form-urlencoded"} | headers
    return web.post("/login", body=urlencode({"token": token}).encode(), headers=sent)


def test_a_key_that_the_server_has_not_met_is_accepted_in_the_midst_of_a_burst(web: RunningServer) -> None:
    token = web.token()
    statuses = fail(web, BURST + 15)
    assert statuses[:BURST] == [401] * BURST
    assert 429 in statuses[BURST:]
    assert web.get("/api/v1/self", token).status == 200
    assert sign_in(web, token).status == 303
    refused = sign_in(web, guess(1))
    assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (429, True)


def test_wrong_parts_of_a_known_key_are_counted_and_the_right_one_is_accepted(web: RunningServer) -> None:
    token = web.token()
    wrong = [token[:-2] + f"{number:02x}" for number in range(BURST + 15)]
    statuses = [web.get("/api/v1/self", each).status for each in wrong if each != token]
    assert (statuses[0], statuses[-1]) == (401, 429)
    assert web.get("/api/v1/self", token).status == 200


def test_sign_ins_that_fail_do_not_hold_up_a_link_nor_the_other_way_round(web: RunningServer) -> None:
    for _ in range(BURST + 15):
        answer = web.post("/login/" + "x" * 43, headers={"Origin": web.url})
    assert answer.status == 429
    assert sign_in(web, web.token()).status == 303
    assert web.get("/api/v1/self", guess(1)).status == 401


def test_the_address_is_that_of_the_connection_unless_a_proxy_is_named(web: RunningServer) -> None:
    for number in range(BURST + 15):
        status = web.get("/api/v1/self", guess(number), headers={"X-Forwarded-For": f"10.0.0.{number}"}).status
    assert status == 429
    answer = web.get("/login", headers={"X-Forwarded-Proto": "https"})
    assert "strict-transport-security" not in answer.headers


def test_behind_a_proxy_that_is_named_addresses_are_counted_apart(proxied: RunningServer) -> None:
    token = proxied.token()
    assert fail(proxied, BURST + 15, **{"X-Forwarded-For": "10.0.0.1"})[-1] == 429
    assert fail(proxied, 1, **{"X-Forwarded-For": "10.0.0.2"}) == [401]
    assert fail(proxied, 1, **{"X-Forwarded-For": "10.0.0.2, 10.0.0.1"}) == [429]  # what the proxy itself added counts
    for address in ("10.0.0.1", "10.0.0.2"):
        assert proxied.get("/api/v1/self", token, headers={"X-Forwarded-For": address}).status == 200
        assert sign_in(proxied, token, **{"X-Forwarded-For": address}).status == 303
    answer = proxied.get("/login", headers={"X-Forwarded-Proto": "https"})
    assert "strict-transport-security" in answer.headers


@pytest.mark.parametrize("proxies", ["*", "proxy.example", "10.0.0.0/99", "10.0.0.1;10.0.0.2"])
def test_proxies_are_addresses(proxies: str) -> None:
    with pytest.raises(SettingsError, match="LATENTMILL_SERVER_PROXIES"):
        trusted_proxies(Settings(server_proxies=proxies))
    assert trusted_proxies(Settings()) == []


class Counted(WrappedStore):
    """Counts the keys that are read, and the lists that are made."""

    reads = lists = 0

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        self.reads += 1
        return super().get(key, limit)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.lists += 1
        return super().list(prefix)


def test_guesses_in_a_burst_ask_the_store_next_to_nothing(tmp_path: Path) -> None:
    inner = open_store(str(tmp_path))
    root, now = Counted(inner), [1000.0]
    tokens = [add_key(inner, "red", "reader", HOUR)[1] for _ in range(3)]
    ring = KeyRing(lambda: root, lambda: now[0])
    for number in range(500):
        with pytest.raises(AccessRefused):
            ring.check(guess(number), sparing=True)
    assert (root.reads, root.lists) == (0, 1)
    assert [ring.check(token, sparing=True).tenant for token in tokens] == ["red"] * 3
    late_key, late = add_key(inner, "red", "reader", HOUR)
    now[0] += 1.0
    assert ring.check(late, sparing=True) == late_key
    revoke_key(inner, late_key.id)
    now[0] += 4.0
    with pytest.raises(AccessRefused, match="revoked"):
        ring.check(late, sparing=True)
