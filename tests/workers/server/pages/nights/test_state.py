"""The parts of the page of a schedule that its browser asks for again."""

from __future__ import annotations

import re
from urllib.parse import quote

from tests.support.mill_server import MillServer, page, show
from tests.support.night_scene import NightScene, last_dates
from workers.schedules.cron import date_key

DATE = last_dates(1)[0]


def seen_in(text: str) -> str:
    found = re.findall(r'<input type="hidden" id="seen" name="seen" value="([0-9a-f]{20})">', text)
    assert len(found) == 1
    return str(found[0])


def test_nothing_comes_until_something_changes(mill: MillServer) -> None:
    scene = NightScene(mill, "watched")
    scene.declare(images=5000)
    address = "/nights/watched/state"
    seen = seen_in(show(mill, "/nights/watched", "red-reader"))
    unchanged = page(mill, f"{address}?seen={seen}", "red-reader")
    assert (unchanged.status, unchanged.body) == (204, b"")
    scene.start(DATE)
    made = show(mill, f"{address}?seen={seen}", "red-reader")
    assert "is being made" in made
    assert "<html" not in made
    assert f'id="run-{date_key(DATE)}"' in made
    scene.finish()
    refused = show(mill, f"{address}?seen={seen_in(made)}", "red-reader")
    assert "was refused" in refused
    assert "<form" not in refused
    assert "<form" in show(mill, f"{address}?seen={seen}")
    assert page(mill, f"{address}?seen={seen_in(refused)}", "red-reader").status == 204
    assert seen_in(show(mill, "/nights/watched", "red-reader")) == seen_in(refused)


def test_parts_are_for_the_tenant_alone(mill: MillServer) -> None:
    NightScene(mill, "private").declare()
    assert page(mill, "/nights/private/state", "blue-operator").status == 404
    answer = mill.web.get("/nights/private/state")
    assert answer.status in (303, 401)
    assert b"private" not in answer.body
    for wrong in ("x" * 51, "<script>" * 9):
        assert page(mill, f"/nights/private/state?seen={quote(wrong)}").status == 422


def test_the_list_of_schedules_comes_without_its_page(mill: MillServer) -> None:
    part = show(mill, "/nights?part=true", "red-reader")
    assert "<html" not in part
    assert 'href="/nights/nightly"' in part
    assert part.strip() in show(mill, "/nights", "red-reader")
