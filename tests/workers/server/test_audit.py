"""The audit log: each change has a line that says who asked, from where, for what, and what came of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from generator.datasets.promotion import promote
from generator.store import open_store
from tests.support.mill_server import SCHEDULE, MillServer, page, send


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """A block whose audit lines are in the list that it gives."""

    @contextmanager
    def collect() -> Iterator[list[dict[str, Any]]]:
        found: list[dict[str, Any]] = []
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="latentmill.audit"):
            yield found
        found += [json.loads(record.message) for record in caplog.records if record.name == "latentmill.audit"]

    return collect


def ask(mill: MillServer, method: str, path: str, document: Any = None, key: str = "red-operator") -> Any:
    return mill.web.ask(method, f"/api/v1/{path}", mill.tokens[key], document)


def builds(mill: MillServer, name: str) -> list[str]:
    """The ids of two builds of a new dataset."""
    place = f"{mill.service.home}/places/red"
    made = [mill.service.submit(name, destination=place, tenant="red", seed=seed) for seed in (1, 2)]
    mill.service.serve(6)
    assert [mill.service.state(job) for job in made] == ["committed"] * 2
    return [job.url.rpartition("/")[2] for job in made]


def test_a_promotion_says_what_came_of_it(mill: MillServer, lines: Any) -> None:
    older, newer = builds(mill, "audited")
    store = open_store(f"{mill.service.home}/places/red/audited")
    promote(store, newer, logical_date=datetime(2026, 3, 2, tzinfo=UTC), by="a test")
    with lines() as found:
        path = f"datasets/red/audited/builds/{older}/promote"
        assert ask(mill, "POST", path, {"logical_date": "2026-03-01T00:00:00Z"}).document["outcome"] == "older"
        answer = send(
            mill, f"/datasets/red/audited/builds/{older}/promote", date="2026-03-01T00:00:00+00:00", confirm="1"
        )
        assert answer.status == 409
        ask(mill, "POST", path.replace(older, newer), {})
        ask(mill, "POST", path, {"logical_date": "2026-03-03T00:00:00Z"})
        ask(mill, "POST", "datasets/red/audited/rollback", {})
        ask(mill, "POST", path, {"logical_date": "2026-03-03T00:00:00Z"})
        ask(mill, "POST", path.replace(older, "0" * 20), {})
    assert [line["outcome"] for line in found] == [
        "not promoted: older than what readers get",
        "not promoted: older than what readers get",
        "no change",
        "done",
        "done",
        "not promoted: rolled back before",
        "failed",
    ]
    assert [line["build"] for line in found[:6]] == [older, older, newer, older, newer, older]
    assert found[4]["action"] == "rollback"
    assert found[6]["error"] == "DatasetError"


def test_a_decision_that_changes_nothing_says_so(mill: MillServer, lines: Any) -> None:
    build = mill.build.rpartition("/")[2]
    pin, job = f"datasets/red/tiny/builds/{build}/pin", mill.status.job
    draft = mill.body("POST", "/api/v1/jobs") | {"name": "twice", "seed": 9}
    asked: list[tuple[str, str, Any, str, str]] = [
        ("PUT", pin, {}, "pin", "done"),
        ("PUT", pin, {}, "pin", "no change"),
        ("DELETE", pin, None, "unpin", "done"),
        ("DELETE", pin, None, "unpin", "no change"),
        ("POST", f"jobs/{job}/pause", None, "pause job", "no change"),
        ("POST", f"jobs/{job}/cancel", None, "cancel job", "no change"),
        ("POST", f"jobs/{job}/resume", None, "resume job", "no change"),
        ("POST", "jobs", draft, "submit job", "done"),
        ("POST", "jobs", draft, "submit job", "no change"),
        ("POST", "jobs", draft | {"count": 0}, "submit job", ""),
        ("PUT", "channels/red-line", {"bundle": mill.bundle}, "move channel", "no change"),
        ("PUT", "channels/red-new", {"bundle": mill.bundle}, "move channel", "done"),
        ("PUT", "schedules/nightly", SCHEDULE, "add schedule", "no change"),
        ("POST", "schedules/nightly/pause", None, "pause schedule", "done"),
        ("POST", "schedules/nightly/pause", None, "pause schedule", "no change"),
        ("POST", "schedules/nightly/resume", None, "resume schedule", "done"),
        ("POST", "schedules/nothing/resume", None, "resume schedule", "failed"),
        ("DELETE", "schedules/nothing", None, "remove schedule", "failed"),
    ]
    for method, path, document, action, outcome in asked:
        with lines() as found:
            ask(mill, method, path, document)
        assert [(line["action"], line["outcome"]) for line in found] == [(action, outcome)] * bool(outcome), path
    submitted = mill.web.get("/api/v1/jobs", mill.tokens["red-reader"]).document["items"][0]["job"]
    with lines() as found:
        send(mill, f"/jobs/{submitted}/pause")
        send(mill, f"/jobs/{submitted}/pause")
        send(mill, f"/jobs/{submitted}/cancel")
    assert [(line["outcome"], line["state"]) for line in found] == [
        ("done", "paused"),
        ("no change", "paused"),
        ("done", "cancelled"),
    ]


def test_a_line_says_who_and_from_where_and_nothing_secret(
    mill: MillServer, lines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    draft = mill.body("POST", "/api/v1/jobs") | {"name": "who", "seed": 11}
    with lines() as found:
        job = ask(mill, "POST", "jobs", draft, "red-submitter").document["job"]
        ask(mill, "PUT", "channels/red-line", {"bundle": None}, "red-reader")
        send(mill, "/nights/nightly/pause", csrf=False)
        page(mill, "/jobs", "red-reader")
        mill.web.get("/api/v1/self", f"lm_{'0' * 16}_{'x' * 43}")
    keys = {name: token.split("_")[1] for name, token in mill.tokens.items()}
    who = {"tenant": "red", "address": "127.0.0.1"}
    assert [line.pop("at")[:2] for line in found] == ["20"] * 4
    assert found == [
        who
        | {"action": "submit job", "outcome": "done", "key": keys["red-submitter"], "role": "submitter"}
        | {"name": "who", "destination": "red", "job": job, "state": "queued"},
        who
        | {"action": "PUT /api/v1/channels/red-line", "outcome": "refused", "field": "role"}
        | {"key": keys["red-reader"], "role": "reader"},
        who
        | {"action": "POST /nights/nightly/pause", "outcome": "refused", "field": "X-CSRF-Token"}
        | {"key": keys["red-operator"], "role": "operator"},
        {"action": "GET /api/v1/self", "outcome": "refused key", "address": "127.0.0.1", "named": "0" * 16},
    ]
    assert not any(token.split("_", 2)[2] in caplog.text for token in mill.tokens.values())
    assert "x" * 43 not in caplog.text
