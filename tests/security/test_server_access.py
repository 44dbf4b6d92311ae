"""Every route of the server: without a key, with an expired, a revoked, another tenant's, and a reader's."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from generator.store import open_store
from tests.support.mill_server import MillServer, forget_failures, mill_server
from tests.support.servers import RedisServer
from workers.server.access.keys import add_key, revoke_key

PUBLIC = {("GET", "/api/v1/health")}
PAGES = ("/", "/login", "/static/style.css")


def test_the_routes_are_those_that_are_tried_here(mill: MillServer) -> None:
    assert len(mill.routes()) >= 35
    assert set(mill.routes()) >= PUBLIC


def test_no_route_answers_without_a_key(mill: MillServer) -> None:
    before = mill.objects()
    for method, template in mill.routes():
        answer = mill.web.ask(method, mill.path(template), document=mill.body(method, template))
        if (method, template) in PUBLIC:
            assert answer.status == 200
            continue
        assert answer.status == 401, (method, template, answer.body)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.document["error"] == "AccessRefused"
    assert mill.objects() == before


@pytest.mark.parametrize("kind", ["expired", "revoked", "altered", "no token", "of another root", "basic"])
def test_no_route_answers_to_a_key_that_is_not_live(mill: MillServer, kind: str, tmp_path: Path) -> None:
    root, hour = open_store(mill.service.settings.root), timedelta(hours=1)
    key, token = add_key(root, "red", "operator", hour)
    if kind == "expired":
        token = add_key(root, "red", "operator", hour, now=datetime.now(UTC) - 2 * hour)[1]
    elif kind == "revoked":
        revoke_key(root, key.id)
    elif kind == "altered":
        token = token[:-1] + ("A" if token[-1] != "A" else "B")
    elif kind == "no token":
        token = "red"
    elif kind == "of another root":
        token = add_key(open_store(str(tmp_path)), "red", "operator", hour)[1]
    scheme = "Basic" if kind == "basic" else "Bearer"
    for method, template in mill.routes():
        forget_failures(mill)
        headers = {"Authorization": f"{scheme} {token}"}
        answer = mill.web.ask(method, mill.path(template), document=mill.body(method, template), headers=headers)
        assert answer.status == 401 or (method, template) in PUBLIC, (method, template, answer.body)
        assert token.encode() not in answer.body or len(token) < 10
    forget_failures(mill)


def test_a_reader_changes_nothing(mill: MillServer) -> None:
    before = mill.objects()
    for method, template in mill.routes():
        token = mill.tokens["red-reader"]
        answer = mill.web.ask(method, mill.path(template), token, mill.body(method, template))
        if method == "GET":
            assert answer.status in (200, 404), (template, answer.body)
        else:
            assert answer.status == 403, (method, template, answer.body)
            assert answer.document["field"] == "role"
    assert mill.objects() == before


def test_a_submitter_does_not_decide_what_readers_get(mill: MillServer) -> None:
    before = mill.objects()
    decisions = ("promote", "rollback", "pin", "/channels", "/schedules")
    tried = 0
    for method, template in mill.routes():
        if method != "GET" and any(word in template for word in decisions):
            tried += 1
            answer = mill.web.ask(
                method, mill.path(template), mill.tokens["red-submitter"], mill.body(method, template)
            )
            assert answer.status == 403, (method, template, answer.body)
    assert tried >= 10
    assert mill.objects() == before


def test_nothing_of_another_tenant_is_seen_or_changed(mill: MillServer) -> None:
    before, own = mill.objects(), ("/health", "/self", "/openapi.json")
    for method, template in mill.routes():
        answer = mill.web.ask(method, mill.path(template), mill.tokens["green-operator"], mill.body(method, template))
        if template.endswith(own):
            continue
        if method == "GET" and "{" not in template:
            assert answer.status == 200
            assert answer.document["items"] == [], template
        else:
            assert answer.status in (403, 404, 415, 422), (method, template, answer.body)
        texts = answer.body.decode()
        for secret in (str(mill.service.home), "blue"):
            assert secret not in texts, (method, template, texts)
    assert mill.objects() == before


def test_what_is_of_another_tenant_looks_like_what_does_not_exist(mill: MillServer) -> None:
    token = mill.tokens["blue-operator"]
    for known, unknown in {
        f"/api/v1/jobs/{mill.status.job}": "/api/v1/jobs/tiny-000000000000",
        "/api/v1/channels/red-line": "/api/v1/channels/no-line",
        "/api/v1/schedules/nightly": "/api/v1/schedules/nothing",
        mill.build + "/manifest": mill.build.replace("red/tiny", "redd/tiny") + "/manifest",
    }.items():
        first, second = mill.web.get(known, token), mill.web.get(unknown, token)
        assert first.status == second.status
        wanted = known.rpartition("/")[2] if "datasets" not in known else "red/tiny"
        other = unknown.rpartition("/")[2] if "datasets" not in known else "redd/tiny"
        assert first.body.replace(wanted.encode(), b"X") == second.body.replace(other.encode(), b"X")


def test_the_tenant_of_a_job_is_that_of_the_key(mill: MillServer) -> None:
    draft = mill.body("POST", "/api/v1/jobs") | {"tenant": "blue", "seed": 77, "name": "whose"}
    answer = mill.web.post("/api/v1/jobs", mill.tokens["red-submitter"], draft)
    assert (answer.status, answer.document["tenant"]) == (202, "red")
    assert mill.service.client.status(answer.document["job"]).tenant == "red"
    schedule = {"tenant": "blue", "cron": "0 5 * * *", "job": mill_job()}
    mill.web.ask("PUT", "/api/v1/schedules/whose", mill.tokens["red-operator"], schedule)
    assert mill.web.get("/api/v1/schedules/whose", mill.tokens["blue-reader"]).status == 404
    assert mill.web.get("/api/v1/schedules/whose", mill.tokens["red-reader"]).status == 200


def mill_job() -> dict[str, object]:
    return {"channel": "red-line", "count": 30, "destination": "red", "name": "whose"}


def test_a_revoked_key_is_refused_within_ten_seconds(mill: MillServer) -> None:
    root = open_store(mill.service.settings.root)
    key, token = add_key(root, "red", "reader", timedelta(hours=1))
    assert mill.web.get("/api/v1/self", token).status == 200
    revoke_key(root, key.id)
    deadline = time.monotonic() + 10.0
    while mill.web.get("/api/v1/self", token).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_guessing_keys_is_slowed_down_and_does_not_hold_up_others(mill: MillServer) -> None:
    assert mill.web.get("/api/v1/self", mill.tokens["red-reader"]).status == 200
    statuses = [mill.web.get("/api/v1/self", f"lm_{number:016x}_" + "x" * 43).status for number in range(30)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert mill.web.get("/api/v1/self", mill.tokens["red-reader"]).status == 200
    guess = mill.tokens["red-reader"][:-1] + "_"
    assert mill.web.get("/api/v1/self", guess).status == 429
    forget_failures(mill)


def test_a_key_has_a_rate_of_its_own(server: RedisServer, bundle: Path, tmp_path: Path) -> None:
    with mill_server(server, bundle, tmp_path, server_requests=60) as slow:
        answers = [slow.web.get("/api/v1/self", slow.tokens["red-reader"]) for _ in range(40)]
        assert [answer.status for answer in answers[:10]] == [200] * 10
        limited = next(answer for answer in answers if answer.status == 429)
        assert int(limited.headers["retry-after"]) >= 1
        assert limited.document["error"] == "QuotaExceeded"
        assert slow.web.get("/api/v1/self", slow.tokens["blue-reader"]).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "localhost, evil.example", "[::2]"]
)
def test_other_host_names_are_refused_before_anything_else(mill: MillServer, host: str) -> None:
    for path in ("/api/v1/health", "/api/v1/self", "/", "/login", "/static/style.css"):
        answer = mill.web.get(path, mill.tokens["red-reader"], headers={"Host": host})
        assert answer.status in (400, 421), (path, answer.body)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8400", "127.0.0.1:1", "[::1]:8400"])
def test_names_of_this_machine_are_answered_whatever_the_port(mill: MillServer, host: str) -> None:
    assert mill.web.get("/api/v1/health", headers={"Host": host}).status == 200


def test_pages_without_a_session_lead_to_the_sign_in(mill: MillServer) -> None:
    answer = mill.web.get("/?a=1")
    assert (answer.status, answer.headers["location"]) == (303, "/login?next=%2F%3Fa%3D1")


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_says_what_a_browser_must_not_do(mill: MillServer, path: str) -> None:
    for each in (path, "/api/v1/health", "/nothing", "/api/v1/nothing"):
        headers = mill.web.get(each).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
