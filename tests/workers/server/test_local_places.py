"""The places of `latentmill up` where none are set: datasets of its directory, and where its jobs write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from generator.errors import AccessRefused, BrokerUnavailable
from generator.store import absolute_url, open_store
from tests.support.http_server import running_server
from tests.support.servers import RedisServer
from tests.support.services import ManualService
from workers.server.access.local_places import LocalPlaces
from workers.server.access.tenants import TenantPlaces
from workers.settings import Settings


class Machine:
    """A directory in which `up` was started; ``jobs``: the tenants and destinations of its jobs."""

    def __init__(self, home: Path) -> None:
        self.home, self.now, self.away = home / "project", 1000.0, False
        self.jobs: list[tuple[str, str]] = []
        (self.home / "demo" / "datasets" / "digits").mkdir(parents=True)
        self.root = open_store(str(home / "mill"))
        self.local = self.restart()

    def restart(self) -> LocalPlaces:
        self.local = LocalPlaces(self.home, "default", self.root, self._known, lambda: self.now)
        return self.local

    def _known(self) -> Iterator[tuple[str, str]]:
        if self.away:
            raise BrokerUnavailable("redis")
        yield from self.jobs

    def submit(self, destination: Path | str, tenant: str = "default") -> None:
        self.jobs.append((tenant, absolute_url(str(destination))))
        self.now += 3.0

    def places(self) -> dict[str, str]:
        return {name: url.removeprefix(self.home.parent.as_uri()) for name, url in self.local.places().items()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


OWN = {"datasets": "/project/datasets", "demo-datasets": "/project/demo/datasets"}


def test_the_datasets_of_the_directory_are_shown(machine: Machine) -> None:
    for name in ("photos/datasets", ".hidden/datasets", "a b/datasets", "deep/below/datasets"):
        (machine.home / name).mkdir(parents=True)
    (machine.home / "link").symlink_to(machine.home / "demo")
    (machine.home / "file").write_text("")
    assert machine.places() == OWN | {"photos-datasets": "/project/photos/datasets"}


def test_where_jobs_write_is_a_place_that_keeps_its_name(machine: Machine, tmp_path: Path) -> None:
    machine.submit(tmp_path / "data" / "out")
    assert machine.places() == OWN | {"out": "/data/out"}
    machine.submit(tmp_path / "more" / "out")
    machine.submit(tmp_path / "elsewhere" / "datasets")
    machine.submit("s3://bucket/sets")
    machine.submit(tmp_path / "data" / "out" / "2026")  # below one that is there
    machine.submit(machine.home / "demo" / "datasets")
    found = machine.places()
    assert found == OWN | {
        "out": "/data/out",
        "more-out": "/more/out",
        "elsewhere-datasets": "/elsewhere/datasets",
        "sets": "s3://bucket/sets",
    }
    machine.jobs.clear()  # Redis forgets jobs after a month
    machine.restart()
    assert machine.places() == found


def test_nothing_of_the_root_nor_of_another_tenant_is_shown(machine: Machine, tmp_path: Path) -> None:
    machine.submit(tmp_path / "red" / "sets", tenant="red")
    for url in (tmp_path, tmp_path / "mill", tmp_path / "mill" / "datasets", tmp_path / "mill" / "datasets" / "red"):
        machine.submit(url)
    machine.submit(tmp_path / "red")
    machine.submit(tmp_path / "red" / "sets" / "inside")
    machine.submit(tmp_path / "red" / "sets")
    assert machine.places() == OWN
    machine.submit(tmp_path / "mine")
    assert "mine" in machine.places()
    machine.submit(tmp_path / "mine" / "hers", tenant="red")  # from now on it holds what is another tenant's
    assert machine.places() == OWN
    machine.submit(machine.home / "demo" / "datasets", tenant="red")
    machine.jobs.clear()  # Redis forgets jobs after a month
    machine.now += 3.0
    machine.restart()
    assert machine.places() == OWN  # nobody asked meanwhile
    machine.submit(machine.home / "demo" / "datasets", tenant="red")
    assert machine.places() == {"datasets": OWN["datasets"]}
    machine.jobs.clear()
    machine.restart()
    assert machine.places() == {"datasets": OWN["datasets"]}


def test_the_place_in_the_root_is_shown_once_something_is_there(machine: Machine) -> None:
    machine.root.put("datasets/default/x/latest.json", b"{}")
    assert machine.places() == OWN | {"default": "/mill/datasets/default"}


def test_while_redis_is_away_places_stay(machine: Machine, tmp_path: Path) -> None:
    machine.submit(tmp_path / "out")
    before = machine.places()
    machine.away = True
    machine.submit(tmp_path / "later")
    (machine.home / "new" / "datasets").mkdir(parents=True)
    assert machine.places() == before | {"new-datasets": "/project/new/datasets"}
    machine.restart()  # a server that begins meanwhile knows what was noted
    assert machine.places() == before | {"new-datasets": "/project/new/datasets"}
    machine.away = False
    machine.now += 30.0
    assert "later" in machine.places()


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"places": {"a": 5}}', b"\xff"])
def test_a_record_that_cannot_be_read_hides_no_folder(machine: Machine, broken: bytes) -> None:
    machine.root.put("tenants/default/places.json", broken)
    assert machine.places() == OWN


@pytest.mark.parametrize(
    ("settings", "tenants", "shown"),
    [
        ({}, None, ["datasets", "demo-datasets"]),
        ({}, {"tenants": {"red": {"weight": 2.0}}}, ["datasets", "demo-datasets"]),
        ({"destinations": "s3://data/x"}, None, ["x"]),
        ({}, {"tenants": {"red": {"destinations": ["s3://data/red"]}}}, ["default"]),
        ({}, {"default": {"destinations": ["s3://data/{tenant}"]}}, ["default"]),
    ],
)
def test_places_that_are_set_win(
    machine: Machine, tmp_path: Path, settings: dict[str, Any], tenants: dict[str, Any] | None, shown: list[str]
) -> None:
    if tenants is not None:
        (tmp_path / "tenants.yaml").write_text(yaml.safe_dump(tenants))
        settings = settings | {"tenants_file": tmp_path / "tenants.yaml"}
    found = TenantPlaces(Settings(**settings), machine.root.url, machine.local)
    assert sorted(found.places("default")) == shown
    assert sorted(found.places("blue")) in (["blue"], ["default"][:0])
    with pytest.raises(AccessRefused):
        found.destination("blue", "datasets/digits")


def test_a_server_of_up_shows_a_job_that_was_submitted_beside_it(
    server: RedisServer, bundle: Path, tmp_path: Path
) -> None:
    service = ManualService(server, bundle, tmp_path / "service")
    settings = service.settings.model_copy(
        update={"server_directory": tmp_path, "server_without_keys": True, "redis_url": SecretStr(server.url)}
    )
    job = service.submit("mine", destination=str(tmp_path / "far" / "out"))
    foreign = service.submit("hers", destination=str(tmp_path / "red"), tenant="red")
    service.serve(6)
    assert [service.state(each) for each in (job, foreign)] == ["committed"] * 2
    with running_server(settings) as web:
        listed = web.get("/api/v1/datasets").document["items"]
        assert [each["dataset"] for each in listed] == ["out/mine"]
        shown = web.get(f"/datasets/out/mine/builds/{job.url.rpartition('/')[2]}")
        assert shown.status == 200
        assert web.get("/api/v1/jobs").document["items"][0]["dataset"] == "out/mine"
        draft = {"bundle": f"sha256:{next(iter(web.app.state.context.root.children('bundles/')))}", "count": 10}
        answer = web.post("/api/v1/jobs", document=draft | {"destination": "datasets", "name": "new"})
        assert (answer.status, answer.document["dataset"]) == (202, "datasets/new")
        assert web.post("/api/v1/jobs", document=draft | {"destination": "red", "name": "new"}).status == 403
