"""Pages over HTTP: what they show, that every name is escaped, that nobody sees another tenant's builds."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
import pytest

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.builds import resolve_build
from generator.models.bundle import push, save_bundle
from generator.models.bundle.thumbnails import make_thumbnails
from generator.models.latents.fitting.code_map import fit_code_map
from generator.production.provenance.sample_table import read_rows
from generator.store import open_store
from tests.support.bundles import screened_bundle, tiny_contents
from tests.support.http_server import Answer, RunningServer, running_server
from tests.support.page_visits import Elements
from tests.support.servers import RedisServer
from tests.support.services import ManualService
from tests.support.small_builds import SmallBuild
from workers.settings import Settings

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7777*7777}}"
CLASSES = (HOSTILE, "round & 'square'", "a\u202eb")


class Page(Elements):
    """Elements and text of a page that was answered as one."""

    def __init__(self, answer: Answer) -> None:
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        super().__init__(answer)

    def check_inert(self) -> None:
        """Nothing inline runs: scripts have an address on this server, and no element has a handler or a style."""
        assert all(script.get("src", "").startswith("/static/") for script in self.named("script"))
        names = {name for _, attributes in self.found for name in attributes}
        assert not {name for name in names if name.startswith("on") or name in ("style", "hx-on", "srcdoc")}
        for tag, attribute in (("img", "src"), ("a", "href"), ("form", "action"), ("link", "href")):
            for each in self.named(tag):
                assert each.get(attribute, "/").startswith(("/", "#", "data:image/", "?")), each
        assert not [each for each in self.named("img") if each.get("src") == "x"]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("pages")
    settings = Settings(
        root=str(home / "root"),
        destinations=str(home / "place"),
        column_cache=home / "columns",
        server_without_keys=True,
        server_requests=1_000_000,
    )
    for seed in (0, 1):
        SmallBuild(name="shown", classes=CLASSES, counts=(9, 20, 31), seed=seed).commit(str(home / "place"))
    SmallBuild(name="old", recipe_version=1).commit(str(home / "place"))
    SmallBuild(name="plain", classes=(), counts=(11,)).commit(str(home / "place"))
    with running_server(settings) as server:
        yield server


@pytest.fixture(scope="module")
def base(web: RunningServer) -> str:
    return f"/datasets/place/shown/builds/{builds(web)[0]}"


def builds(web: RunningServer, name: str = "shown") -> list[str]:
    return sorted(path.name for path in (Path(web.settings.destinations or "") / name / "builds").iterdir())


def page(web: RunningServer, path: str, **headers: str) -> Page:
    """The page at ``path``, once columns are gathered."""
    deadline = time.monotonic() + 30.0
    while True:
        found = Page(web.get(path, headers=headers))
        if "are gathered once" not in found.text:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


def address(base: str, *query: tuple[str, str]) -> str:
    return f"{base}?{urlencode(query)}"


def test_lists_lead_to_every_page(web: RunningServer) -> None:
    listed = page(web, "/datasets")
    hrefs = {each["href"] for each in listed.named("a")}
    assert {"/datasets/place/shown", "/datasets/place/old", "/datasets/place/plain"} <= hrefs
    dataset = page(web, "/datasets/place/shown")
    assert {f"/datasets/place/shown/builds/{build}" for build in builds(web)} <= {
        each["href"] for each in dataset.named("a")
    }
    assert "/datasets" in {each["href"] for each in page(web, "/").named("a")}


@pytest.mark.parametrize("path", ["", "/gallery", "/samples/3", "?class=" + quote(HOSTILE)])
def test_names_are_escaped_and_nothing_runs(web: RunningServer, base: str, path: str) -> None:
    found = page(web, base + path)
    found.check_inert()
    assert "60481729" not in found.text


def test_names_are_escaped_where_builds_are_compared(web: RunningServer) -> None:
    first, second = builds(web)
    query = urlencode({"first": first, "second": second, "class": HOSTILE, "where": "attempt >= 0"})
    found = page(web, f"/datasets/place/shown/compare?{query}")
    found.check_inert()
    assert HOSTILE in found.text
    assert "It is the same bundle." in found.text
    assert "seed" in found.text


def test_what_a_request_says_is_escaped_in_its_refusal(web: RunningServer, base: str) -> None:
    for name in ("class", "where", "region", "order", "confidence"):
        answer = web.get(address(base, (name, f"{HOSTILE}, other")))
        assert answer.status == 422
        assert b"<script>alert" not in answer.body
        assert b"onerror=alert(1)>" not in answer.body


def test_a_view_counts_what_it_selects(web: RunningServer, base: str) -> None:
    assert "60 of 60 samples" in page(web, base).text
    found = page(web, address(base, ("class", CLASSES[1])))
    assert "20 of 60 samples" in found.text
    assert "2 more" not in found.text
    part = page(web, address(base, ("class", CLASSES[1])), **{"HX-Request": "true"})
    assert "20 of 60 samples" in part.text
    assert not part.named("html")
    assert page(web, base, **{"HX-Request": "true", "HX-History-Restore-Request": "true"}).named("html")


def test_links_of_filters_lead_to_their_views(web: RunningServer, base: str) -> None:
    found = page(web, base)
    (link,) = (each for each in found.named("a") if each.get("id") == "class-2")
    chosen = page(web, link["href"])
    assert "31 of 60 samples" in chosen.text
    (again,) = (each for each in chosen.named("a") if each.get("id") == "class-2")
    assert again["aria-current"] == "true"
    assert "60 of 60 samples" in page(web, again["href"]).text


def test_a_gallery_holds_the_images_of_the_build(web: RunningServer, base: str) -> None:
    page(web, base)
    found = page(web, f"{base}/gallery")
    assert "1 to 48 of 60" in found.text
    images = found.named("img")
    assert len(images) == 48
    assert all(each["src"].startswith("data:image/png;base64,") for each in images)
    whole = web.get(f"{base}/samples/59/image")
    assert (whole.status, whole.headers["content-type"]) == (200, "image/png")
    store, manifest = resolve_build(f"{web.settings.destinations}/shown/builds/{builds(web)[0]}")
    _, files = ArchiveReader(store, manifest, "png", None).sample(len(manifest.shards) - 1, 4)
    assert whole.body == files["png"]
    assert "49 to 60 of 60" in page(web, f"{base}/gallery?page=2").text
    assert "No sample fits" in page(web, f"{base}/gallery?page=3").text


@pytest.mark.parametrize(("name", "samples"), [("old", 13), ("plain", 11)])
def test_builds_without_places_or_labels_are_shown_too(web: RunningServer, name: str, samples: int) -> None:
    base = f"/datasets/place/{name}/builds/{builds(web, name)[0]}"
    assert f"{samples} of {samples} samples" in page(web, base).text
    assert len(page(web, f"{base}/gallery").named("img")) == samples
    assert page(web, f"{base}/samples/{samples - 1}").text


def test_a_map_is_bytes(web: RunningServer, base: str) -> None:
    page(web, base)
    answer = web.get(f"{base}/map")
    facts = json.loads(answer.body.partition(b"\n")[0])
    assert (answer.status, facts["points"], facts["selected"]) == (200, 60, 60)
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "path", ["/samples/60", "/samples/60/image", "/samples/999999999999999999999", "/samples/60/refused"]
)
def test_samples_beyond_the_build_are_refused(web: RunningServer, base: str, path: str) -> None:
    assert web.get(base + path).status in (404, 422)


def test_a_damaged_image_is_an_error_and_not_shown(web: RunningServer, tmp_path: Path) -> None:
    SmallBuild(name="damaged", seed=3).commit(web.settings.destinations or "")
    (build,) = builds(web, "damaged")
    base = f"/datasets/place/damaged/builds/{build}"
    page(web, base)
    (shard, *_) = sorted((Path(web.settings.destinations or "") / "damaged" / "builds" / build / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(bytes(data))
    answer = web.get(f"{base}/samples/0/image")
    assert answer.status >= 400
    assert str(web.settings.destinations).encode() not in answer.body


def test_builds_of_two_datasets_are_compared(web: RunningServer) -> None:
    first, other = builds(web)[0], builds(web, "old")[0]
    query = urlencode({"first": first, "second": f"place/old/{other}"})
    found = page(web, f"/datasets/place/shown/compare?{query}")
    assert "no map in common" in found.text or "By region" in found.text
    assert web.get(f"/datasets/place/shown/compare?first={first}&second=place/none/{other}").status == 404
    assert web.get(f"/datasets/place/shown/compare?first={first}&second=../../x").status in (403, 404, 422)


def test_pages_need_a_key_and_stay_within_the_tenant(tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.yaml"
    shares = {name: {"destinations": [f"{tmp_path}/places/{name}"]} for name in ("red", "blue")}
    tenants.write_text(json.dumps({"tenants": shares}))
    location, _ = SmallBuild(name="shown").commit(f"{tmp_path}/places/red")
    settings = Settings(root=str(tmp_path / "root"), tenants_file=tenants, column_cache=tmp_path / "columns")
    with running_server(settings) as web:
        reader, other = web.token("red", "reader"), web.token("blue", "operator")
        base = f"/datasets/red/shown/builds/{location.build_id}"
        paths = [
            *(base, f"{base}/map", f"{base}/gallery", f"{base}/samples/0", f"{base}/samples/0/image"),
            *(f"{base}/samples/0/refused", "/datasets/red/shown", "/datasets/red/shown/compare"),
            f"/datasets/red/shown/compare/map?first={location.build_id}&second={location.build_id}",
        ]
        page(web, base, Authorization=f"Bearer {reader}")
        for path in paths:
            assert web.get(path, reader).status == 200, path
            assert web.get(path).status == 303, path
            assert web.get(path, other).status in (403, 404), path
        assert b"red/shown" not in web.get("/datasets", other).body
        assert b"red/shown" in web.get("/datasets", reader).body


@contextmanager
def serving(service: ManualService) -> Iterator[None]:
    """Serves tickets in a thread, as a worker process does."""
    ledger, stop = service.ticket_handler.pool.ledger, threading.Event()
    ledger.register_worker("test", 1, 60.0)

    def serve() -> None:
        while not stop.wait(0.01):
            service.ticket_handler.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        ledger.unregister_worker("test", 1)


def test_refused_draws_are_made_again_by_a_worker(redis_server: RedisServer, tmp_path: Path) -> None:
    bundle = screened_bundle(tmp_path / "bundle")
    service = ManualService(redis_server, bundle, tmp_path)
    service.settings = service.settings.model_copy(
        update={"destinations": str(tmp_path / "out"), "server_without_keys": True, "column_cache": tmp_path / "c"}
    )
    status = service.submit(count=60, label_floor=0.3)
    service.serve(3)
    store, manifest = resolve_build(status.url)
    table = store.get(manifest.shards[0].table.key)
    row = next(row for row in read_rows(table, field="t") if row["attempt"] > 0)
    base = f"/datasets/out/tiny/builds/{manifest.build_id}"
    with running_server(service.settings) as web:
        path = f"{base}/samples/{row['index']}"
        assert f"{path}/refused" in {each.get("hx-get") for each in page(web, path).named("a")}
        assert web.get(f"{path}/refused").status == 503  # no worker
        with serving(service):
            found = page(web, f"{path}/refused", **{"HX-Request": "true"})
        assert len(found.named("img")) == row["attempt"]
        assert "not enough of its class for the judge" in found.text
        found.check_inert()


def test_a_sample_shows_the_nearest_real_images(redis_server: RedisServer, tmp_path: Path) -> None:
    contents = tiny_contents(size=8)
    pictures = make_thumbnails(np.zeros((30, 8, 8, 1), dtype=np.uint8))
    save_bundle(tmp_path / "b", replace(contents, thumbnails=pictures, code_map=fit_code_map(contents.codes)))
    service = ManualService(redis_server, tmp_path / "b", tmp_path)
    service.settings = service.settings.model_copy(
        update={"destinations": str(tmp_path / "out"), "server_without_keys": True, "column_cache": tmp_path / "c"}
    )
    status = service.submit()
    service.serve(3)
    push(open_store(str(tmp_path / "b")), open_store(service.settings.root))
    build = status.url.rpartition("/")[2]
    with running_server(service.settings) as web:
        found = page(web, f"/datasets/out/tiny/builds/{build}/samples/5")
        images = [each for each in found.named("img") if each["alt"].startswith("real image")]
        assert len(images) == 8
        assert all(each["src"].startswith("data:image/jpeg;base64,") for each in images)
        assert f"latentmill replay URL-OF-PLACE/tiny/builds/{build} 5" in found.text
        assert "URL that the place out stands for" in found.text
        assert str(tmp_path) not in found.text


def test_who_runs_the_server_alone_gets_the_command_with_the_url(tmp_path: Path) -> None:
    home = tmp_path / "a place"
    build = SmallBuild(name="own", classes=(), counts=(3,)).commit(str(home / "datasets"))[0]
    settings = Settings(root=str(tmp_path / "root"), server_directory=home, server_without_keys=True)
    with running_server(settings) as web:
        found = page(web, f"/datasets/datasets/own/builds/{build.build_id}/samples/1")
    command = shlex.split(found.text.partition("same environment: ")[2].partition(" 1")[0])
    assert command[:2] == ["latentmill", "replay"]
    assert resolve_build(command[2])[1].build_id == build.build_id
    assert "URL-OF-PLACE" not in found.text


NAMES = ("class", "cluster", "confidence", "density", "refused", "order", "colour", "page")
VALUES = ("\x00", "../../etc/passwd", "-1", "9" * 400, "\u00e9\u202e", "1e309..2", "' or 1=1 --", "%00")
FILTERS = (
    *("(" * 500, "not " * 500 + "index < 1", "class in (1, 'a')", "index < 1e400", "class > 5", "label = true"),
    *("index in (1, true, 'x')", "'" * 400, "index == 1 \x00", "attempt is null or " * 200 + "attempt > 1"),
    *("class == '" + "x" * 4000 + "'", "__import__('os').system('id')", "index < 99999999999999999999"),
)
REGIONS = (*("0,0 1,1", "0,0 " * 600, "nan,nan 1,1 2,2", "1e99,1e99 -1e99,1e99 0,-1e99", "0,0 0,0 0,0", "a,b c,d e,f"),)
QUERIES = [
    *((name, value) for name in NAMES for value in VALUES),
    *(("where", text) for text in FILTERS),
    *(("region", text) for text in REGIONS),
]


@pytest.mark.parametrize("route", ["", "/map", "/gallery"])
def test_hostile_queries_are_answered_or_refused(web: RunningServer, base: str, route: str) -> None:
    page(web, base)
    for name, value in QUERIES:
        answer = web.get(f"{base}{route}?{urlencode({name: value})}")
        assert answer.status in (200, 422), (name, value[:60], answer.status, answer.body[:500])
        assert b"Traceback" not in answer.body
        if answer.status == 422:
            assert len(answer.body) < 20_000, (name, value[:60])


@pytest.mark.parametrize(
    "path",
    [
        *("/datasets/..%2f..%2fetc", "/datasets/place/..%2fshown", "/datasets/place/../../x", "/datasets/%00"),
        *("/datasets/place/shown/builds/..%2f..", "/datasets/place/shown/builds/" + "0" * 20, "/datasets//etc/passwd"),
        *("/datasets/file%3A%2F%2F%2Fetc", "/datasets/s3%3A%2F%2Fother%2Fx", "/datasets/place/" + "a/" * 300),
        *("/static/..%2f..%2fsettings.py", "/datasets/place/shown/compare?first=..%2F..%2Fx&second=%00"),
        "/datasets/place/shown/compare/map?first=place%2F..%2Fshown%2F1&second=" + "0" * 20,
    ],
)
def test_paths_lead_to_datasets_of_the_tenant_alone(web: RunningServer, path: str) -> None:
    answer = web.get(path)
    assert answer.status in (400, 403, 404, 422), (answer.status, answer.body[:300])
    assert str(Path(web.settings.root).parent).encode() not in answer.body
