"""Pages of nights follow what happens, and leave alone what somebody is at work in."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import Watched
from tests.support.browsing import sign_in
from tests.support.mill_server import MillServer
from tests.support.night_scene import last_dates, refused_night, scheduler
from workers.schedules.cron import date_key

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
DATES = last_dates(3)
SLOW = 30_000  # ms, for what a worker does meanwhile


def expect(locator: Any) -> Any:
    return sync_api.expect(locator)


def start(mill: MillServer, name: str) -> None:
    """Another operator runs the last date again."""
    body = {"date": DATES[-1].isoformat()}
    answer = mill.web.ask("POST", f"/api/v1/schedules/{name}/runs", mill.tokens["red-operator"], body)
    assert answer.status == 202, answer.body


def test_the_page_of_a_schedule_follows_but_for_what_somebody_has_open(watched: Watched, mill: MillServer) -> None:
    scene, page = refused_night(mill, "followed", DATES), watched.page
    scene.declare(images=20)
    sign_in(page, mill, "red-operator", f"/nights/{scene.name}")
    run, last = page.locator(f"#run-{date_key(DATES[-1])}"), page.locator(".last-run")
    expect(last).to_contain_text("was refused")
    expect(run.locator(".beside img").first).to_be_visible(timeout=SLOW)
    run.get_by_text("Pin", exact=True).click()
    note = run.get_by_label("Why it is kept")
    note.fill("half a sent")
    page.evaluate("window.same = true")
    start(mill, scene.name)
    with scheduler(scene):
        expect(last).to_contain_text("Readers get its build.", timeout=SLOW)  # nobody reloads the page
    expect(page.locator("dl.facts")).to_contain_text(f"the build of {DATES[-1]:%Y-%m-%d}")
    expect(page.locator("#calendar-part a.mark.current")).to_have_count(1)
    waits = page.locator("#not-shown")
    expect(waits).to_contain_text("There is something new in a part of this page that you have open. Show it now")
    expect(note).to_be_focused()
    note.press_sequentially("ence")
    expect(note).to_have_value("half a sentence")
    expect(run.locator("h3")).to_contain_text("refused")
    run.get_by_text("Pin", exact=True).click()
    page.locator("h1").click()
    expect(run.locator("h3")).to_contain_text("promoted", timeout=SLOW)
    expect(run).to_contain_text("An earlier run of this date")
    expect(waits).to_be_hidden()
    assert page.evaluate("window.same")
    assert watched.faults == []


def test_focus_stays_and_new_runs_come_to_the_top(watched: Watched, mill: MillServer) -> None:
    scene, page = refused_night(mill, "stays", DATES[:-1]), watched.page
    sign_in(page, mill, "red-reader", f"/nights/{scene.name}")
    mark = page.locator(f'a.mark[href="#run-{date_key(DATES[0])}"]')
    mark.focus()
    scene.declare(images=20)
    start(mill, scene.name)
    with scheduler(scene):
        expect(page.locator(".run")).to_have_count(3, timeout=SLOW)
        expect(page.locator(".run").first).to_contain_text("Readers get this build.", timeout=SLOW)
    assert page.locator(".run").first.get_attribute("id") == f"run-{date_key(DATES[-1])}"
    expect(page.locator(f'a.mark[href="#run-{date_key(DATES[-1])}"]')).to_have_class(re.compile("current"))
    expect(mark).to_be_focused()
    assert watched.faults == []


def test_the_list_of_schedules_follows(watched: Watched, mill: MillServer) -> None:
    scene, page = refused_night(mill, "listed", DATES), watched.page
    scene.declare(images=20)
    sign_in(page, mill, "red-reader", "/nights")
    row = page.get_by_role("row", name=re.compile(scene.name))
    expect(row).to_contain_text("refused")
    row.get_by_role("link", name=scene.name).focus()
    start(mill, scene.name)
    with scheduler(scene):
        expect(row).to_contain_text("promoted", timeout=SLOW)
    expect(row.get_by_role("link", name=scene.name)).to_be_focused()
    assert watched.faults == []
