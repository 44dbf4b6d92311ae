"""A server over a small service: two tenants, a committed build of each, a schedule, a channel; and its routes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from generator.models.bundle.channels import move_channel
from generator.store import open_store
from tests.support.http_server import Answer, RunningServer, running_server
from tests.support.servers import RedisServer
from tests.support.services import ManualService
from workers.jobs.status import JobStatus
from workers.server.access.tokens import csrf_value

SCHEDULE: dict[str, Any] = {
    "cron": "0 4 * * *",
    "job": {"channel": "red-line", "count": 30, "destination": "red", "name": "nightly"},
}


@dataclass
class MillServer:
    """``red`` and ``blue`` are tenants with places and channels of their own; ``status``: the committed job of red."""

    web: RunningServer
    service: ManualService
    bundle: str
    status: JobStatus
    tokens: dict[str, str]

    @property
    def build(self) -> str:
        """The path of red's build below the API."""
        return f"/api/v1/datasets/red/tiny/builds/{self.status.url.rpartition('/')[2]}"

    def objects(self) -> dict[str, str]:
        """All stored objects with their versions, but for keys and the probes of writes."""
        return {
            info.key: info.etag
            for info in open_store(str(self.service.home)).list()
            if info.key.startswith(("root/", "places/")) and not info.key.startswith("root/keys/")
        }

    def path(self, template: str) -> str:
        """A path of the OpenAPI document with its parameters filled in: those of tenant red."""
        values = {
            "job": self.status.job,
            "digest": self.bundle,
            "channel": "red-line",
            "dataset": "red/tiny",
            "build": self.status.url.rpartition("/")[2],
            "index": "3",
            "first": "0",
            "name": "card" if "documents" in template else "nightly",
        }
        for name, value in values.items():
            template = template.replace("{" + name + "}", value).replace("{" + name + ":path}", value)
        assert "{" not in template, template
        return template

    def routes(self) -> list[tuple[str, str]]:
        """Method and template of every route of the API."""
        paths = self.web.app.openapi()["paths"]
        return [(method.upper(), path) for path, methods in paths.items() for method in methods]

    def body(self, method: str, template: str) -> Any:
        """A valid body for a route that takes one."""
        draft = {
            "bundle": self.bundle,
            "destination": "red",
            "name": "tiny",
            "count": 60,
            "shard_size": 30,
            "batch": 16,
        }
        bodies: dict[tuple[str, str], Any] = {
            ("POST", "/api/v1/jobs"): draft,
            ("POST", "/api/v1/jobs/resume"): {"build": self.status.url.partition("/places/")[2]},
            ("POST", "/api/v1/preview"): {"spec": draft, "count": 2},
            ("PUT", "/api/v1/channels/{channel}"): {"bundle": self.bundle},
            ("PUT", "/api/v1/schedules/{name}"): SCHEDULE,
        }
        return bodies.get((method, template), {} if method in ("POST", "PUT") else None)


@contextmanager
def mill_server(server: RedisServer, bundle: Path, home: Path, **settings: Any) -> Iterator[MillServer]:
    """A running ``MillServer`` below ``home``."""
    service = ManualService(server, bundle, home)
    tenants = home / "tenants.yaml"
    shares = {
        name: {"destinations": [f"{home}/places/{name}"], "channels": [f"{name}-*"]}
        for name in ("red", "blue", "green")
    }
    tenants.write_text(yaml.safe_dump({"tenants": shares}))
    service.settings = service.settings.model_copy(update={"tenants_file": tenants} | settings)
    built = {}
    for tenant in ("red", "blue"):
        place = f"{home}/places/{tenant}"
        built[tenant] = service.submit(destination=place, tenant=tenant)
        service.serve(3)
        built[tenant] = service.client.status(built[tenant].job)
        assert built[tenant].state == "committed"
    root = open_store(service.settings.root)
    digest = f"sha256:{next(iter(root.children('bundles/')))}"
    for tenant in ("red", "blue"):
        move_channel(root, f"{tenant}-line", digest, by="a test")
    with running_server(service.settings) as web:
        tokens = {f"{tenant}-{role}": web.token(tenant, role) for tenant in ("red", "blue", "green") for role in ROLES}
        mill = MillServer(web, service, digest, built["red"], tokens)
        added = web.ask("PUT", "/api/v1/schedules/nightly", tokens["red-operator"], SCHEDULE)
        assert added.status == 200, added.body
        yield mill


ROLES = ("reader", "submitter", "operator")


def page(mill: MillServer, path: str, key: str = "red-operator") -> Answer:
    """What the browser of a session gets at ``path``."""
    return mill.web.get(path, headers={"Cookie": f"latentmill_session={mill.tokens[key]}"})


def show(mill: MillServer, path: str, key: str = "red-operator") -> str:
    """The text of a page that the key may see."""
    answer = page(mill, path, key)
    assert answer.status == 200, answer.body
    return answer.body.decode()


def send(mill: MillServer, path: str, key: str = "red-operator", *, csrf: bool = True, **fields: str) -> Answer:
    """Send a form of a page, as the browser of a session does; without ``csrf`` as another site would."""
    token = mill.tokens[key]
    headers = {
        "Cookie": f"latentmill_session={token}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Origin": mill.web.url,
    }
    body = urlencode(fields | ({"csrf": csrf_value(token)} if csrf else {})).encode()
    return mill.web.post(path, body=body, headers=headers)


def forget_failures(mill: MillServer) -> None:
    """As if no key had been refused so far."""
    context = mill.web.app.state.context
    for counted in (context.failures, context.guesses):
        counted._buckets.clear()
