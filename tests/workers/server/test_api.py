"""The API over a small service: what each route answers."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from generator.curation.gates import Gates, evaluate_gates
from generator.datasets.torch_dataset import open_dataset
from generator.spec import plan
from generator.spec.canonical import digest_of
from generator.store import open_store
from tests.support.mill_server import SCHEDULE, MillServer, show


def get(mill: MillServer, path: str, role: str = "reader") -> Any:
    answer = mill.web.get(path if path.startswith("/") else f"/api/v1/{path}", mill.tokens[f"red-{role}"])
    assert answer.status == 200, answer.body
    return answer.document


def change(mill: MillServer, method: str, path: str, document: Any = None, status: int = 200) -> Any:
    answer = mill.web.ask(
        method, path if path.startswith("/") else f"/api/v1/{path}", mill.tokens["red-operator"], document
    )
    assert answer.status == status, answer.body
    return answer.document if answer.body else None


def test_every_route_is_described(mill: MillServer) -> None:
    document = mill.web.get("/api/v1/openapi.json").document
    assert document["openapi"].startswith("3.")
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route["summary"], (method, path)
            assert route["description"] or path.endswith("health"), (method, path)
    draft = document["components"]["schemas"]["DraftBody"]["properties"]
    assert {"bundle", "channel", "destination", "count", "draw"} <= set(draft)


def test_the_manifest_is_the_stored_one_and_is_sent_once(mill: MillServer) -> None:
    stored = open_store(str(mill.service.home / "places")).get(
        mill.status.url.partition("/places/")[2] + "/manifest.json"
    )
    answer = mill.web.get(mill.build + "/manifest", mill.tokens["red-reader"])
    assert answer.body == stored
    known = {"If-None-Match": answer.headers["etag"]}
    again = mill.web.get(mill.build + "/manifest", mill.tokens["red-reader"], headers=known)
    assert (again.status, again.body) == (304, b"")
    other = mill.web.get(mill.build + "/manifest", mill.tokens["red-reader"], headers={"If-None-Match": '"x"'})
    assert other.status == 200


def test_segments_of_a_large_build_are_the_stored_ones(mill: MillServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SEGMENT_SHARDS", 1)
    job = mill.service.submit("many", destination=f"{mill.service.home}/places/red", tenant="red")
    mill.service.serve(3)
    build, token = f"/api/v1/datasets/red/many/builds/{job.url.rpartition('/')[2]}", mill.tokens["red-reader"]
    segments = mill.web.get(f"{build}/manifest", token).document["segments"]
    assert [each["first"] for each in segments] == [0, 1]
    for each in segments:
        answer = mill.web.get(f"{build}/segments/{each['first']}", token)
        assert digest_of(answer.body) == each["digest"]
    assert mill.web.get(f"{build}/segments/2", token).status == 404
    assert mill.web.get(f"{build}/segments/0", mill.tokens["blue-reader"]).status == 403
    for index in (0, 59):
        assert mill.web.get(f"{build}/samples/{index}/image", token).status == 200
        assert f"many-{index // 30:06d}" in show(mill, f"{build.removeprefix('/api/v1')}/samples/{index}")
    shutil.rmtree(mill.service.home / "places/red/many")  # other tests list what is there


def test_samples_are_those_of_the_dataset(mill: MillServer) -> None:
    dataset = open_dataset(mill.status.url, map_style=True)
    rows, path = list[dict[str, Any]](), mill.build + "/samples?limit=7"
    following: str | None = ""
    while following is not None:
        page = get(mill, path + (f"&after={following}" if following else ""))
        rows, following = rows + page["items"], page["next"]
        assert len(page["items"]) <= 7
    assert [row["index"] for row in rows] == list(range(60))
    assert [row["label"] for row in rows] == [sample.label for sample in dataset]
    for index in (0, 29, 30, 59):
        assert get(mill, f"{mill.build}/samples/{index}") == rows[index]
        image = mill.web.get(f"{mill.build}/samples/{index}/image", mill.tokens["red-reader"])
        assert hashlib.sha256(image.body).hexdigest() == rows[index]["image_sha256"]
        assert image.headers["content-type"] == "image/png"
        assert "immutable" in image.headers["cache-control"]
        assert Image.open(io.BytesIO(image.body)).size == (8, 8)


@pytest.mark.parametrize(
    "where", ["class in ('cat', 'owl') and index >= 20", "log_density > 0 or cluster == 1", "index < 0"]
)
def test_a_filter_selects_as_it_does_for_readers(mill: MillServer, where: str) -> None:
    from urllib.parse import quote

    rows, following = list[int](), ""
    while following is not None:
        page = get(
            mill, f"{mill.build}/samples?limit=5&where={quote(where)}" + (f"&after={following}" if following else "")
        )
        rows, following = rows + [row["index"] for row in page["items"]], page["next"]
    whole = open_dataset(mill.status.url).table().to_pylist()
    try:
        wanted = [row["index"] for row in open_dataset(mill.status.url, where=where).table().to_pylist()]
    except Exception:
        wanted = []
    assert rows == wanted
    assert len(whole) == 60


def test_documents_of_a_build(mill: MillServer) -> None:
    token = mill.tokens["red-reader"]
    card = mill.web.get(mill.build + "/documents/card", token)
    assert card.headers["content-type"].startswith("text/markdown")
    assert b"tiny" in card.body
    assert mill.web.get(mill.build + "/documents/croissant", token).document["name"]
    assert mill.web.get(mill.build + "/documents/preview", token).body.startswith(b"\xff\xd8")
    assert mill.web.get(mill.build + "/documents/secrets", token).status == 422
    assert mill.web.get(mill.build + "/report", token).status == 404


def test_a_verdict_is_shown_once_there_is_one(mill: MillServer) -> None:
    assert mill.web.get(mill.build + "/verdict", mill.tokens["red-reader"]).status == 404
    dataset, _, build = mill.status.url.partition("/builds/")
    store = open_store(mill.service.settings.root).at(f"bundles/{mill.bundle.removeprefix('sha256:')}")
    evaluate_gates(open_store(dataset), build, Gates(), logical_date=None, bundle=store)
    assert get(mill, mill.build + "/verdict")["build"] == build


def test_datasets_and_builds_are_listed(mill: MillServer) -> None:
    assert get(mill, "datasets")["items"] == [{"dataset": "red/tiny"}]
    assert get(mill, "datasets?place=red")["items"] == [{"dataset": "red/tiny"}]
    build = mill.status.url.rpartition("/")[2]
    rows = get(mill, "datasets/red/tiny/builds")["items"]
    assert [(row["build"], row["committed"]) for row in rows] == [(build, True)]


def test_a_build_is_promoted_pinned_and_rolled_back(mill: MillServer) -> None:
    first = mill.status.url.rpartition("/")[2]
    draft = mill.body("POST", "/api/v1/jobs") | {"seed": 9}
    second = change(mill, "POST", "jobs", draft, 202)["build"]
    mill.service.serve(3)
    for build in (first, second):
        done = change(mill, "POST", f"datasets/red/tiny/builds/{build}/promote", {})
        assert (done["outcome"], done["state"]["build"]) == ("moved", build)
        assert done["state"]["current"]["by"].endswith("of red")
    assert change(mill, "POST", f"datasets/red/tiny/builds/{second}/promote")["outcome"] == "already"
    assert change(mill, "PUT", f"datasets/red/tiny/builds/{first}/pin", {"note": "good"})["pins"][0]["note"] == "good"
    assert change(mill, "POST", "datasets/red/tiny/rollback", {})["build"] == first
    state = get(mill, "datasets/red/tiny/state")
    assert (state["build"], [pin["build"] for pin in state["pins"]]) == (first, [first])
    rows = {row["build"]: row for row in get(mill, "datasets/red/tiny/builds?limit=1")["items"]}
    assert len(rows) == 1
    assert change(mill, "DELETE", f"datasets/red/tiny/builds/{first}/pin")["pins"] == []
    missing = mill.web.post(f"/api/v1/datasets/red/tiny/builds/{'0' * 20}/promote", mill.tokens["red-operator"], {})
    assert missing.status == 404


def test_bundles_are_listed_and_inspected(mill: MillServer) -> None:
    (listed,) = get(mill, "bundles")["items"]
    assert (listed["bundle"], listed["source"], listed["channels"]) == (mill.bundle, "tiny", ["red-line"])
    answer = mill.web.get(f"/api/v1/bundles/{mill.bundle}", mill.tokens["red-reader"])
    assert f"sha256:{hashlib.sha256(answer.body).hexdigest()}" == mill.bundle
    assert get(mill, "channels")["items"][0]["line"] == "red-line"
    assert get(mill, "channels/red-line")["current"]["bundle"] == mill.bundle
    assert change(mill, "PUT", "channels/red-new", {"bundle": mill.bundle})["line"] == "red-new"
    assert (
        mill.web.ask("PUT", "/api/v1/channels/blue-x", mill.tokens["red-operator"], {"bundle": mill.bundle}).status
        == 404
    )
    assert mill.web.ask("PUT", "/api/v1/channels/red-new", mill.tokens["red-operator"], {"bundle": None}).status == 404


def test_a_job_by_channel_is_the_job_by_digest(mill: MillServer) -> None:
    draft = mill.body("POST", "/api/v1/jobs") | {"name": "channelled"}
    first = change(mill, "POST", "jobs", draft, 202)
    by_channel = {name: value for name, value in draft.items() if name != "bundle"} | {"channel": "red-line"}
    answer = mill.web.post("/api/v1/jobs", mill.tokens["red-submitter"], by_channel)
    assert answer.document["job"] == first["job"]
    assert answer.headers["location"] == f"/api/v1/jobs/{first['job']}"
    assert (first["dataset"], first["url"]) == ("red/channelled", f"red/channelled/builds/{first['build']}")


def test_jobs_are_paged_the_newest_first(mill: MillServer) -> None:
    draft = mill.body("POST", "/api/v1/jobs")
    for seed in range(5):
        change(mill, "POST", "jobs", draft | {"name": f"paged-{seed}"}, 202)
    names, following = list[str](), ""
    while following is not None:
        page = get(mill, "jobs?limit=2" + (f"&after={following}" if following else ""))
        names, following = names + [job["name"] for job in page["items"]], page["next"]
    assert names[:5] == [f"paged-{seed}" for seed in reversed(range(5))]
    assert len(names) == len(set(names)) or names.count("tiny") == len(names) - len(set(names)) + 1
    ended = get(mill, "jobs?state=ended")["items"]
    assert {job["state"] for job in ended} == {"committed"}
    assert all(job["tenant"] == "red" for job in get(mill, "jobs?limit=500")["items"])


def test_a_failed_job_shows_its_errors_without_tracebacks_and_paths(mill: MillServer) -> None:
    draft = mill.body("POST", "/api/v1/jobs") | {"name": "broken", "density_floor": 0.999999, "max_attempts": 1}
    job = change(mill, "POST", "jobs", draft, 202)["job"]
    mill.service.serve(30)
    view = get(mill, f"jobs/{job}")
    assert view["state"] == "failed"
    assert view["dead"]
    text = json.dumps(view)
    assert "Traceback" not in text
    assert str(mill.service.home) not in text


def test_events_follow_a_job_to_its_end(mill: MillServer) -> None:
    draft = mill.body("POST", "/api/v1/jobs") | {"name": "followed"}
    job = change(mill, "POST", "jobs", draft, 202)["job"]
    connection = http.client.HTTPConnection("127.0.0.1", mill.web.port, timeout=60)
    headers = {"Authorization": f"Bearer {mill.tokens['red-reader']}"}
    connection.request("GET", f"/api/v1/jobs/{job}/events", headers=headers)
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    worker = threading.Thread(target=lambda: mill.service.serve(40))
    worker.start()
    events = [part for part in answer.read().decode().split("\n\n") if "event: status" in part]
    worker.join()
    states = [json.loads(event.partition("data: ")[2])["state"] for event in events]
    assert states[0] == "queued"
    assert states[-1] == "committed"
    connection.close()


def test_a_schedule_is_added_run_paused_and_removed(mill: MillServer) -> None:
    body = SCHEDULE | {"job": SCHEDULE["job"] | {"name": "second", "destination": "red/nights/{date:%Y}"}}
    added = change(mill, "PUT", "schedules/second", body)
    assert (added["paused"], len(added["upcoming"])) == (False, 3)
    assert added["schedule"]["job"]["destination"] == "red/nights/{date:%Y}"
    assert added["schedule"]["tenant"] == "red"
    assert change(mill, "PUT", "schedules/second", body) == added
    assert (
        mill.web.ask(
            "PUT", "/api/v1/schedules/second", mill.tokens["red-operator"], body | {"cron": "1 1 * * *"}
        ).status
        == 422
    )
    assert (
        change(mill, "PUT", "schedules/second?replace=true", body | {"cron": "1 1 * * *"})["schedule"]["cron"]
        == "1 1 * * *"
    )
    run = change(mill, "POST", "schedules/second/runs", {"date": "2026-01-05"}, 202)
    assert (run["state"], run["origin"]) == ("created", "hand")
    assert run["dataset"] == "red/nights/2026/second"
    assert [each["date"] for each in get(mill, "schedules/second/runs")["items"]] == [run["date"]]
    assert change(mill, "POST", "schedules/second/pause")["upcoming"] == []
    assert change(mill, "POST", "schedules/second/resume")["paused"] is False
    assert [each["name"] for each in get(mill, "schedules")["items"]] == ["nightly", "second"]
    change(mill, "DELETE", "schedules/second", status=204)
    assert mill.web.get("/api/v1/schedules/second", mill.tokens["red-reader"]).status == 404


def test_each_change_has_an_audit_line_without_secrets(mill: MillServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="latentmill.audit"):
        change(mill, "PUT", f"{mill.build}/pin", {"note": "x"})
        mill.web.ask("PUT", f"{mill.build}/pin", mill.tokens["red-reader"], {})
        mill.web.ask("POST", f"/api/v1/datasets/red/tiny/builds/{'0' * 20}/promote", mill.tokens["red-operator"], {})
        get(mill, "jobs")
    lines = [json.loads(record.message) for record in caplog.records if record.name == "latentmill.audit"]
    assert [(line["action"], line["outcome"]) for line in lines] == [
        ("pin", "done"),
        (f"PUT {mill.build}/pin", "refused"),
        ("promote", "failed"),
    ]
    assert lines[0]["tenant"] == "red"
    assert lines[0]["dataset"] == "red/tiny"
    assert not any(token in caplog.text for token in mill.tokens.values())
    change(mill, "DELETE", f"{mill.build}/pin")


def test_pages_of_problems_and_of_the_start_escape_what_they_show(mill: MillServer) -> None:
    cookie = {"Cookie": f"latentmill_session={mill.tokens['red-reader']}"}
    page = mill.web.get("/%3Cscript%3Ealert(1)%3C/script%3E", headers=cookie)
    assert page.status == 404
    assert b"<script>alert" not in page.body
    assert b"Not found" in page.body
    start = mill.web.get("/", headers=cookie)
    assert start.status == 200
    assert b"red" in start.body


def test_the_page_names_every_route(mill: MillServer) -> None:
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    for method, template in mill.routes():
        words = [part for part in template.removeprefix("/api/v1/").split("/") if "{" not in part]
        assert all(word in text for word in words), template
        assert method in text
