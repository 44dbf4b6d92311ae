"""Pages of jobs, nights and bundles: what they show, to whom, and that names do not become markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.mill_server import MillServer, mill_server, page, send
from tests.support.servers import RedisServer
from workers.schedules.store import read_stored, update_stored

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def mill(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MillServer]:
    home = tmp_path_factory.mktemp("mill")
    bundle = tiny_bundle(home / "evil", classes=(EVIL, '"onload="alert(1)', "'; {{ 7 * 7 }}"))
    with mill_server(server, bundle, home) as found:
        yield found


class Markup(HTMLParser):
    """What a strict policy would block, and what a page loads from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "script" and not (found.get("src") or "").startswith("/static/"):
            self.wrong.append(f"inline {tag}")
        self.wrong += [f"{tag} {name}" for name in found if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action", "hx-get"):
            value = found.get(name) or "/"
            if not value.startswith(("/", "#", "data:image/")) or value.startswith("//"):
                self.wrong.append(f"{tag} {name}={value}")


def paths(mill: MillServer) -> list[str]:
    return [
        "/",
        "/jobs",
        "/jobs?state=open",
        "/jobs?rows=true",
        "/jobs/new",
        f"/jobs/{mill.status.job}",
        f"/jobs/{mill.status.job}?part=true",
        "/nights",
        "/nights/nightly",
        "/bundles",
        f"/bundles/{mill.bundle}",
        f"/nothing/{quote(EVIL)}",
        f"/jobs/{quote(EVIL)}",
    ]


def test_pages_hold_nothing_that_runs_but_files_of_this_server(mill: MillServer) -> None:
    for path in paths(mill):
        answer = page(mill, path)
        assert answer.status in (200, 286, 404), (path, answer.status)
        text = answer.body.decode()
        assert Markup(text).wrong == [], path
        assert EVIL not in text
        assert "49" not in re.findall(r"'; (\d+)", text)


def test_names_of_classes_are_shown_as_they_are(mill: MillServer) -> None:
    text = page(mill, f"/bundles/{mill.bundle}").body.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text


def test_pages_show_nothing_of_another_tenant(mill: MillServer) -> None:
    for path in paths(mill):
        text = page(mill, path, "blue-operator").body.decode()
        assert "red-line" not in text, path
        assert str(mill.service.home) not in text
    assert page(mill, f"/jobs/{mill.status.job}", "blue-reader").status == 404
    assert page(mill, "/nights/nightly", "blue-reader").status == 404
    assert page(mill, f"/bundles/{mill.bundle}", "green-reader").status == 404


def test_a_reader_sees_no_buttons_and_cannot_press_them(mill: MillServer) -> None:
    draft = mill.body("POST", "/api/v1/jobs") | {"name": "undecided"}
    job = mill.web.post("/api/v1/jobs", mill.tokens["red-submitter"], draft).document["job"]
    assert b"Pause" in page(mill, f"/jobs/{job}").body
    assert b"Pause" not in page(mill, f"/jobs/{job}", "red-reader").body
    assert b"Pause" not in page(mill, f"/jobs/{mill.status.job}").body  # it is committed
    assert page(mill, "/jobs/new", "red-reader").status == 403
    for path in (f"/jobs/{mill.status.job}/cancel", "/nights/nightly/pause", "/jobs/new"):
        assert send(mill, path, "red-reader", text="x").status == 403


def test_a_job_is_submitted_paused_resumed_and_cancelled_by_forms(mill: MillServer) -> None:
    text = "channel: red-line\ncount: 30\ndestination: red\nname: by-form\nshard_size: 30\nbatch: 16\n"
    answer = send(mill, "/jobs/new", text=text)
    assert answer.status == 303, answer.body
    target = answer.headers["location"]
    job = target.rpartition("/")[2]
    for decision, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert send(mill, f"{target}/{decision}").status == 303
        assert mill.service.client.status(job).state == state
        assert state.encode() in page(mill, target).body
    assert send(mill, f"{target}/explode").status == 404
    assert page(mill, f"{target}?part=true").status == 286  # it has ended: the page asks no more


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "spec"),
        ("count: [", "spec"),
        ("a: &a [*a]", "spec"),
        ("channel: red-line\ncount: 0\ndestination: red\nname: x", "count"),
        ("channel: blue-line\ncount: 1\ndestination: red\nname: x", "channel"),
        ("channel: red-line\ncount: 1\ndestination: /etc\nname: x", "destination"),
        (f"channel: red-line\ncount: 1\ndestination: red\nname: '{EVIL}'", "name"),
    ],
)
def test_a_form_says_which_field_is_wrong_and_keeps_the_text(mill: MillServer, text: str, field: str) -> None:
    answer = send(mill, "/jobs/new", text=text)
    if not text:
        assert answer.status == 422
        return
    assert answer.status == (404 if field == "channel" else 422)
    shown = answer.body.decode()
    assert field in shown
    assert EVIL not in shown
    assert Markup(shown).wrong == []
    assert "count" in shown or "a: &amp;a" in shown


