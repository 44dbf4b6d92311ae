"""A server that has no more rights in S3 than docs/security.md gives it does everything that it has to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from generator.models.bundle.channels import move_channel
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.command_server import shared_fork_server
from tests.support.forked_worker import ForkedWorker
from tests.support.http_server import running_server
from tests.support.s3_permissions import restricted_s3
from tests.support.servers import RedisServer, S3Server
from workers.client import Client
from workers.server.access.links import add_link
from workers.settings import Settings


def test_a_server_needs_no_more_than_the_page_gives(
    redis_server: RedisServer, s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    place, data = f"{bucket}/mill", f"{bucket}/team-a"
    with (
        restricted_s3(s3_server, "server", place, data) as (s3_of_server, rights_of_server),
        restricted_s3(s3_server, "worker", place, data) as (s3_of_worker, rights_of_worker),
    ):
        whole = Settings(
            redis_url=SecretStr(redis_server.url),
            root=place,
            destinations=data,
            state_dir=tmp_path / "state",
            cache_dir=tmp_path / "cache",
            device="cpu",
            threads=1,
            reconcile_seconds=0.5,
            s3_endpoint_url=s3_server.endpoint_url,
            s3_region=s3_server.region,
            s3_access_key=SecretStr(s3_server.access_key),
            s3_secret_key=SecretStr(s3_server.secret_key),
        )
        settings = whole.model_copy(update={"s3_endpoint_url": s3_of_server})
        theirs = whole.model_copy(update={"s3_endpoint_url": s3_of_worker})
        worker = ForkedWorker(shared_fork_server(), redis_server.url, theirs, tmp_path / "worker.log")
        try:
            with running_server(settings) as web:
                web.settings = whole  # the person who makes keys has other rights than the server
                token = web.token()
                client = Client(web.url, token=token)
                bundle = tiny_bundle(tmp_path / "tiny")
                spec = {"bundle": str(bundle), "destination": "team-a", "name": "tiny", "count": 60, "shard_size": 30}
                job = client.submit(spec)
                done = client.wait(job.job, timeout=90)
                assert done.state == "committed", (tmp_path / "worker.log").read_text()
                assert len(client.preview(spec | {"seed": 3}, 4).images) == 4
                clone = client.clone(job.job, seed=5)
                client.pause(clone.job)
                client.cancel(clone.job)
                client.resume(clone.url)
                digest = web.get("/api/v1/bundles", token).document["items"][0]["bundle"]
                build = f"/api/v1/datasets/team-a/tiny/builds/{done.url.rpartition('/')[2]}"
                schedule = {
                    "cron": "0 4 * * *",
                    "job": {"channel": "line", "count": 6, "destination": "team-a", "name": "nightly"},
                }
                move_channel(open_store(place, whole.s3), "line", digest, by="a test")
                changes: list[tuple[str, str, Any]] = [
                    ("POST", build + "/promote", {}),
                    ("PUT", build + "/pin", {"note": "x"}),
                    ("DELETE", build + "/pin", None),
                    ("PUT", "/api/v1/channels/line", {"bundle": digest}),
                    ("PUT", "/api/v1/channels/other", {"bundle": digest}),
                    ("PUT", "/api/v1/schedules/nightly", schedule),
                    ("POST", "/api/v1/schedules/nightly/runs", {}),
                    ("POST", "/api/v1/schedules/nightly/pause", {}),
                    ("DELETE", "/api/v1/schedules/nightly", None),
                ]
                for method, path, body in changes:
                    answer = web.ask(method, path, token, body)
                    assert answer.status < 300, (method, path, answer.body, rights_of_server.refused)
                for path in ("/manifest", "/documents/card", "/samples", "/samples/3", "/samples/3/image"):
                    assert web.get(build + path, token).status == 200, path
                code = add_link(open_store(place, whole.s3), token, timedelta(minutes=1))
                assert web.post(f"/login/{code}").status == 303
                assert web.post(f"/login/{code}").status == 403
        finally:
            worker.stop(30.0)
    assert rights_of_server.refused == []
    assert not [each for each in rights_of_worker.refused if "keys" in each]
