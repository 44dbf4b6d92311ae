"""Every page as those ask for it who may not: without a session, of another tenant, with a role that is too small."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.http_server import Answer
from tests.support.mill_server import MillServer, forget_failures, page, send
from workers.server.pages.router import router

OPEN = {"/login", "/login/{code}"}
FORMS = {
    "build": "0" * 20,
    "date": "2026-01-05",
    "confirm": "true",
    "undo": "true",
    "text": "cron: 0 4 * * *",
    "by": "text",
}


@pytest.fixture(autouse=True)
def _no_failures_so_far(mill: MillServer) -> None:
    forget_failures(mill)


def pages() -> Iterator[tuple[str, str]]:
    """Method and path of every route of the pages."""
    for included in router.routes:
        for route in getattr(included, "original_router", included).routes:
            yield from ((method, route.path) for method in sorted(route.methods))


def address(mill: MillServer, path: str) -> str:
    """The path with what tenant red has."""
    build, dataset = mill.status.url.rpartition("/")[2], "red/tiny"
    values = {
        "dataset:path": dataset,
        "build": build,
        "job": mill.status.job,
        "digest": mill.bundle,
        "index:int": "3",
        "picture": "map",
        "name": "nightly",
        "code": "x" * 43,
        "decision": "unpin" if path.startswith("/datasets") else "pause",
    }
    filled = re.sub(r"{([\w:]+)}", lambda found: values[found[1]], path)
    if path.endswith("/compare/map"):
        filled += f"?first={build}&second={build}"
    return filled + ("?date=20260105T040000Z" if path.endswith("/beside") else "")


def shows(mill: MillServer, answer: Answer) -> list[str]:
    """What of tenant red is in an answer."""
    known = ("red/tiny", "nightly", "red-line", mill.tokens["red-operator"], "red, operator")
    return [each for each in known if each.encode() in answer.body]


def test_there_are_as_many_pages_as_there_were(mill: MillServer) -> None:
    found = list(pages())
    assert len(found) == len(set(found)) > 35
    assert {path for _, path in found} >= OPEN | {"/", "/nights/{name}/state", "/datasets/{dataset:path}/compare"}


@pytest.mark.parametrize(("method", "path"), [each for each in pages() if each[1] not in OPEN])
def test_no_page_answers_without_a_session(mill: MillServer, method: str, path: str) -> None:
    where, before = address(mill, path), mill.objects()
    if method == "GET":
        answer = mill.web.get(where)
        assert answer.status in (303, 401)
        assert shows(mill, answer) == []
    else:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": mill.web.url}
        assert mill.web.post(where, body=b"confirm=true", headers=headers).status in (303, 401, 403)
    assert mill.objects() == before


@pytest.mark.parametrize(("method", "path"), [each for each in pages() if "{" in each[1] and each[1] not in OPEN])
def test_no_page_shows_or_changes_what_is_of_another_tenant(mill: MillServer, method: str, path: str) -> None:
    where, before = address(mill, path), mill.objects()
    answer = page(mill, where, "green-operator") if method == "GET" else send(mill, where, "green-operator", **FORMS)
    assert answer.status in (403, 404, 422), answer.body
    assert not [each for each in shows(mill, answer) if each not in where]
    assert mill.objects() == before


@pytest.mark.parametrize("path", sorted({path for method, path in pages() if method == "POST" and path not in OPEN}))
def test_a_reader_sends_no_form_but_the_one_that_signs_out(mill: MillServer, path: str) -> None:
    where, before = address(mill, path), mill.objects()
    status = send(mill, where, "red-reader", **FORMS).status
    assert status == (303 if path == "/logout" else 403)
    assert send(mill, where, "red-operator", csrf=False, **FORMS).status == 403
    assert mill.objects() == before


def test_what_a_browser_keeps_is_for_the_session_that_asked(mill: MillServer) -> None:
    """Who signs in after somebody else in the same browser is shown nothing from its cache."""
    base = f"/datasets/red/tiny/builds/{mill.status.url.rpartition('/')[2]}"
    for path in (f"{base}/samples/0/image", f"/api/v1{base}/samples/0/image"):
        answer = page(mill, path, "red-reader")
        assert answer.status == 200, answer.body
        assert answer.headers["cache-control"].startswith("private")
        assert {"cookie", "authorization"} <= {each.strip().lower() for each in answer.headers["vary"].split(",")}
    assert page(mill, "/nights", "red-reader").headers["cache-control"] == "no-store"
