"""A session token expires under real worker processes, in the middle of a job; its file is rotated a while later."""

from __future__ import annotations

import time
from pathlib import Path

import redis as redis_py
from pydantic import SecretStr

from generator.datasets.verification import verify_dataset
from tests.support.bundles import tiny_bundle
from tests.support.fake_s3 import Dialect, FakeS3, fake_s3
from tests.support.servers import RedisServer
from tests.support.services import LiveService
from workers.client import Client
from workers.jobs.pool import Pool
from workers.settings import Settings


class TokenService(LiveService):
    """A service whose secrets of S3 stand in files below ``home``."""

    def __init__(self, redis: RedisServer, server: FakeS3, home: Path) -> None:
        for name, text in (("access", "key-1"), ("secret", "secret"), ("token", "token-1")):
            (home / name).write_text(text)
        self.redis, self.bucket, self.home = redis, "s3://bucket", home
        self.settings = Settings(
            redis_url=SecretStr(redis.url),
            root="s3://bucket/mill",
            state_dir=home / "state",
            cache_dir=home / "cache",
            lease_seconds=2.0,
            reconcile_seconds=0.5,
            max_shard_attempts=1,  # a single fault gives a shard up
            s3_endpoint_url=server.endpoint_url,
            s3_region="us-east-1",
            s3_access_key_file=home / "access",
            s3_secret_key_file=home / "secret",
            s3_session_token_file=home / "token",
        )
        self.client, self.pool = Client(self.settings), Pool(self.settings)
        self._workers = []


def test_a_token_that_expires_in_the_middle_of_a_job(redis_server: RedisServer, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", size=64, channels=3, dims=16)
    with fake_s3(Dialect(keys={"key-1": "token-1"})) as server:
        service = TokenService(redis_server, server, tmp_path)
        try:
            job = service.client.submit(service.spec(bundle, count=1200))
            service.start_worker()
            service.wait_until(lambda: receipts(server) >= 2)
            server.dialect.keys = {"key-1": "token-2"}
            service.wait_until(lambda: server.refused["ExpiredToken"] >= 3)
            made = receipts(server)
            service.start_worker()  # one that never had valid credentials waits too
            time.sleep(2.0)
            assert receipts(server) == made < 24
            (tmp_path / "draft").write_text("token-2")
            (tmp_path / "draft").replace(tmp_path / "token")
            service.wait_until(lambda: service.is_committed(job.url))
            assert verify_dataset(job.url, s3=service.settings.s3).ok
        finally:
            service.stop()
        assert "postponed" not in service.logs()
        assert "gave up" not in service.logs()
        assert redis_py.Redis.from_url(redis_server.url).hgetall(f"latentmill:tries:{job.job}") == {}


def receipts(server: FakeS3) -> int:
    with server.lock:
        return sum("/receipts/" in key for key in server.buckets["bucket"])
