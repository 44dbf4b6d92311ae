"""Pages of bundles: what they show and to whom, what a worker measures, and what is missing or damaged."""

from __future__ import annotations

import io
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from generator.curation.diagnosis.report import read_report
from generator.models.bundle import bundle_store, push
from generator.models.bundle.channels import move_channel
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.mill_server import MillServer, mill_server
from tests.support.page_visits import CLASSES, EVIL, Visitor, kept_bundle
from tests.support.servers import RedisServer


def add_bundle(mill: MillServer, directory: Path, line: str = "red-line") -> str:
    """Push another bundle, and point red's channel to it for a moment, so that red may use it."""
    root = open_store(mill.service.settings.root)
    digest = push(open_store(str(tiny_bundle(directory, seed=7, classes=()))), root)
    move_channel(root, line, digest, by="a test", at=datetime.now(UTC))
    move_channel(root, line, mill.bundle, by="a test", at=datetime.now(UTC))
    return digest


def test_a_bundle_shows_what_it_was_made_of_and_how_well_it_does(mill: MillServer, visitor: Visitor) -> None:
    page = visitor.page(f"/bundles/{mill.bundle}")
    assert f"source {EVIL}, vae" in page.text
    assert "8 x 8 pixels, grey" in page.text
    assert "27 images, and 3 held out" in page.text
    assert "mixture, 6 clusters" in page.text
    assert f"latentmill pull {mill.bundle} --out my.bundle" in page.text
    pairs = [each for each in page.named("img") if each["src"].startswith("data:image/jpeg;base64,")]
    assert len(pairs) == 12
    assert sum(each["alt"] == "its reconstruction" for each in pairs) == 6
    assert {each["alt"].removeprefix("held-out image of class ") for each in pairs[::2]} == set(CLASSES)


def test_training_is_drawn_and_listed(mill: MillServer, visitor: Visitor) -> None:
    page = visitor.page(f"/bundles/{mill.bundle}")
    lines = {each["class"]: each["points"].split() for each in page.named("polyline") if len(each["points"]) > 20}
    assert set(lines) == {"train", "holdout"}
    assert all(len(points) == 40 for points in lines.values())
    (drawing,) = (each for each in page.named("svg") if each.get("role") == "img")
    _, _, width, height = (float(number) for number in drawing["viewbox"].split())
    for points in lines.values():
        assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in (each.split(",") for each in points))
    assert "lowest in epoch 10, 20" in page.text
    answer = visitor.get(f"/bundles/{mill.bundle}").body.decode()
    assert re.search(r"<th scope=\"row\">10 <span[^>]*>best</span></th>", answer)


def test_what_uses_a_bundle_is_looked_up_for_the_tenant(mill: MillServer, visitor: Visitor) -> None:
    page = visitor.page(f"/bundles/{mill.bundle}")
    hrefs = {each["href"] for each in page.named("a")}
    build = mill.status.url.rpartition("/")[2]
    assert f"/datasets/red/tiny/builds/{build}" in hrefs
    assert "/nights/nightly" in hrefs
    assert "red-line" in page.text
    assert "blue" not in page.text
    draft = mill.body("POST", "/api/v1/jobs") | {"name": "unfinished"}
    job = mill.web.post("/api/v1/jobs", mill.tokens["red-submitter"], draft).document["job"]
    assert f"/jobs/{job}" in {each["href"] for each in visitor.page(f"/bundles/{mill.bundle}").named("a")}
    other = Visitor(mill, "blue-reader").page(f"/bundles/{mill.bundle}")
    assert all(each not in other.text for each in ("red-line", "red/tiny", "nightly", job))
    assert "blue/tiny" in other.text
    assert mill.web.post(f"/api/v1/jobs/{job}/cancel", mill.tokens["red-submitter"]).status == 200


def test_the_list_has_names_dates_pictures_and_uses(mill: MillServer, visitor: Visitor, tmp_path: Path) -> None:
    plain = add_bundle(mill, tmp_path / "plain")
    page = visitor.page("/bundles")
    rows = [each["href"] for each in page.named("a") if each["href"].startswith("/bundles/sha256:")]
    assert rows[-2:] == [f"/bundles/{plain}", f"/bundles/{mill.bundle}"]  # the newest first
    assert f"source {EVIL}" in page.text
    assert re.search(r"channel red-line 1 schedule .*\d builds?", page.text)
    assert datetime.now(UTC).strftime("%Y-%m-%d") in page.text
    (picture,) = page.named("img")
    answer = visitor.get(picture["src"])
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(answer.body)) as sheet:
        assert sheet.size == (220, 88)
    assert visitor.get(f"/bundles/{plain}/picture").status == 404
    shown = visitor.page(f"/bundles/{plain}")
    assert "keeps no pictures of them" in shown.text
    assert "earlier: red-line" in shown.text


