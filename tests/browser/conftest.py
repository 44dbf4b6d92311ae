"""A real browser, a server with builds, and a page that notes everything that went wrong in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from generator.models.bundle import load_bundle, push, save_bundle
from generator.models.bundle.thumbnails import make_thumbnails
from generator.models.latents.fitting.code_map import fit_code_map
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import tiny_contents
from tests.support.http_server import RunningServer, running_server
from workers.settings import Settings

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CLASSES = ("<b>cat</b>\"'<img src=x onerror=alert(1)>", "dog", "owl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Chromium of the system, without a window."""
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        assert "LATENTMILL_NEED_CHROMIUM" not in os.environ, "Chromium is missing where it must not be"
        pytest.skip(f"no Chromium: none of {', '.join(CHROMIUM)} is installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page of the browser. ``faults``: errors, refused scripts and styles, dialogs; ``hosts``: who was asked."""

    page: Any
    faults: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _refuse(self, dialog: Any) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield Watched(context.new_page())
    context.close()


@dataclass(frozen=True)
class Site:
    """A server with two builds of 600 samples of one bundle, in the dataset ``shown`` at the place ``place``."""

    web: RunningServer
    builds: tuple[str, str]
    folder: Path

    @property
    def base(self) -> str:
        return f"{self.web.url}/datasets/place/shown/builds/{self.builds[0]}"

    @property
    def comparison(self) -> str:
        return f"{self.web.url}/datasets/place/shown/compare?first={self.builds[0]}&second={self.builds[1]}"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    contents = tiny_contents(classes=CLASSES, size=16)
    pictures = make_thumbnails(contents.codes.codes_ND[:, :1, None, None].repeat(16, 1).repeat(16, 2).astype("uint8"))
    save_bundle(home / "bundle", replace(contents, thumbnails=pictures, code_map=fit_code_map(contents.codes)))
    bundle = load_bundle(open_store(str(home / "bundle")))
    push(open_store(str(home / "bundle")), open_store(str(home / "root")))
    builds = []
    for counts in ((200, 200, 200), (150, 250, 200)):
        recipe = Recipe(
            bundle=bundle.digest,
            classes=CLASSES,
            counts=counts,
            batch=32,
            shard_size=200,
            density_floor=0.2,
            published="2026-03-01",
            page=True,
        )
        location = locate_build(JobSpec(recipe=recipe, order=Order(destination=str(home / "place"), name="shown")))
        build(location, bundle, device="cpu")
        builds.append(location.build_id)
    settings = Settings(
        root=str(home / "root"),
        destinations=str(home / "place"),
        column_cache=home / "columns",
        server_without_keys=True,
        server_requests=1_000_000,
    )
    with running_server(settings) as web:
        yield Site(web, (builds[0], builds[1]), home / "place" / "shown" / "builds" / builds[0])
