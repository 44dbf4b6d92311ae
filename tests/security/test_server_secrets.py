"""Nothing secret in a page, a log, an error or an object: a run over HTTP with secrets that can be recognized."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path

import pytest
import redis as redis_py
from boto3.session import Session
from pydantic import SecretStr

from generator.errors import LatentmillError
from tests.faults.s3_proxy import Fault, S3Proxy
from tests.support.bundles import tiny_bundle
from tests.support.http_server import running_server
from tests.support.servers import RedisServer, S3Server
from workers.client import Client
from workers.settings import Settings

PASSWORD = "redis-QoRk7PmWxd"


@pytest.mark.server
def test_no_secret_is_shown_or_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    redis, s3 = RedisServer(password=PASSWORD), S3Server()
    shown: list[str] = []
    try:
        bucket = s3.make_bucket("secrets")
        with S3Proxy(s3.port) as proxy:
            settings = Settings(
                redis_url=SecretStr(redis.url),
                root=f"{bucket}/mill",
                destinations=f"{bucket}/data",
                state_dir=tmp_path / "state",
                s3_endpoint_url=proxy.endpoint_url,
                s3_region=s3.region,
                s3_access_key=SecretStr("AKIA6YJ2VTWNEXAMPLE"),
                s3_secret_key=SecretStr("s3-Zt8LkUvRqEwX"),
                s3_session_token=SecretStr("token-Hn4BfMcGpSaD"),
                s3_read_timeout=1.0,
                s3_max_attempts=1,
            )
            with running_server(settings) as web:
                token = web.token()
                secrets = [PASSWORD, "s3-Zt8LkUvRqEwX", "token-Hn4BfMcGpSaD", "AKIA6YJ2VTWNEXAMPLE", token]
                client = Client(web.url, token=token)
                spec = {"bundle": str(tiny_bundle(tmp_path / "b")), "destination": "data", "name": "tiny", "count": 9}
                job = client.submit(spec).job
                shown += [repr(client), repr(client._service), repr(client._service._server)]  # type: ignore[attr-defined]
                cookie = {"Cookie": f"latentmill_session={token}"}

                def ask_everything() -> None:
                    for path in ("/", "/login", "/nothing", "/api/v1/jobs", f"/api/v1/jobs/{job}", "/api/v1/bundles"):
                        for headers in (
                            cookie,
                            {"Authorization": f"Bearer {token}"},
                            {"Authorization": f"Basic {token}"},
                        ):
                            answer = web.get(path, headers=headers)
                            shown.append(answer.body.decode() + json.dumps(answer.headers))
                    for call in (lambda: client.submit(spec | {"seed": 1}), lambda: client.status(job), client.jobs):
                        try:
                            shown.append(repr(call()))  # type: ignore[operator]
                        except LatentmillError as error:
                            shown.append(traceback.format_exc() + json.dumps(error.facts()))

                ask_everything()
                redis.kill()
                ask_everything()
                redis.restart()
                for fault in (Fault.FORBIDDEN, Fault.ERROR_500, Fault.SILENT):
                    proxy.plan = lambda _, fault=fault: fault  # type: ignore[misc]
                    ask_everything()
                proxy.plan = lambda _: None
                web.app.state.context.pool.ledger.facts = None  # a bug: what an unexpected error shows
                ask_everything()
        session = Session("x", "y", region_name=s3.region)
        objects = session.client("s3", endpoint_url=s3.endpoint_url)
        stored = b"".join(
            objects.get_object(Bucket="secrets", Key=item["Key"])["Body"].read()
            for page in objects.get_paginator("list_objects_v2").paginate(Bucket="secrets")
            for item in page.get("Contents", ())
        )
        values = redis_py.Redis.from_url(redis.url)
        stored += repr([(key, values.dump(key)) for key in values.scan_iter()]).encode()
    finally:
        redis.stop()
        s3.stop()
    assert any("internal error" in text for text in shown)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("boto", "urllib3"))]
    for secret in secrets:
        assert not any(secret in text for text in shown), [text[:500] for text in shown if secret in text][:1]
        assert secret.encode() not in stored
        assert not any(secret in message for message in ours), [message for message in ours if secret in message][:1]
