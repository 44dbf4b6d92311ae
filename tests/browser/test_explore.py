"""The page of a build in a real browser: filters, map, lasso, links, keyboard, a phone; and the page in the build."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from generator.datasets.exploration.summary import GRID
from tests.browser.conftest import CLASSES, Site, Watched

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
AXE = Path(__file__).parent / "axe" / "axe.min.js"


def expect(locator: Any) -> Any:
    return sync_api.expect(locator)


def open_view(watched: Watched, site: Site, query: str = "") -> Any:
    page = watched.page
    page.goto(f"{site.base}{query}")
    expect(page.locator("#count")).to_be_visible(timeout=30_000)
    expect(page.locator("#map[data-points]")).to_be_visible()
    expect(page.locator("#gallery img").first).to_be_visible()
    return page


def check_quiet(watched: Watched, site: Site) -> None:
    assert watched.faults == []
    assert watched.hosts <= {site.web.url.removeprefix("http://"), ""}


def draw_around(page: Any, left: float, top: float, right: float, bottom: float) -> None:
    """Draw a rectangle on the map, in shares of its sides."""
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=10)
    page.mouse.up()


def only_point(site: Site, query: str) -> tuple[float, float]:
    """Where the only point of a view is drawn, in shares of the sides of the map, from the left and from the top."""
    answer = site.web.get(f"{site.base.removeprefix(site.web.url)}/map{query}").body
    head, _, rest = answer.partition(b"\n")
    assert json.loads(head)["points"] == 1
    x, y = struct.unpack("<HH", rest[GRID * GRID : GRID * GRID + 4])
    return x / 65535, 1 - y / 65535


def test_a_click_on_a_class_and_on_a_bar_filters(watched: Watched, site: Site) -> None:
    page = open_view(watched, site)
    expect(page.locator("#count strong")).to_have_text("600")
    page.click("#class-1")
    expect(page.locator("#count strong")).to_have_text("200")
    expect(page.locator('#map[data-points="200"]')).to_be_visible()
    assert page.url.endswith("?class=dog")
    bars = page.locator("#density-20")
    wanted = re.search(r": (\d+) of", bars.get_attribute("title") or "")
    bars.click()
    assert wanted
    expect(page.locator("#count strong")).to_have_text(wanted[1])
    page.get_by_role("link", name="Remove all").click()
    expect(page.locator("#count strong")).to_have_text("600")
    check_quiet(watched, site)


def test_a_lasso_selects_what_lies_in_it_and_its_link_reopens_the_view(
    watched: Watched, site: Site, chromium: Any
) -> None:
    page = open_view(watched, site)
    page.click("#map-lasso")
    draw_around(page, 0.02, 0.02, 0.98, 0.55)
    expect(page.locator("#count strong")).not_to_have_text("600")
    selected = page.locator("#count strong").inner_text()
    assert 0 < int(selected) < 600
    assert "region=" in page.url
    expect(page.locator(f'#map[data-points="{selected}"]')).to_be_visible()
    other = Watched(chromium.new_page())
    other.page.goto(page.url)
    expect(other.page.locator("#count strong")).to_have_text(selected)
    other.page.close()
    page.go_back()
    expect(page.locator("#count strong")).to_have_text("600")
    check_quiet(watched, site)


def test_the_map_zooms_and_a_click_on_a_point_opens_its_sample(watched: Watched, site: Site) -> None:
    page = open_view(watched, site, "?where=index == 5")
    expect(page.locator('#map[data-points="1"]')).to_be_visible()
    page.click("#map-in")
    page.click("#map-reset")
    page.wait_for_timeout(400)
    box, (x, y) = page.locator("#map").bounding_box(), only_point(site, "?where=index%20%3D%3D%205")
    place = box["x"] + x * box["width"], box["y"] + y * box["height"]
    page.mouse.move(*place)
    expect(page.locator("#map-tip")).to_be_visible()
    assert "sample 5" in page.locator("#map-tip").inner_text()
    page.mouse.click(*place)
    expect(page.locator("h1")).to_have_text("Sample 5")
    expect(page.get_by_alt_text("real image").first).to_be_visible()
    check_quiet(watched, site)


def test_everything_works_by_keyboard(watched: Watched, site: Site) -> None:
    page = open_view(watched, site)
    page.focus("#class-2")
    page.keyboard.press("Enter")
    expect(page.locator("#count strong")).to_have_text("200")
    assert page.evaluate("document.activeElement.id") == "class-2"  # the place is kept
    page.focus("#map")
    for key in ("+", "+", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    page.focus("#map-region")
    page.keyboard.press("Enter")
    expect(page.locator("#count strong")).not_to_have_text("200")
    assert "region=" in page.url
    page.focus("summary")
    page.keyboard.press("Tab")
    page.focus("#f-where")
    page.keyboard.type("index < 30")
    page.keyboard.press("Enter")
    page.wait_for_url("**where=**")
    page.keyboard.press("Control+Home")
    page.goto(site.base)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    check_quiet(watched, site)


def test_a_wrong_filter_says_so(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.base}?where=size >")
    expect(page.get_by_role("alert")).to_contain_text("where")


def test_a_wrong_filter_in_the_form_says_so_and_leaves_the_view(watched: Watched, site: Site) -> None:
    page = open_view(watched, site)
    page.locator("summary").first.click()
    page.fill("#f-where", "nonsense > 2")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("got nonsense")
    assert page.url == site.base
    expect(page.locator("#count strong")).to_have_text("600")
    page.fill("#f-where", "index < 30")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#count strong")).to_have_text("30")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_view_without_samples_has_an_empty_map(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"{site.base}?where=index < 0")
    expect(page.locator('#map[data-points="0"]')).to_be_visible()
    check_quiet(watched, site)


def test_ten_classes_are_listed_without_scrolling(watched: Watched, site: Site) -> None:
    page = open_view(watched, site)
    page.evaluate(
        """() => {
            const list = document.querySelector(".choices");
            const rows = [...list.children];
            for (let number = rows.length; number < 10; number++) list.append(rows[1].cloneNode(true));
            for (const row of rows) if (row !== rows[1]) row.replaceWith(rows[1].cloneNode(true));
        }"""
    )
    height, whole = page.evaluate(
        "[document.querySelector('.choices').clientHeight, document.querySelector('.choices').scrollHeight]"
    )
    assert height == whole


def test_names_of_classes_are_text(watched: Watched, site: Site) -> None:
    page = open_view(watched, site)
    expect(page.locator("#class-0 .name")).to_have_text(CLASSES[0])
    expect(page.locator("#map-legend li").first).to_have_text(CLASSES[0])
    page.goto(site.comparison)
    expect(page.locator("td", has_text="onerror").first).to_be_visible(timeout=20_000)
    page.goto(f"file://{site.folder / 'index.html'}")
    expect(page.locator("h3").first).to_have_text(CLASSES[0])
    assert watched.faults == []


def test_two_builds_are_compared(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(site.comparison)
    expect(page.locator("#differences[data-drawn]")).to_be_visible(timeout=20_000)
    row = page.locator("tr", has=page.locator("td", has_text="dog"))
    expect(row).to_contain_text("250")
    expect(page.locator("table.differences")).to_contain_text("counts")
    check_quiet(watched, site)


def test_a_phone_shows_all_of_it(chromium: Any, site: Site) -> None:
    context = chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    watched = Watched(context.new_page())
    open_view(watched, site)
    for address in (site.base, f"{site.base}/samples/3", site.comparison, f"file://{site.folder / 'index.html'}"):
        watched.page.goto(address)
        watched.page.wait_for_timeout(300)
        assert watched.page.evaluate("document.documentElement.scrollWidth <= 360"), address
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("where", ["view", "sample", "comparison", "dataset", "datasets", "file"])
def test_pages_are_accessible(chromium: Any, site: Site, where: str, scheme: str) -> None:
    """By the rules of axe-core, in light and in dark."""
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    address = {
        "view": f"{site.base}?class=dog",
        "sample": f"{site.base}/samples/3",
        "comparison": site.comparison,
        "dataset": f"{site.web.url}/datasets/place/shown",
        "datasets": f"{site.web.url}/datasets",
        "file": f"file://{site.folder / 'index.html'}",
    }[where]
    page.goto(address)
    if where == "view":
        expect(page.locator("#gallery img").first).to_be_visible(timeout=20_000)
        page.locator("summary").first.click()
    if where == "comparison":
        expect(page.locator("#differences[data-drawn]")).to_be_visible(timeout=20_000)
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    problems = [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found["violations"]]
    context.close()
    assert problems == []


def test_the_page_in_a_build_works_from_a_folder(watched: Watched, site: Site) -> None:
    page = watched.page
    page.goto(f"file://{site.folder / 'index.html'}")
    images = page.locator(".gallery img")
    assert images.count() == 200
    images.first.scroll_into_view_if_needed()
    assert page.evaluate("document.querySelector('.gallery img').naturalWidth") == 16
    images.first.click()
    expect(page.locator("details[open] th", has_text="log density")).to_be_visible()
    assert watched.hosts == {""}
    assert watched.faults == []
