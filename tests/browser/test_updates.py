"""Parts of pages that are asked for again: what the page says while the server does not answer, and afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import Watched
from tests.support.browsing import sign_in
from tests.support.bundles import tiny_bundle
from tests.support.mill_server import MillServer, mill_server
from tests.support.servers import RedisServer

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
SLOW = 20_000  # ms


@pytest.fixture(scope="module")
def mill(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MillServer]:
    home = tmp_path_factory.mktemp("mill")
    with mill_server(server, tiny_bundle(home / "bundle"), home) as found:
        yield found


@pytest.mark.parametrize("which", ["job", "jobs", "night", "nights"])
def test_a_page_that_follows_says_since_when_it_does_not(watched: Watched, mill: MillServer, which: str) -> None:
    place = f"{mill.service.home}/places/red"
    job = mill.service.submit(f"cut-{which}", destination=place, tenant="red", count=40, shard_size=20).job
    path = {"job": f"/jobs/{job}", "jobs": "/jobs", "night": "/nights/nightly", "nights": "/nights"}[which]
    asked = {
        "job": "**/jobs/*?part=true",
        "jobs": "**/jobs?rows=true*",
        "night": "**/nights/nightly/state*",
        "nights": "**/nights?part=true",
    }[which]
    page: Any = watched.page
    sign_in(page, mill, "red-reader", path)
    notice = page.locator("#not-updated")
    with page.expect_response(re.compile(r"=true|/state"), timeout=SLOW):
        sync_api.expect(notice).to_be_hidden()
    page.route(asked, lambda route: route.fulfill(status=503, body="away"))
    words = re.compile(r"^Not updated since \d\d:\d\d UTC: the server answers 503; trying again\.$")
    sync_api.expect(notice).to_have_text(words, timeout=SLOW)
    sync_api.expect(notice).to_be_visible()
    page.unroute(asked)
    page.route(asked, lambda route: route.abort())
    sync_api.expect(notice).to_contain_text("the server does not answer", timeout=SLOW)
    page.unroute(asked)
    sync_api.expect(notice).to_be_hidden(timeout=SLOW)
    mill.service.client.cancel(job)
    known = ("Failed to load resource", "Response Status Error Code 503", "htmx:")
    assert [fault for fault in watched.faults if not fault.startswith(known)] == []
