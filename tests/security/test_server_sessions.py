"""Sessions of browsers: one-time links, cookies, and other sites that try to act for a session."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from generator.errors import SettingsError
from generator.store import open_store
from tests.support.http_server import Answer, running_server
from tests.support.mill_server import MillServer, forget_failures
from workers.server.access.keys import add_key, revoke_key
from workers.server.access.links import add_link
from workers.server.application import make_application
from workers.server.pages.login import local_path

COOKIE = "latentmill_session"


@pytest.fixture(autouse=True)
def _no_failures_so_far(mill: MillServer) -> None:
    forget_failures(mill)


def sign_in(mill: MillServer, token: str) -> tuple[str, str]:
    """The cookie of a new session, and the value that its forms send back."""
    answer = form(mill, "/login", f"token={token}")
    assert answer.status == 303, answer.body
    cookie = answer.headers["set-cookie"].partition(";")[0]
    page = mill.web.get("/", headers={"Cookie": cookie})
    assert page.status == 200
    found = re.search(rb'name="csrf" value="([0-9a-f]{64})"', page.body)
    assert found is not None
    return cookie, found[1].decode()


def form(mill: MillServer, path: str, body: str, **headers: str) -> Answer:
    sent = {"Content-Type": "application/x-www-form-urlencoded"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return mill.web.post(path, body=body.encode(), headers=sent)


def test_the_cookie_of_a_session_is_out_of_reach_of_scripts_and_of_other_sites(mill: MillServer) -> None:
    answer = form(mill, "/login", f"token={mill.tokens['red-reader']}")
    attributes = {part.strip().lower().partition("=")[0] for part in answer.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite", "max-age", "path"} <= attributes
    assert "samesite=lax" in answer.headers["set-cookie"].lower()
    assert "domain" not in attributes


def test_over_https_the_cookie_is_secure(mill: MillServer) -> None:
    settings = mill.service.settings.model_copy(update={"server_proxies": "127.0.0.1"})
    with running_server(settings) as web:
        behind = replace(mill, web=web)
        answer = form(behind, "/login", f"token={mill.tokens['red-reader']}", X_Forwarded_Proto="https")
    assert "secure" in answer.headers["set-cookie"].lower()
    assert "max-age" in answer.headers["strict-transport-security"]


def test_a_session_reads_and_with_its_value_changes(mill: MillServer) -> None:
    cookie, csrf = sign_in(mill, mill.tokens["red-operator"])
    headers = {"Cookie": cookie}
    assert mill.web.get("/api/v1/self", headers=headers).document["role"] == "operator"
    pin = mill.build + "/pin"
    assert mill.web.ask("PUT", pin, headers=headers, document={}).status == 403
    assert mill.web.ask("PUT", pin, headers=headers | {"X-CSRF-Token": csrf}, document={}).status == 200
    assert mill.web.ask("DELETE", pin, headers=headers | {"X-CSRF-Token": csrf}).status == 200


CHANGES = ("POST", "PUT", "DELETE")


def test_another_site_changes_nothing_with_the_cookie_of_a_session(mill: MillServer) -> None:
    cookie, csrf = sign_in(mill, mill.tokens["red-operator"])
    other, _ = sign_in(mill, mill.tokens["blue-operator"])
    before = mill.objects()
    forgeries: list[dict[str, str]] = [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"{mill.web.url}.evil.example", "X-CSRF-Token": csrf},
        {"Origin": "https://evil.example", "X-CSRF-Token": csrf},
        {"Sec-Fetch-Site": "cross-site", "X-CSRF-Token": csrf},
        {"Sec-Fetch-Site": "same-site", "X-CSRF-Token": csrf},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"Origin": mill.web.url},
        {"X-CSRF-Token": sign_in(mill, mill.tokens["blue-operator"])[1]},
    ]
    tried = 0
    for method, template in mill.routes():
        if method not in CHANGES:
            continue
        for forged in forgeries:
            tried += 1
            headers = {"Cookie": cookie} | forged
            answer = mill.web.ask(method, mill.path(template), headers=headers, document=mill.body(method, template))
            assert answer.status == 403, (method, template, forged, answer.body)
    assert tried > 150
    assert mill.objects() == before
    assert other


def test_forms_of_another_site_neither_sign_out_nor_in(mill: MillServer) -> None:
    cookie, csrf = sign_in(mill, mill.tokens["red-reader"])
    assert form(mill, "/logout", "", Cookie=cookie).status == 403
    assert form(mill, "/logout", f"csrf={csrf}", Cookie=cookie, Origin="https://evil.example").status == 403
    token = mill.tokens["red-reader"]
    assert form(mill, "/login", f"token={token}", Origin="https://evil.example").status == 403
    assert form(mill, "/login", f"token={token}", Sec_Fetch_Site="cross-site").status == 403
    answer = form(mill, "/logout", f"csrf={csrf}", Cookie=cookie, Origin=mill.web.url)
    assert answer.status == 303
    assert f'{COOKIE}=""' in answer.headers["set-cookie"]


def test_who_signs_out_is_told_how_to_end_the_key(mill: MillServer) -> None:
    key, token = add_key(open_store(mill.service.settings.root), "red", "reader", timedelta(days=1))
    cookie, csrf = sign_in(mill, token)
    words = f"latentmill keys revoke {key.id}"
    assert words in mill.web.get("/", headers={"Cookie": cookie}).body.decode()
    answer = form(mill, "/logout", f"csrf={csrf}", Cookie=cookie, Origin=mill.web.url)
    shown = mill.web.get(answer.headers["location"]).body.decode()
    assert "within 10 seconds" in shown
    assert words in shown
    assert token not in shown + answer.headers["location"]
    for other in ("0" * 15, "g" * 16, "<script>alert(1)", "x;rm -rf /;xxxxx", "0" * 10_000):
        plain = mill.web.get(f"/login?ended={quote(other)}")
        assert b"signed out" not in plain.body
        assert other.encode() not in plain.body


def test_a_link_works_once_whoever_comes_first(mill: MillServer) -> None:
    root = open_store(mill.service.settings.root)
    code = add_link(root, mill.tokens["red-reader"], timedelta(minutes=1))
    for _ in range(3):  # programs that look at links ahead use nothing up
        assert mill.web.get(f"/login/{code}").status == 200
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(form(mill, f"/login/{code}", ""))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [303] + [403] * 7
    stored = b"".join(root.get(info.key) for info in root.list("keys/"))
    assert mill.tokens["red-reader"].encode() not in stored


def test_a_link_expires_and_others_do_not_exist(mill: MillServer) -> None:
    root = open_store(mill.service.settings.root)
    past = datetime.now(UTC) - timedelta(hours=1)
    code = add_link(root, mill.tokens["red-reader"], timedelta(minutes=1), now=past)
    for each in (code, "x" * 43, "short", "%2e%2e%2fkeys", "a" * 5000):
        assert form(mill, f"/login/{each}", "").status in (403, 404), each


def test_the_store_holds_no_token(mill: MillServer) -> None:
    root = open_store(mill.service.settings.root)
    stored = b"".join(root.get(info.key) for info in root.list())
    for token in mill.tokens.values():
        assert token.encode() not in stored
        assert token.split("_", 2)[2].encode() not in stored


def test_a_session_ends_with_its_key(mill: MillServer) -> None:
    root = open_store(mill.service.settings.root)
    key, token = add_key(root, "red", "reader", timedelta(hours=1))
    cookie, _ = sign_in(mill, token)
    revoke_key(root, key.id)
    mill.web.app.state.context.keys._held.clear()  # as after four seconds
    assert mill.web.get("/", headers={"Cookie": cookie}).status == 303


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil",
        "javascript:alert(1)",
        "/a\nSet-Cookie: b",
    ],
)
def test_signing_in_leads_to_this_server_only(target: str) -> None:
    assert local_path(target) == "/"


def test_a_wrong_token_is_not_shown_again(mill: MillServer) -> None:
    answer = form(mill, "/login", "token=lm_secretish&next=/x")
    assert answer.status == 403
    assert b"secretish" not in answer.body


def test_without_keys_only_pages_of_this_server_change_something(mill: MillServer) -> None:
    settings = mill.service.settings.model_copy(update={"server_without_keys": True, "tenants_file": None})
    with running_server(settings) as web:
        url, body = "/api/v1/channels/red-line", {"bundle": mill.bundle}
        assert web.ask("PUT", url, document=body).status == 200
        assert web.ask("PUT", url, document=body, headers={"Origin": web.url}).status == 200
        for forged in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            assert web.ask("PUT", url, document=body, headers=forged).status == 403
        assert web.get("/api/v1/self").document["tenant"] == "default"
        assert web.get("/api/v1/self", headers={"Host": "evil.example"}).status == 421


def test_without_keys_the_server_is_for_this_machine_only(mill: MillServer) -> None:
    settings = mill.service.settings.model_copy(update={"server_without_keys": True, "server_host": "0.0.0.0"})
    with pytest.raises(SettingsError, match="WITHOUT_KEYS"):
        make_application(settings)
    settings = mill.service.settings.model_copy(update={"server_host": "0.0.0.0"})
    with pytest.raises(SettingsError, match="SERVER_NAMES"):
        make_application(settings)