def test_long_lists_have_pages(mill: MillServer, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.server.pages import bundles

    monkeypatch.setattr(bundles, "_PAGE", 1)
    first = visitor.page("/bundles")
    total = int(re.search(r"1 to 1 of (\d+)", first.text)[1])  # type: ignore[index]
    assert total > 1
    seen, page = [], first
    while following := [each["href"] for each in page.named("a") if each.get("rel") == "next"]:
        seen.append(following[0])
        page = visitor.page(following[0])
    assert len(seen) == total - 1
    assert visitor.get("/bundles?after=sha256:nothing").status == 200


def test_bundles_of_another_tenant_are_not_there(mill: MillServer) -> None:
    green = Visitor(mill, "green-operator")
    assert mill.bundle not in green.get("/bundles").body.decode()
    for path in ("", "/picture", "/samples", "/verdict", "/verdict/map.png"):
        assert green.get(f"/bundles/{mill.bundle}{path}").status == 404, path
    assert green.send(f"/bundles/{mill.bundle}/diagnosis").status == 404


def test_readers_get_no_forms_and_cannot_have_workers_work(mill: MillServer) -> None:
    reader = Visitor(mill, "red-reader")
    page = reader.page(f"/bundles/{mill.bundle}")
    main = reader.get(f"/bundles/{mill.bundle}").body.decode().partition("<main")[2]
    assert "<form" not in main
    assert "New job" not in page.text
    assert reader.get(f"/bundles/{mill.bundle}/samples").status == 403
    assert reader.send(f"/bundles/{mill.bundle}/diagnosis").status == 403


def test_forms_need_the_value_of_their_session(mill: MillServer, visitor: Visitor) -> None:
    assert visitor.send(f"/bundles/{mill.bundle}/diagnosis", csrf="x").status == 403


def test_a_worker_makes_samples_of_every_class(mill: MillServer, visitor: Visitor) -> None:
    path, before = f"/bundles/{mill.bundle}/samples", mill.objects()
    away = visitor.get(path, **{"HX-Request": "true"})
    assert (away.status, b"none that has announced itself" in away.body) == (200, True)
    assert visitor.get(path).status == 503
    with mill.service.answering():
        page = visitor.page(path)
    images = [each for each in page.named("img") if each["src"].startswith("data:image/png")]
    assert len(images) == 30
    assert {each["alt"] for each in images} == {f"sample of class {name}" for name in CLASSES}
    assert mill.objects() == before


def test_a_worker_diagnoses_a_bundle_and_its_verdict_is_kept_beside_it(mill: MillServer, visitor: Visitor) -> None:
    path = f"/bundles/{mill.bundle}"
    assert "Not looked at yet" in visitor.page(path).text
    assert visitor.get(f"{path}/verdict/map.png").status == 404
    assert mill.web.get(f"/api/v1{path}/diagnosis", mill.tokens["red-reader"]).status == 404
    assert visitor.send(f"{path}/diagnosis").status == 503  # no worker
    before = mill.objects()
    with mill.service.answering():
        answer = visitor.send(f"{path}/diagnosis")
        assert answer.status == 303
        target = answer.headers["location"].partition("#")[0]
        part = target.replace(f"{path}?", f"{path}/verdict?")
        waiting = visitor.page(target)
        if "A worker is at it" in waiting.text:
            assert waiting.by_id("verdict")["hx-get"] == part
        deadline = time.monotonic() + 120.0
        while (found := visitor.get(part)).status == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert found.status == 286  # the page asks no more
    page = visitor.page(path)
    assert re.search(r"(safe|scattered|undecided|ring-like|not convex|convex cloud)", page.text)
    assert "dimensions in use 4 of 4" in page.text
    assert "Diagnose again" in page.text
    pictures = [each["src"] for each in page.named("img") if "/verdict/" in each["src"]]
    assert len(pictures) == 4
    for picture in pictures:
        drawn = visitor.get(picture)
        assert (drawn.status, drawn.headers["content-type"], drawn.body[:4]) == (200, "image/png", b"\x89PNG")
    assert visitor.get(f"{path}/verdict/../bundle.json.png").status == 404
    reader = mill.tokens["red-reader"]
    assert mill.web.get(f"/api/v1{path}/diagnosis", reader).document["bundle"] == mill.bundle
    added = {key for key in mill.objects() if key not in before}
    assert all("/reports/" in key for key in added)
    report = read_report(bundle_store(open_store(mill.service.settings.root), mill.bundle), mill.bundle)
    assert report is not None
    assert report.quick


def test_an_answer_that_never_comes_is_said(mill: MillServer, visitor: Visitor, tmp_path: Path) -> None:
    plain = add_bundle(mill, tmp_path / "never")
    path = f"/bundles/{plain}/verdict?query={'0' * 32}&until=1"
    answer = visitor.get(path)
    assert (answer.status, b"No worker has answered in time" in answer.body) == (286, True)
    assert visitor.get(f"/bundles/{plain}/verdict?query=../../x").status == 422
    assert visitor.get(f"/bundles/{plain}/verdict?query={'0' * 32}&until=99999999999").status == 200


def test_a_damaged_bundle_shows_its_page_with_a_word(mill: MillServer, visitor: Visitor) -> None:
    root = Path(mill.service.settings.root) / "bundles" / mill.bundle.removeprefix("sha256:")
    path, file = f"/bundles/{mill.bundle}", root / "reconstructions.safetensors"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + b"\x00")
        assert "reconstructions.safetensors is missing or damaged" in visitor.page(path).text
        file.unlink()
        assert "reconstructions.safetensors is missing or damaged" in visitor.page(path).text
    finally:
        file.write_bytes(whole)
    info = root / "bundle.json"
    document = info.read_bytes()
    try:
        info.write_bytes(document + b" ")
        assert visitor.get(path).status == 422
        listed = visitor.page("/bundles")
        assert "bundle.json is not what it should be" in listed.text
        assert str(mill.service.home) not in listed.text
        info.unlink()
        assert visitor.get(path).status == 404
        assert visitor.get("/bundles").status == 200
    finally:
        info.write_bytes(document)
    report = root / "reports" / "diagnosis.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text('{"report_version": 7}')
    assert "Not looked at yet" in visitor.page(path).text
    report.unlink()


