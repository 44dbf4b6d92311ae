"""Who has never seen the product finds why last night was refused and puts it right, by what the pages show."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import Watched
from tests.support.browsing import sign_in
from tests.support.mill_server import MillServer
from tests.support.night_scene import last_dates, refused_night, scheduler

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
DATES = last_dates(3)
WHY = "The gate images asks for at least 5,000 images; this build has 30."
SLOW = 30_000  # ms, for what a worker does meanwhile


def expect(locator: Any) -> Any:
    return sync_api.expect(locator)


def change(page: Any, old: str, new: str) -> None:
    text = page.get_by_role("textbox")
    assert old in text.input_value()
    text.fill(text.input_value().replace(old, new))
    page.get_by_role("button", name="Change the schedule").click()


def test_a_first_visitor_finds_why_last_night_was_refused_and_puts_it_right(watched: Watched, mill: MillServer) -> None:
    scene, page, notice = refused_night(mill, "cats", DATES), watched.page, watched.page.get_by_role("main")
    sign_in(page, mill, "red-operator", "/")  # the first page says it
    expect(notice).to_contain_text(f"was refused by its gates. {WHY} Readers do not get its build.")
    page.get_by_role("link", name="cats").click()
    run = page.get_by_role("region", name=re.compile("^Run of")).first
    expect(run).to_be_in_viewport()
    expect(run).to_contain_text(WHY)
    run.get_by_text("Run again", exact=True).first.click()
    expect(run).to_contain_text("The build that is there is judged again, by the gates that the schedule has now")
    run.get_by_role("link", name="change the schedule").click()
    change(page, "images: 5000", "images: many")
    expect(page.get_by_role("alert")).to_contain_text("gates.images: expected a whole number, got 'many'")
    change(page, "images: many", "images: 25")
    expect(notice).to_contain_text("The schedule was changed.")
    page.get_by_role("link", name="Look at it, promote it nevertheless, or change its gates and run it again").click()
    expect(run).to_be_in_viewport()
    run.get_by_text("Run again", exact=True).first.click()
    run.get_by_role("button", name="Run again").click()
    expect(notice).to_contain_text("is being made. It waits for a scheduler")
    with scheduler(scene):
        expect(notice).to_contain_text("was promoted. Readers get its build.", timeout=SLOW)  # nobody reloads the page
    expect(run).to_contain_text("Readers get this build.")
    expect(run).to_contain_text("An earlier run of this date")
    page.get_by_role("link", name="latentmill").first.click()
    expect(page.get_by_role("heading", name="red", exact=True)).to_be_visible()
    expect(notice).not_to_contain_text("refused by its gates")
    refusals = [fault for fault in watched.faults if "422" not in fault]  # the text with a mistake
    assert refusals == []


def test_the_list_of_nights_leads_to_the_run_that_was_refused(watched: Watched, mill: MillServer) -> None:
    scene, page = refused_night(mill, "dogs", DATES), watched.page
    sign_in(page, mill, "red-reader", "/nights")
    row = page.get_by_role("row", name=re.compile(scene.name))
    expect(row).to_contain_text("refused")
    row.get_by_role("link", name=re.compile(r"\d{4}-\d\d-\d\d")).click()
    run = page.get_by_role("region", name=re.compile("^Run of")).first
    expect(run).to_be_in_viewport()
    expect(run).to_contain_text(WHY)
    assert watched.faults == []
