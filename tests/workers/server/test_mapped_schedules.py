"""Schedules over HTTP that draw around a code, of a bundle whose map only workers can read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from generator.models.bundle import push
from generator.store import open_store
from tests.support.bundles import mapped_bundle
from tests.support.http_server import RunningServer, running_server
from tests.support.servers import RedisServer
from tests.support.services import ManualService
from workers.schedules.runs import read_run


class Mapped:
    def __init__(self, service: ManualService, web: RunningServer, digest: str) -> None:
        self.service, self.web, self.token = service, web, web.token()
        self.job: dict[str, Any] = {"bundle": digest, "counts": {"cat": 4}, "destination": "default", "name": "near"}

    def put(self, name: str, **draw: Any) -> Any:
        body = {"cron": "0 4 * * *", "job": self.job | {"draw": draw}}
        return self.web.ask("PUT", f"/api/v1/schedules/{name}", self.token, body)


@pytest.fixture(scope="module")
def mapped(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapped]:
    home = tmp_path_factory.mktemp("mapped")
    service = ManualService(server, mapped_bundle(home / "bundle"), home)
    digest = push(open_store(str(home / "bundle")), open_store(service.settings.root))
    with running_server(service.settings) as web:
        yield Mapped(service, web, digest)


def test_a_worker_carries_the_code_back_through_the_map(mapped: Mapped) -> None:
    with mapped.service.answering():
        added = mapped.put("around", mode="around", reference=0, distance=0.2)
        assert added.status == 200, added.body
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        ran = mapped.web.post("/api/v1/schedules/around/runs", mapped.token, {"date": yesterday})
        assert ran.status == 202, ran.body
        assert mapped.put("between", mode="between", start={"reference": 0}, end={"reference": 2}).status == 200
    run = read_run(open_store(mapped.service.settings.root), "around", datetime.fromisoformat(f"{yesterday}T04:00Z"))
    assert run is not None
    assert run.spec is not None
    assert run.spec.recipe.draw.mode == "around"
    assert run.spec.recipe.published == yesterday  # of the date, not of the day on which a worker resolved it


def test_what_the_draw_cannot_be_is_said_by_its_field(mapped: Mapped) -> None:
    with mapped.service.answering():
        refused = mapped.put("wrong", mode="around", reference=10**6, distance=0.2)
        assert (refused.status, refused.document["field"]) == (422, "draw.reference")
    assert mapped.web.get("/api/v1/schedules/wrong", mapped.token).status == 404


def test_without_a_worker_the_reason_is_typed_and_nothing_is_stored(mapped: Mapped) -> None:
    answer = mapped.put("nobody", mode="around", reference=0, distance=0.2)
    assert (answer.status, answer.document["error"]) == (503, "WorkerUnavailable")
    assert answer.document["field"] == "worker"
    assert mapped.web.get("/api/v1/schedules/nobody", mapped.token).status == 404
    assert mapped.put("plain", mode="distribution").status == 200  # needs none
