"""The server while Redis or the store is away, silent or refusing: typed answers, and it goes on afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from generator.store import open_store
from tests.faults.s3_proxy import Fault, S3Proxy
from tests.support.bundles import tiny_bundle
from tests.support.http_server import RunningServer, running_server
from tests.support.mill_server import mill_server
from tests.support.servers import RedisServer, S3Server
from workers.client import Client
from workers.settings import Settings


def test_without_redis_datasets_are_read_and_jobs_are_not_available(redis_server: RedisServer, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    with mill_server(redis_server, bundle, tmp_path) as mill:
        reader, submitter = mill.tokens["red-reader"], mill.tokens["red-submitter"]
        redis_server.kill()
        for path in ("datasets", "datasets/red/tiny/builds", "bundles", "channels", "schedules", "self", "health"):
            assert mill.web.get(f"/api/v1/{path}", reader).status == 200, path
        assert mill.web.get(f"{mill.build}/samples/3/image", reader).status == 200
        assert mill.web.ask("PUT", f"{mill.build}/pin", mill.tokens["red-operator"], {}).status == 200
        before = mill.objects()
        for method, path, body in (
            ("GET", "/api/v1/jobs", None),
            ("GET", f"/api/v1/jobs/{mill.status.job}", None),
            ("POST", "/api/v1/jobs", mill.body("POST", "/api/v1/jobs") | {"seed": 3}),
            ("POST", "/api/v1/preview", mill.body("POST", "/api/v1/preview")),
        ):
            answer = mill.web.ask(method, path, submitter, body)
            assert answer.status == 503, (path, answer.body)
            assert answer.document["error"] == "BrokerUnavailable"
            assert int(answer.headers["retry-after"]) > 0
            assert str(redis_server.port) not in answer.body.decode()
            assert "127.0.0.1" not in answer.body.decode()
        assert mill.objects() == before
        session = {"Cookie": f"latentmill_session={mill.tokens['red-operator']}"}
        for path in ("/nights", "/nights/nightly", "/datasets/red/tiny"):
            assert mill.web.get(path, headers=session).status == 200, path
        for path in ("/jobs", *(f"/jobs/{mill.status.job}{part}" for part in ("", "?part=true", "/pictures"))):
            answer = mill.web.get(path, headers=session)
            assert (answer.status, b"Reload the page" in answer.body) == (503, True), path
            assert str(redis_server.port) not in answer.body.decode()
        redis_server.restart()
        assert mill.web.get("/api/v1/jobs", reader).status == 200


@contextmanager
def server_over_s3(
    redis: RedisServer, s3: S3Server, bucket: str, home: Path
) -> Iterator[tuple[RunningServer, S3Proxy, dict[str, str]]]:
    with S3Proxy(s3.port) as proxy:
        settings = Settings(
            redis_url=SecretStr(redis.url),
            root=f"{bucket}/mill",
            state_dir=home / "state",
            destinations=f"{bucket}/data",
            s3_endpoint_url=proxy.endpoint_url,
            s3_region=s3.region,
            s3_access_key=SecretStr(s3.access_key),
            s3_secret_key=SecretStr(s3.secret_key),
            s3_read_timeout=0.5,
            s3_max_attempts=1,
        )
        with running_server(settings) as web:
            tokens = {role: web.token("default", role) for role in ("reader", "operator")}
            yield web, proxy, tokens


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.SLOW_DOWN, Fault.ERROR_500, Fault.DROPPED, Fault.FORBIDDEN])
def test_while_the_store_is_away_every_answer_says_so(
    redis_server: RedisServer, s3_server: S3Server, bucket: str, tmp_path: Path, fault: Fault
) -> None:
    with server_over_s3(redis_server, s3_server, bucket, tmp_path) as (web, proxy, tokens):
        client = Client(web.url, token=tokens["operator"])
        spec = {"bundle": str(tiny_bundle(tmp_path / "bundle")), "destination": "data", "name": "tiny", "count": 9}
        job = client.submit(spec)
        assert job.url.startswith(f"{bucket}/data/tiny/builds/")
        assert client.submit(spec | {"destination": f"{bucket}/data"}).job == job.job
        proxy.plan = lambda _: fault
        for path in ("datasets", "bundles", "channels", "schedules", "datasets/data/tiny/state"):
            answer = web.get(f"/api/v1/{path}", tokens["reader"])
            assert answer.status == 503, (path, answer.body)
            assert answer.headers["content-type"].startswith("application/problem+json")
            text = answer.body.decode()
            for secret in (s3_server.secret_key, s3_server.access_key, str(proxy.port), bucket.removeprefix("s3://")):
                assert secret not in text
        session = {"Cookie": f"latentmill_session={tokens['reader']}"}
        for path in ("/", "/nights", "/nights/nightly", "/datasets/data/tiny", f"/jobs/{job.job}?part=true"):
            page = web.get(path, headers=session)
            assert page.status in ((200, 503) if path == "/" or "jobs" in path else (503,)), path
            assert page.status == 200 or b"Reload the page" in page.body
            for secret in (s3_server.secret_key, s3_server.access_key, str(proxy.port), bucket.removeprefix("s3://")):
                assert secret not in page.body.decode(), path
        assert web.get("/api/v1/health").status == 200
        web.app.state.context.keys._held.clear()  # as after four seconds: a key that cannot be looked up opens nothing
        answer = web.get("/api/v1/self", tokens["reader"])
        assert answer.status == 503
        page = web.get("/", headers={"Cookie": f"latentmill_session={tokens['reader']}"})
        assert (page.status, b"Reload the page" in page.body) == (503, True)
        proxy.plan = lambda _: None
        assert web.get("/api/v1/datasets", tokens["reader"]).status == 200


@pytest.mark.slow
def test_the_server_starts_and_answers_without_redis_and_without_torch(tmp_path: Path) -> None:
    """In a process of its own, in which importing torch or sklearn fails."""
    script = f"""
import sys
sys.modules["torch"] = sys.modules["sklearn"] = None
import threading, time, urllib3
from pathlib import Path
from datetime import timedelta
from tests.support.http_server import RunningServer
from workers.settings import Settings
home = {str(tmp_path)!r}
web = RunningServer(Settings(root=home + "/root", state_dir=Path(home + "/state")))
token = web.token()
for path in ("self", "datasets", "bundles", "channels", "schedules", "openapi.json"):
    assert web.get("/api/v1/" + path, token).status == 200, path
answer = web.get("/api/v1/jobs", token)
assert answer.status == 503, answer.body
assert answer.document["error"] == "BrokerUnavailable", answer.body
assert web.get("/", headers={{"Cookie": "latentmill_session=" + token}}).status == 200
import workers.client.http_client, workers.server.api.schedules
assert not any(name.partition(".")[0] in ("torch", "sklearn") for name, module in sys.modules.items() if module)
web.stop()
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr[-3000:]
    assert open_store(str(tmp_path / "root")) is not None


@pytest.mark.slow
def test_the_client_over_http_imports_neither_redis_nor_boto3_nor_torch() -> None:
    script = """
import sys
for name in ("torch", "sklearn", "boto3", "redis", "celery"):
    sys.modules[name] = None
from workers.client import Client
from generator.errors import ServerUnavailable
client = Client("http://127.0.0.1:1", token="lm_x")
try:
    client.status("x-000000000000")
except ServerUnavailable as down:
    print(type(down).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ServerUnavailable", done.stderr[-3000:]