def test_the_api_has_the_facts_of_the_list_and_the_uses(mill: MillServer, tmp_path: Path) -> None:
    plain = add_bundle(mill, tmp_path / "listed")
    reader = mill.tokens["red-reader"]
    items = mill.web.get("/api/v1/bundles", reader).document["items"]
    assert [item["bundle"] for item in items] == sorted(item["bundle"] for item in items)
    (kept,) = (item for item in items if item["bundle"] == mill.bundle)
    facts = {"source": f"source {EVIL}", "family": "vae", "sampler": "mixture", "classes": 3, "channels": ["red-line"]}
    assert facts.items() <= kept.items()
    assert datetime.fromisoformat(kept["created"]).tzinfo is not None
    first = mill.web.get("/api/v1/bundles?limit=1", reader).document
    assert (len(first["items"]), first["next"]) == (1, items[0]["bundle"])
    uses = mill.web.get(f"/api/v1/bundles/{mill.bundle}/uses", reader).document
    assert (uses["channels"], uses["schedules"], uses["unknown"]) == (["red-line"], ["nightly"], [])
    assert {"dataset": "red/tiny", "build": mill.status.url.rpartition("/")[2]} in uses["builds"]
    assert mill.web.get(f"/api/v1/bundles/{plain}/uses", reader).document["earlier"] == ["red-line"]
    for path in ("uses", "diagnosis"):
        assert mill.web.get(f"/api/v1/bundles/{mill.bundle}/{path}", mill.tokens["green-reader"]).status == 404


def test_what_cannot_be_looked_up_is_named_and_the_pages_are_there(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mill_server(redis_server, kept_bundle(tmp_path / "kept"), tmp_path) as mill:
        monkeypatch.setattr("workers.server.listing.MAX_FOLDERS", 0)
        redis_server.kill()
        visitor = Visitor(mill)
        for path in ("/bundles", f"/bundles/{mill.bundle}"):
            assert "builds at red" in visitor.page(path).text
        sent = visitor.send(f"/bundles/{mill.bundle}/diagnosis")
        assert (sent.status, b"a Redis that answers" in sent.body) == (503, True)
        asked = visitor.get(f"/bundles/{mill.bundle}/verdict?query={'0' * 32}&until=99999999999")
        assert (asked.status, b"Redis" in asked.body, b"redis://" in asked.body) == (200, True, False)  # it asks again


def test_one_request_reads_a_bounded_number_of_recipes(
    mill: MillServer, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.server import bundle_uses

    monkeypatch.setattr(bundle_uses, "_recipes", bundle_uses._RecipeShelf())
    monkeypatch.setattr(bundle_uses, "_MAX_READ", 0)
    assert "ask again" in visitor.page(f"/bundles/{mill.bundle}").text
    monkeypatch.setattr(bundle_uses, "_MAX_READ", 1)
    for _ in range(20):  # each request goes on where the last one ended
        text = visitor.page(f"/bundles/{mill.bundle}").text
    assert "ask again" not in text