def test_the_form_shows_the_first_images(mill: MillServer) -> None:
    text = "channel: red-line\ncount: 30\ndestination: red\nname: seen\nbatch: 16\n"
    with mill.service.answering():
        answer = send(mill, "/jobs/new", text=text, look="1")
    assert answer.status == 200, answer.body
    shown = answer.body.decode()
    assert shown.count("data:image/png;base64,") == 24
    assert Markup(shown).wrong == []
    assert EVIL not in shown
    assert not (mill.service.home / "places" / "red" / "seen").exists()


def test_a_schedule_is_paused_and_its_runs_are_shown(mill: MillServer) -> None:
    token = mill.tokens["red-operator"]
    assert mill.web.post("/api/v1/schedules/nightly/runs", token, {"date": "2026-01-05"}).status == 202
    shown = page(mill, "/nights/nightly").body.decode()
    assert "2026-01-05" in shown
    assert "created" in shown
    assert send(mill, "/nights/nightly/pause").status == 303
    assert "paused" in page(mill, "/nights").body.decode()
    assert send(mill, "/nights/nightly/resume").status == 303


def test_a_page_that_is_open_when_its_session_ends_is_asked_for_again(mill: MillServer) -> None:
    answer = mill.web.get("/jobs?rows=true", headers={"HX-Request": "true"})
    assert (answer.status, answer.headers["hx-refresh"], answer.body) == (204, "true", b"")
    whole = mill.web.get("/jobs?state=open")
    assert (whole.status, whole.headers["location"]) == (303, "/login?next=%2Fjobs%3Fstate%3Dopen")


def test_the_first_page_leads_to_all_lists(mill: MillServer) -> None:
    main = page(mill, "/").body.decode().partition("<main")[2]
    assert all(f'href="/{name}"' in main for name in ("datasets", "jobs", "nights", "bundles"))


def test_a_tenant_without_datasets_learns_which_places_are_shown(mill: MillServer) -> None:
    shown = page(mill, "/datasets", "green-reader").body.decode()
    assert "places of this server: green." in shown
    assert "LATENTMILL_DESTINATIONS" not in shown  # its places are in the file of tenants


def test_a_schedule_shows_its_place_though_it_holds_a_path(mill: MillServer) -> None:
    shown = page(mill, "/nights/nightly").body.decode()
    assert "<dt>Destination</dt><dd>red</dd>" in shown
    stored = read_stored(open_store(mill.service.settings.root), "nightly")
    assert stored is not None
    path = str(stored.schedule.job["destination"]).removeprefix("file://")
    job = dict(stored.schedule.job) | {"destination": f"{path}/{{date:%Y}}"}
    held = stored.model_copy(update={"schedule": stored.schedule.model_copy(update={"job": job})})
    update_stored(open_store(mill.service.settings.root), "nightly", lambda _: held)
    try:
        assert "<dt>Destination</dt><dd>red/{date:%Y}</dd>" in page(mill, "/nights/nightly").body.decode()
    finally:
        update_stored(open_store(mill.service.settings.root), "nightly", lambda _: stored)


def test_a_job_offers_what_its_state_allows(mill: MillServer) -> None:
    text = "channel: red-line\ncount: 30\ndestination: red\nname: offers\nshard_size: 30\nbatch: 16\n"
    target = send(mill, "/jobs/new", text=text).headers["location"]

    def offered(path: str) -> list[str]:
        return re.findall(f'action="{target}/([a-z]+)"', page(mill, path).body.decode())

    assert offered(target) == ["pause", "cancel"]
    assert offered(f"{target}?part=true") == []
    send(mill, f"{target}/pause")
    assert offered(target) == ["resume", "cancel"]
    send(mill, f"{target}/cancel")
    assert offered(target) == ["resume"]
    last = page(mill, f"{target}?part=true").body.decode()
    assert 'id="decisions"' in last
    assert 'hx-swap-oob="true"' in last
    assert offered(f"{target}?part=true") == ["resume"]


def test_a_new_job_with_a_bundle_names_a_place(mill: MillServer) -> None:
    shown = page(mill, f"/bundles/{mill.bundle}").body.decode()
    assert f'href="/jobs/new?bundle={mill.bundle}"' in shown
    form = page(mill, f"/jobs/new?bundle={mill.bundle}").body.decode()
    assert f"bundle: {mill.bundle}\ncount: 1000\ndestination: red\n" in form


def test_pages_say_that_redis_is_away(redis_server: RedisServer, bundle: Path, tmp_path: Path) -> None:
    with mill_server(redis_server, bundle, tmp_path) as mill:
        redis_server.kill()
        for path in ("/jobs", f"/jobs/{mill.status.job}"):
            answer = page(mill, path)
            assert answer.status == 503
            assert b"a Redis that answers" in answer.body
        for path in ("/", "/nights", "/nights/nightly", "/bundles", f"/bundles/{mill.bundle}", "/jobs/new"):
            assert page(mill, path).status == 200, path
