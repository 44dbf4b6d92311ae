"""Nights and jobs in a real browser: who has never seen the page finds why last night was refused and puts it right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import CLASSES, Watched
from tests.support.browsing import sign_in
from tests.support.bundles import tiny_bundle
from tests.support.mill_server import MillServer, mill_server
from tests.support.night_scene import NightScene, last_dates, refused_night
from tests.support.servers import RedisServer
from workers.client import Client
from workers.jobs.status import JobStatus
from workers.schedules.cron import date_key

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
AXE = Path(__file__).parent / "axe" / "axe.min.js"
DATES = last_dates(4)
SLOW = 20_000  # ms, for what a worker does meanwhile


def expect(locator: Any) -> Any:
    return sync_api.expect(locator)


@pytest.fixture(scope="module")
def mill(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MillServer]:
    home = tmp_path_factory.mktemp("mill")
    with mill_server(
        server, tiny_bundle(home / "bundle", classes=CLASSES), home, column_cache=home / "columns"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def nights(mill: MillServer) -> NightScene:
    return refused_night(mill, "shown", DATES)


def submit(mill: MillServer, name: str, seed: int = 0) -> JobStatus:
    """A job of three shards, submitted with a key."""
    client = Client(mill.web.url, token=mill.tokens["red-submitter"])
    spec = {"channel": "red-line", "count": 60, "destination": "red", "name": name, "shard_size": 20, "batch": 16}
    return client.submit(spec | {"seed": seed})


def check_quiet(watched: Watched, mill: MillServer) -> None:
    assert watched.faults == []
    assert watched.hosts <= {mill.web.url.removeprefix("http://"), ""}


def test_a_new_user_finds_why_last_night_was_refused_and_promotes_it(watched: Watched, mill: MillServer) -> None:
    scene, page = refused_night(mill, "promoted-by-hand", DATES), watched.page
    sign_in(page, mill, "red-operator", "/")
    page.get_by_role("link", name="Nights").first.click()
    row = page.get_by_role("row", name=re.compile(scene.name))
    expect(row).to_contain_text("refused")
    expect(row).to_contain_text("At 05:00 every day")
    row.get_by_role("link", name=scene.name).click()
    notice = page.locator(".last-run")
    expect(notice).to_contain_text("The gate images asks for at least 5,000 images; this build has 30.")
    notice.get_by_role("link").click()
    run = page.locator(f"#run-{date_key(DATES[-1])}")
    expect(run).to_be_in_viewport()
    expect(run.locator(".beside img")).to_have_count(16, timeout=SLOW)
    run.get_by_role("link", name="Compare it with the build that readers get").click()
    expect(page.locator("h1")).to_have_text("Two builds", timeout=SLOW)
    page.goto(f"{mill.web.url}/nights/{scene.name}")
    run.get_by_text("Promote this build", exact=True).first.click()
    run.get_by_role("button", name="Promote this build").click()  # not before it is confirmed
    assert page.url == f"{mill.web.url}/nights/{scene.name}"
    expect(run).not_to_contain_text("Readers get this build.")
    run.get_by_label(re.compile("Readers of red/promoted-by-hand will get this build")).check()
    run.get_by_role("button", name="Promote this build").click()
    expect(run).to_contain_text("Readers get this build.")
    expect(page.locator("a.mark.current")).to_have_attribute("href", f"#run-{date_key(DATES[-1])}")
    check_quiet(watched, mill)


def test_dates_and_points_lead_to_their_runs(watched: Watched, mill: MillServer, nights: NightScene) -> None:
    page = watched.page
    sign_in(page, mill, "red-reader", f"/nights/{nights.name}")
    run = page.locator(f"#run-{date_key(DATES[1])}")
    page.locator(f'a.mark[href="#run-{date_key(DATES[1])}"]').click()
    expect(run).to_be_in_viewport()
    page.evaluate("scrollTo(0, 0)")
    page.locator(f'.gate-chart a[href="#run-{date_key(DATES[-1])}"]').first.click()
    expect(page.locator(f"#run-{date_key(DATES[-1])}")).to_be_in_viewport()
    page.get_by_role("link", name="Earlier months").click()
    expect(page.locator(".month caption")).to_have_count(2)
    assert "month=" in page.url
    assert page.locator("main form").count() == 0
    check_quiet(watched, mill)


def test_a_job_is_watched_from_its_first_images_to_its_promotion(watched: Watched, mill: MillServer) -> None:
    first = submit(mill, "watched")
    mill.service.serve(4)
    page, job = watched.page, submit(mill, "watched", seed=7).job
    sign_in(page, mill, "red-operator", "/jobs")
    page.get_by_role("link", name=job).click()
    expect(page.locator(".shards")).to_contain_text("3 shards: 0 finished, 3 to come.")
    mill.service.serve(1)
    expect(page.locator(".shards")).to_contain_text("1 finished", timeout=SLOW)  # nobody reloads the page
    expect(page.locator("#pictures img")).to_have_count(6, timeout=SLOW)
    expect(page.locator("#about")).to_contain_text("images per worker second", timeout=SLOW)
    mill.service.serve(1)
    expect(page.locator("#pictures img")).to_have_count(12, timeout=SLOW)
    mill.service.serve(2)
    expect(page.locator("#part .state")).to_have_text("committed", timeout=SLOW)
    expect(page.locator("#pictures a img")).to_have_count(18, timeout=SLOW)
    decisions = page.locator("#decisions")
    expect(decisions).to_contain_text("What readers get")
    assert first.job != job
    page.wait_for_timeout(3500)  # a page of a job that has ended asks no more
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3500)
    assert asked == []
    decisions.get_by_label(re.compile("Readers of red/watched will get this build")).check()
    decisions.get_by_role("button", name="Promote this build").click()
    expect(page.locator("h1")).to_have_text("red/watched")
    row = page.get_by_role("row", name=re.compile("what readers get"))
    expect(row).to_contain_text(mill.service.client.status(job).url.rpartition("/")[2])
    check_quiet(watched, mill)


def running_job(mill: MillServer) -> str:
    """A job with shards in every state."""
    job, ledger = submit(mill, "running").job, mill.service.ticket_handler.pool.ledger
    if ledger.counts(job).done == 0 and not ledger.shard_states(job).faults:
        mill.service.serve(1)
        claims = [ledger.claim(3600.0), ledger.claim(3600.0)]
        assert claims[0] is not None
        assert claims[1] is not None
        ledger.renew(claims[0], 3600.0, 7)
        ledger.postpone(claims[1], base=3600.0, cap=3600.0)
        ledger.record_error(job, "shard 2, fault 1: the store did not answer")
    return job


@pytest.fixture(scope="module")
def addresses(mill: MillServer, nights: NightScene) -> dict[str, str]:
    return {
        "home": "/",
        "nights": "/nights",
        "night": f"/nights/{nights.name}",
        "jobs": "/jobs",
        "job": f"/jobs/{mill.status.job}",
        "running": f"/jobs/{running_job(mill)}",
        "dataset": f"/datasets/red/{nights.name}",
        "choice": f"/datasets/red/{nights.name}/compare",
    }


@contextmanager
def page_of(chromium: Any, mill: MillServer, address: str, **options: Any) -> Iterator[Watched]:
    """A page in a context of its own, with the session of an operator."""
    context = chromium.new_context(**options)
    cookie = {"name": "latentmill_session", "value": mill.tokens["red-operator"], "url": mill.web.url}
    context.add_cookies([cookie])
    watched = Watched(context.new_page())
    watched.page.goto(f"{mill.web.url}{address}")
    if address.startswith("/nights/"):
        expect(watched.page.locator(".beside img").first).to_be_visible(timeout=SLOW)
    watched.page.evaluate("for (const each of document.querySelectorAll('main details')) each.open = true")
    yield watched
    context.close()


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("where", ["home", "nights", "night", "jobs", "job", "running", "dataset", "choice"])
def test_pages_are_accessible(
    chromium: Any, mill: MillServer, addresses: dict[str, str], where: str, scheme: str, width: int
) -> None:
    """By the rules of axe-core, in light and in dark, on a screen and on a phone."""
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "bypass_csp": True}
    with page_of(chromium, mill, addresses[where], **options) as watched:
        watched.page.evaluate(AXE.read_text())
        found = watched.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    problems = [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found["violations"]]
    assert problems == []


@pytest.mark.parametrize("where", ["home", "nights", "night", "jobs", "job", "running", "dataset", "choice"])
def test_a_phone_shows_all_of_it(chromium: Any, mill: MillServer, addresses: dict[str, str], where: str) -> None:
    options = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with page_of(chromium, mill, addresses[where], **options) as watched:
        watched.page.wait_for_timeout(300)
        assert watched.page.evaluate("document.documentElement.scrollWidth <= 360")
        check_quiet(watched, mill)


def test_nights_work_by_keyboard(chromium: Any, mill: MillServer, addresses: dict[str, str]) -> None:
    with page_of(chromium, mill, addresses["night"]) as watched:
        page = watched.page
        page.reload()
        mark = page.locator(f'a.mark[href="#run-{date_key(DATES[-1])}"]')
        mark.focus()
        page.keyboard.press("Enter")
        expect(page.locator(f"#run-{date_key(DATES[-1])}")).to_be_in_viewport()
        page.locator(".gate-chart summary").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".gate-chart table").first).to_be_visible()
        check_quiet(watched, mill)
