"""Builds to compare are chosen by keyboard, also of another dataset; differences on the map are seen."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import Site, Watched
from tests.support.browsing import hold, sign_in
from tests.support.mill_server import MillServer

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
SLOW = 20_000  # ms
PAINTED = """() => {
    const drawn = document.getElementById("differences");
    const pixels = drawn.getContext("2d").getImageData(0, 0, drawn.width, drawn.height).data;
    const found = new Set();
    for (let at = 0; at < pixels.length; at += 4) found.add(pixels[at + 3] ? [...pixels.slice(at, at + 3)].join() : "");
    const colour = (each) => getComputedStyle(each).backgroundColor.match(/\\d+/g).slice(0, 3).join();
    const legend = [...document.querySelectorAll(".legend-line .swatch")].map(colour);
    return { found: [...found], legend, ground: colour(drawn) };
}"""


def expect(locator: Any) -> Any:
    return sync_api.expect(locator)


def test_a_build_of_another_dataset_is_chosen_by_keyboard(watched: Watched, mill: MillServer) -> None:
    place, page = f"{mill.service.home}/places/red", watched.page
    mill.service.submit("other", destination=place, tenant="red", count=20, shard_size=20, seed=3)
    mill.service.serve(2)
    sign_in(page, mill, "red-reader", "/datasets/red/tiny")
    page.get_by_role("link", name="Compare with a build of another dataset").click()
    page.get_by_label("Dataset of the second build").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Second build, of red/other")).to_be_visible(timeout=SLOW)  # no button was pressed
    expect(page.get_by_label("Dataset of the second build")).to_be_focused()
    page.get_by_role("button", name="Compare", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Two builds", timeout=SLOW)
    expect(page.locator("dl.pair")).to_contain_text(re.compile("red/other/[0-9a-f]{20}"))
    page.get_by_role("link", name="Compare other builds").click()
    expect(page.get_by_label("Second build, of red/other")).to_be_visible()
    assert watched.faults == []


def test_a_choice_made_before_the_scripts_are_here_is_not_lost(watched: Watched, mill: MillServer) -> None:
    place, page = f"{mill.service.home}/places/red", watched.page
    mill.service.submit("early", destination=place, tenant="red", count=20, shard_size=20, seed=4)
    mill.service.serve(2)
    sign_in(page, mill, "red-reader", "/datasets/red/tiny")
    arrive = hold(page, "**/htmx.min.js")
    page.goto(f"{mill.web.url}/datasets/red/tiny/compare?choose=true", wait_until="commit")
    page.get_by_label("Dataset of the second build").select_option("red/early")
    arrive()
    expect(page.get_by_label("Second build, of red/early")).to_be_visible(timeout=SLOW)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("h1")).to_have_text("Two builds", timeout=SLOW)
    page.go_back()  # the browser fills in nothing that the page does not show
    expect(page.get_by_label("Dataset of the second build")).to_have_value("red/tiny")
    expect(page.get_by_label("Second build, of red/tiny")).to_be_visible()
    assert watched.faults == []


def contrast(first: str, second: str) -> float:
    """Of two colours (``r,g,b``), as WCAG 2 defines it."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(first), light(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_differences_are_told_from_the_ground_and_from_no_difference(chromium: Any, site: Site, scheme: str) -> None:
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(site.comparison)
    expect(page.locator("#differences[data-drawn]")).to_be_visible(timeout=SLOW)
    seen = page.evaluate(PAINTED)
    context.close()
    less3, less2, _, same, _, more2, more3 = seen["legend"]
    assert set(seen["found"]) <= {*seen["legend"], ""}
    assert {same, ""} < set(seen["found"])
    for strong in (less3, more3):
        assert min(contrast(strong, seen["ground"]), contrast(strong, same)) > 4.5
    for clear in (less2, more2):
        assert contrast(clear, seen["ground"]) > 3.0
