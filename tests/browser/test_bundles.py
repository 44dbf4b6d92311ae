"""Bundles and the form for new jobs in a real browser: look, diagnose, order, a mistake that is put right, a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Watched
from tests.support.browsing import hold
from tests.support.mill_server import MillServer, mill_server
from tests.support.page_visits import CLASSES, EVIL, kept_bundle
from tests.support.servers import RedisServer

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
AXE = Path(__file__).parent / "axe" / "axe.min.js"
PAGES = ("/bundles", "bundle", "/jobs/new", "mistakes")
MISTAKE = "status of 422"  # Chromium notes the answer to a form with a mistake as an error


def expect(locator: Any) -> Any:
    return sync_api.expect(locator)


@pytest.fixture(scope="module")
def mill(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MillServer]:
    home = tmp_path_factory.mktemp("mill")
    with mill_server(server, kept_bundle(home / "kept"), home) as found, found.service.answering():
        yield found


def sign_in(context: Any, mill: MillServer) -> None:
    cookie = {"name": "latentmill_session", "value": mill.tokens["red-operator"], "url": mill.web.url}
    context.add_cookies([cookie])


@pytest.fixture
def visit(watched: Watched, mill: MillServer) -> Watched:
    sign_in(watched.page.context, mill)
    return watched


def check_quiet(watched: Watched, mill: MillServer, *, mistakes: bool = False) -> None:
    assert [fault for fault in watched.faults if not (mistakes and MISTAKE in fault)] == []
    assert watched.hosts <= {mill.web.url.removeprefix("http://"), ""}


def test_a_bundle_is_found_looked_at_and_diagnosed(visit: Watched, mill: MillServer) -> None:
    page = visit.page
    page.goto(f"{mill.web.url}/bundles")
    expect(page.get_by_alt_text(f"real images of source {EVIL}")).to_be_visible()
    page.get_by_role("link", name=f"source {EVIL}").last.click()
    expect(page.locator("h1")).to_have_text(f"source {EVIL}, vae")
    expect(page.get_by_role("img", name="Loss by epoch: the held-out loss is lowest in epoch 10")).to_be_visible()
    page.get_by_text("The losses as a table").click()
    expect(page.get_by_role("row", name="10 best")).to_be_visible()
    assert page.evaluate("document.querySelector('.pairs img').naturalWidth") == 8
    page.get_by_role("link", name="Look at images").click()
    expect(page.locator("#samples img")).to_have_count(30, timeout=30_000)
    assert page.evaluate("document.querySelector('#samples img').naturalWidth") == 8
    expect(page.locator("#samples figcaption").first).to_have_text(CLASSES[0])
    page.get_by_role("button", name="Diagnose").click()
    expect(page.locator(".verdict")).to_be_visible(timeout=120_000)  # without a reload
    page.locator(".verdict-pictures img").first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.verdict-pictures img').naturalWidth > 100")
    page.get_by_text("What was measured").click()
    expect(page.get_by_role("row", name="dimensions in use 4 of 4")).to_be_visible()
    check_quiet(visit, mill)


def test_a_job_is_ordered_by_a_form_after_a_mistake_and_a_look(visit: Watched, mill: MillServer) -> None:
    page = visit.page
    page.goto(f"{mill.web.url}/bundles/{mill.bundle}")
    page.get_by_role("link", name="New job with this bundle").click()
    expect(page.get_by_label("Channel or bundle")).to_have_value(mill.bundle)
    page.get_by_label("Name").fill("By Browser")
    page.get_by_label("Images in total").fill("30")
    page.get_by_role("button", name="Look at images").first.click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was submitted.")
    page.get_by_role("alert").get_by_role("link", name="Name").click()
    name = page.get_by_label("Name")
    expect(name).to_be_focused()
    assert (
        "got 'By Browser'" in page.locator(f"#{(name.get_attribute('aria-describedby') or '').split()[0]}").inner_text()
    )
    expect(page.get_by_label("Images in total")).to_have_value("30")
    name.fill("by-browser")
    page.get_by_role("button", name="Look at images").first.click()
    expect(page.locator(".look img")).to_have_count(24, timeout=30_000)
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.locator("h1")).to_contain_text("by-browser-")
    expect(page.locator(".state").first).to_have_text("committed", timeout=60_000)
    page.get_by_role("link", name="New job like this one").click()
    expect(page.get_by_label("Name")).to_have_value("by-browser")
    check_quiet(visit, mill, mistakes=True)


def test_the_text_follows_the_fields_and_fields_appear_where_they_belong(visit: Watched, mill: MillServer) -> None:
    page = visit.page
    page.goto(f"{mill.web.url}/jobs/new")
    expect(page.get_by_label("JPEG quality")).to_be_hidden()
    page.get_by_label("Image files").select_option("jpeg")
    expect(page.get_by_label("JPEG quality")).to_be_visible()
    expect(page.get_by_label("PNG level")).to_be_hidden()
    page.get_by_label("JPEG quality").fill("80")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Drawn from").select_option("between")
    expect(page.get_by_label("Other training image")).to_be_visible()
    expect(page.get_by_label("Cluster", exact=True)).to_be_hidden()
    page.get_by_label("Drawn from").select_option("distribution")
    page.get_by_text("Numbers and label floors by class").click()
    page.get_by_label("of each class").check()
    page.get_by_label(f"Images of {CLASSES[0]}").fill("7")
    page.get_by_label("Name").fill("texty")
    page.get_by_text("As text", exact=True).click()
    text = page.get_by_label("Job spec as YAML")
    expect(text).to_have_value(
        f"channel: red-line\ncounts:\n  {EVIL}: 7\n"
        "destination: red\nname: texty\nimage:\n  format: jpeg\n  quality: 80\n"
    )
    text.fill(text.input_value() + "seed: 12\n")
    page.get_by_role("button", name="Show it in the fields").click()
    expect(page.get_by_label("Seed")).to_have_value("12")
    expect(page.get_by_label(f"Images of {CLASSES[0]}")).to_have_value("7")
    check_quiet(visit, mill)


def test_fields_filled_before_the_scripts_are_here_reach_the_text(visit: Watched, mill: MillServer) -> None:
    page, arrive = visit.page, hold(visit.page, "**/htmx.min.js")
    page.goto(f"{mill.web.url}/jobs/new", wait_until="commit")
    page.get_by_label("Name").fill("early")
    page.get_by_label("Image files").select_option("jpeg")
    arrive()
    expect(page.get_by_label("JPEG quality")).to_be_visible()
    page.get_by_text("As text", exact=True).click()
    expect(page.get_by_label("Job spec as YAML")).to_have_value(re.compile("name: early\nimage: jpeg"))
    check_quiet(visit, mill)


def test_a_text_that_comes_back_is_not_written_anew(visit: Watched, mill: MillServer) -> None:
    """A name of several lines cannot be what its field shows; nobody changed that field."""
    page = visit.page
    page.goto(f"{mill.web.url}/jobs/new")
    page.get_by_text("As text", exact=True).click()
    text = page.get_by_label("Job spec as YAML")
    written = "# mine\nchannel: red-line\ncount: 5\ndestination: red\nname: |\n  texty\n"
    text.fill(written)
    with page.expect_navigation():
        page.get_by_role("button", name="Show it in the fields").click()
    page.wait_for_timeout(1000)  # longer than the form waits after a change
    expect(page.get_by_label("Job spec as YAML")).to_have_value(written)


def test_the_form_works_without_scripts(chromium: Any, mill: MillServer) -> None:
    context = chromium.new_context(java_script_enabled=False)
    sign_in(context, mill)
    page = context.new_page()
    page.goto(f"{mill.web.url}/jobs/new")
    page.fill("#f-name", "no-scripts")
    page.click("text=Show its classes and its text")
    assert "name: no-scripts" in page.locator("#text").input_value()
    page.fill("#f-count", "9")
    page.get_by_role("button", name="Submit", exact=True).click()
    assert "no-scripts-" in page.locator("h1").inner_text()
    context.close()


def open_page(page: Any, mill: MillServer, which: str) -> None:
    path = {"bundle": f"/bundles/{mill.bundle}", "mistakes": "/jobs/new"}.get(which, which)
    page.goto(mill.web.url + path)
    for summary in page.locator("summary").all():
        if summary.is_visible() and summary.locator("..").get_attribute("open") is None:
            summary.click()
    if which == "mistakes":
        page.fill("#f-name", "A Mistake")
        page.fill("#f-seed", "x")
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(page.get_by_role("alert")).to_be_visible()
        page.wait_for_load_state("load")  # styles too: the answer is a page of its own


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", PAGES)
def test_pages_are_accessible_and_fit_a_phone(chromium: Any, mill: MillServer, which: str, scheme: str) -> None:
    """By the rules of axe-core, in light and in dark, on a phone."""
    viewport = {"width": 360, "height": 740} if scheme == "dark" else {"width": 1280, "height": 900}
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True, viewport=viewport)
    sign_in(context, mill)
    page = context.new_page()
    open_page(page, mill, which)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    problems = [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found["violations"]]
    context.close()
    assert problems == []
