"""How fast the page of a build of a million samples is, in a real browser: in a local directory, and over S3 HTTP.

``python -m benchmarks.page [--samples N] [--out docs/page.jsonl]``. It needs Chromium and Playwright for Python, and a
machine with nothing else to do. The server, the S3 service (moto) and the browser share the processors of the machine.

Measured for each store, the server being a process of its own:

- ``first_view_cold_s``: from opening the address, nothing gathered yet, until counts and first images are shown;
- ``gather_s``: until the columns are gathered and the filters are there;
- ``first_view_s``: in a server that has just started, whose list of datasets the browser has shown, from opening the
  address, with columns on disk, until histograms, gallery and the points of the map are shown; the median of five
  servers, each with a browser context of its own;
- ``filter_ms``, ``lasso_ms``: the answers to 20 filters and 20 lassos with 60 corners, the counts and histograms of one
  and its map apart, each the median; ``click_ms``: from a click on a bar until the page shows the new count;
- ``server_mib``: the largest resident size of the server process, with mapped files.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import urllib3
from playwright.sync_api import Page, expect, sync_playwright

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from arguments import output_file  # noqa: E402
from page_build import make_build  # noqa: E402
from page_tables import write_tables  # noqa: E402

from generator.store import absolute_url  # noqa: E402
from tests.support.servers import S3Server  # noqa: E402

STARTS, QUESTIONS = 5, 20
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_S3_ARCHIVES = 8  # shards whose images are stored in S3: those of the first pages
_LIMITS = {"first_view_s": 1.0, "filter_ms": 200.0, "filter_map_ms": 200.0, "lasso_ms": 200.0, "server_mib": 512.0}


class ServerProcess:
    """`latentmill serve` without keys, on a port of its own; ``peak``: its largest resident size, in MiB."""

    def __init__(self, home: Path, destination: str, extra: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {
            "ROOT": str(home / "root"),
            "DESTINATIONS": destination,
            "COLUMN_CACHE": str(home / "columns"),
            "STATE_DIR": str(home / "state"),
            "SERVER_WITHOUT_KEYS": "true",
            "SERVER_PORT": str(port),
            "SERVER_REQUESTS": "1000000",
        }
        environment = os.environ | {f"LATENTMILL_{name}": value for name, value in settings.items()} | extra
        self.url, self.peak = f"http://127.0.0.1:{port}", 0.0
        code = "from workers.cli import main; main()"
        self._process = subprocess.Popen([sys.executable, "-c", code, "serve"], env=environment, cwd=home)
        self._watch = threading.Thread(target=self._measure, daemon=True)
        self._watch.start()
        http, deadline = urllib3.PoolManager(retries=False), time.monotonic() + 60.0
        while True:
            with suppress(urllib3.exceptions.HTTPError):
                if http.request("GET", f"{self.url}/static/style.css").status == 200:
                    return
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _measure(self) -> None:
        with suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            while self._process.poll() is None:
                self.peak = max(self.peak, process.memory_info().rss / 2**20)
                time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30.0)


@contextmanager
def serving(home: Path, destination: str, extra: dict[str, str]) -> Iterator[ServerProcess]:
    server = ServerProcess(home, destination, extra)
    try:
        yield server
    finally:
        server.stop()


def measure_store(home: Path, destination: str, place: str, build: str, extra: dict[str, str]) -> dict[str, Any]:
    """All figures for one store."""
    address = f"/datasets/{place}/million/builds/{build}"
    figures: dict[str, Any] = {}
    with browser_page() as new_page:
        with serving(home, destination, extra) as server:
            page = new_page()
            page.goto(f"{server.url}/datasets")
            started = time.perf_counter()
            page.goto(server.url + address)
            expect(page.locator("#gallery img").first).to_be_visible(timeout=600_000)
            figures["first_view_cold_s"] = time.perf_counter() - started
            expect(page.locator("#count")).to_be_visible(timeout=600_000)
            figures["gather_s"] = time.perf_counter() - started
            page.close()
            peak = server.peak
        views = []
        for _ in range(STARTS):
            with serving(home, destination, extra) as server:
                page = new_page()
                page.goto(f"{server.url}/datasets")
                views.append(timed(lambda page=page, server=server: open_view(page, server.url + address)))
                page.close()
                peak = max(peak, server.peak)
        figures["first_view_s"] = statistics.median(views)
        with serving(home, destination, extra) as server:
            page = new_page()
            open_view(page, server.url + address)
            figures["click_ms"] = statistics.median(click_times(page))
            page.close()
            figures |= measure_answers(server.url + address)
            peak = max(peak, server.peak)
    return figures | {"server_mib": peak}


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def open_view(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#confidence-3")).to_be_visible()
    expect(page.locator("#map[data-points]")).to_be_visible()
    expect(page.locator("#gallery img")).to_have_count(48)
    expect(page.locator("#gallery img").first).to_be_visible()


def click_times(page: Page) -> list[float]:
    """Milliseconds from a click on a bar of a histogram until the count has changed, ``QUESTIONS`` times."""
    times = []
    for number in range(QUESTIONS):
        before = page.locator("#count strong").inner_text()
        bar = page.locator(f"#density-{7 + number % 10}")
        started = time.perf_counter()
        bar.click()
        expect(page.locator("#count strong")).not_to_have_text(before)
        times.append(1000 * (time.perf_counter() - started))
    return times


def measure_answers(address: str) -> dict[str, float]:
    """Medians of the answers to filters and lassos, in milliseconds, asked one after another."""
    http = urllib3.PoolManager(retries=False, timeout=60.0)

    def median(suffix: str, queries: list[dict[str, str]], **headers: str) -> float:
        times = []
        for query in queries:
            started = time.perf_counter()
            answer = http.request("GET", f"{address}{suffix}?{urlencode(query)}", headers=headers)
            times.append(1000 * (time.perf_counter() - started))
            assert answer.status == 200, answer.data
        return statistics.median(times)

    part = {"HX-Request": "true"}
    return {
        "filter_ms": median("", filters(), **part),
        "filter_map_ms": median("/map", filters()),
        "lasso_ms": median("", lassos(), **part),
        "lasso_map_ms": median("/map", lassos()),
        "gallery_ms": median("/gallery", [{"page": str(number + 1)} for number in range(QUESTIONS)]),
    }


def filters() -> list[dict[str, str]]:
    """Twenty filters of all kinds."""
    found: list[dict[str, str]] = []
    for number in range(4):
        low = 0.5 + number / 10
        found += [
            {"class": f"class {number}", "confidence": f"{low}..{low + 0.1}"},
            {"density": f"{-100 + 4 * number}..{-90 + 4 * number}", "order": "-density"},
            {"cluster": str(number % 3), "refused": "before"},
            {"where": f"label_confidence > {low} and attempt < {number + 1} and class in ('class 1', 'class 2')"},
            {"refused": "never", "colour": "confidence", "order": "confidence"},
        ]
    return found


def lassos() -> list[dict[str, str]]:
    """Twenty polygons of 60 corners, of all sizes."""
    found = []
    for number in range(QUESTIONS):
        x, y, radius = 3 * math.cos(number), 3 * math.sin(number), 1.0 + number / 3
        corners = [(math.tau * corner / 60, radius * (1 + 0.2 * math.sin(7 * corner))) for corner in range(60)]
        places = [f"{x + own * math.cos(angle):.5f},{y + own * math.sin(angle):.5f}" for angle, own in corners]
        found.append({"region": " ".join(places)})
    return found


@contextmanager
def browser_page() -> Iterator[Callable[[], Page]]:
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    assert path, "Chromium is not installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield lambda: browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        browser.close()


def report(lines: list[dict[str, Any]]) -> str:
    """The figures as a table."""
    names = {
        "first_view_cold_s": "counts and first images, nothing gathered yet (s)",
        "gather_s": "columns gathered, filters and map there, once for a build (s)",
        "first_view_s": "first view of a server just started: filters, map, gallery (s)",
        "click_ms": "from a click on a bar to the new count, in the browser (ms)",
        "filter_ms": "answer to a filter: counts and histograms (ms)",
        "filter_map_ms": "answer to a filter: map (ms)",
        "lasso_ms": "answer to a lasso: counts and histograms (ms)",
        "lasso_map_ms": "answer to a lasso: map (ms)",
        "gallery_ms": "a page of 48 images (ms)",
        "server_mib": "largest resident size of the server (MiB)",
    }
    head = f"| {lines[0]['samples']:,} samples | {' | '.join(line['store'] for line in lines)} | limit |"
    rows = [head, "|---|" + "---:|" * (len(lines) + 1)]
    for name, words in names.items():
        digits = 2 if name.endswith("_s") else 0
        limit = f"{_LIMITS[name]:.0f}" if name in _LIMITS else ""
        rows.append(f"| {words} | {' | '.join(f'{line[name]:.{digits}f}' for line in lines)} | {limit} |")
    machine = lines[0]
    loads = " and ".join(f"{line['load']:.1f}" for line in lines)
    return (
        f"{machine['cores']} cores, {machine['processor']}, Chromium; load average before, of other work:"
        f" {loads}.\n\n" + "\n".join(rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path, help="Where builds are made; a temporary directory by default.")
    parser.add_argument("--out", type=output_file, default=Path(__file__).parents[1] / "docs" / "page.jsonl")
    chosen = parser.parse_args()
    home = chosen.home or Path(tempfile.mkdtemp(prefix="latentmill-page-"))
    machine = {"samples": chosen.samples, "cores": os.cpu_count(), "processor": platform.machine()}
    lines = []
    for store in ("directory", "S3"):
        own = home / store
        shutil.rmtree(own / "columns", ignore_errors=True)
        own.mkdir(parents=True, exist_ok=True)
        if store == "directory":
            destination, extra, archives = str(own / "out"), dict[str, str](), chosen.samples
            server = None
        else:
            server = S3Server()
            destination, archives = f"{server.make_bucket('page')}/out", _S3_ARCHIVES
            extra = {
                "LATENTMILL_S3_ENDPOINT_URL": server.endpoint_url,
                "LATENTMILL_S3_REGION": server.region,
                "LATENTMILL_S3_ACCESS_KEY": server.access_key,
                "LATENTMILL_S3_SECRET_KEY": server.secret_key,
            }
        try:
            url = make_build(destination, "million", chosen.samples, archives, s3=server.settings if server else None)
            build = url.rpartition("/")[2]
            load = os.getloadavg()[0]  # of other work: each measurement waits for one answer at a time
            figures = measure_store(own, absolute_url(destination), "out", build, extra)
        finally:
            if server is not None:
                server.stop()
        lines.append({"store": store, **machine, "load": round(load, 1), **figures})
        print(json.dumps(lines[-1]), flush=True)
    chosen.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_tables(chosen.out.with_suffix(".md"), report(lines), by="page.py")
    if chosen.home is None:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
