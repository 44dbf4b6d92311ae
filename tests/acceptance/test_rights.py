"""A pool set up as in docs/security.md: TLS, Redis and S3 users with minimal rights, secrets in files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis as redis_py
from pydantic import SecretStr

from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.s3_permissions import SECURITY_PAGE, restricted_s3
from tests.support.servers import RedisServer, S3Server
from tests.support.tls import tls_proxy
from workers.broker.identity import PoolIdentity
from workers.client import Client
from workers.embedded import WorkerProcess
from workers.settings import ENV_PREFIX, Settings


def documented_user() -> list[str]:
    found = re.search(r"^user mill (on >PASSWORD .*)$", SECURITY_PAGE.read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_a_worker_needs_no_more_than_the_page_gives(
    redis_server: RedisServer, s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = redis_py.Redis(port=redis_server.port, decode_responses=True)
    place, data = f"{bucket}/mill", f"{bucket}/team-a"
    ours = PoolIdentity(open_store(place, s3_server.settings)).prefix()
    admin.execute_command("ACL", "SETUSER", "mill", *(part.replace("latentmill:", ours) for part in documented_user()))
    with (
        tls_proxy(redis_server, tmp_path, strict=True) as port,
        restricted_s3(s3_server, "client", place, data) as (s3_of_client, rights_of_client),
        restricted_s3(s3_server, "worker", place, data) as (s3_of_worker, rights_of_worker),
    ):
        secrets = {
            "REDIS_URL": f"rediss://mill:PASSWORD@127.0.0.1:{port}/0",
            "S3_ACCESS_KEY": s3_server.access_key,
            "S3_SECRET_KEY": s3_server.secret_key,
        }
        for name, text in secrets.items():
            (tmp_path / name).write_text(f"{text}\n")
            monkeypatch.setenv(f"{ENV_PREFIX}{name}_FILE", str(tmp_path / name))
        settings = Settings(
            redis_ca_file=tmp_path / "ca.pem",
            redis_cert_file=tmp_path / "server.pem",
            redis_key_file=tmp_path / "server.key",
            root=place,
            allowed_stores=f"{data}, /mnt/shared",
            state_dir=tmp_path / "state",
            cache_dir=tmp_path / "cache",
            device="cpu",
            threads=1,
            reconcile_seconds=0.5,
            s3_endpoint_url=s3_of_client,
            s3_region=s3_server.region,
        )
        assert isinstance(settings.redis_url, SecretStr)
        client, log = Client(settings), tmp_path / "worker.log"
        bundle = tiny_bundle(tmp_path / "tiny")
        job = client.submit(
            {"bundle": str(bundle), "destination": data, "name": "tiny", "count": 120, "shard_size": 30}
        )
        theirs = settings.model_copy(update={"s3_endpoint_url": s3_of_worker})
        worker = WorkerProcess(secrets["REDIS_URL"], theirs, log)
        try:
            assert client.wait(job.job, timeout=90).state == "committed"
        finally:
            worker.stop(30.0)
        assert (rights_of_client.refused, rights_of_worker.refused) == ([], [])
    refused = [entry for entry in admin.execute_command("ACL", "LOG") if entry["object"] != "client"]
    assert not refused, refused  # redis-py tries CLIENT SETINFO, and continues without it
    assert "PASSWORD" not in log.read_text()
    assert s3_server.secret_key not in log.read_text()
