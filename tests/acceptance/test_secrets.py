"""A whole run with unique secrets; then all logs, objects, Redis values and responses are searched for them."""

from __future__ import annotations

import os
import socket
import traceback
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
import redis as redis_py
from boto3.session import Session
from click.testing import CliRunner
from pydantic import SecretStr

from generator.errors import JobFailed, LatentmillError
from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer, S3Server
from workers.broker.address import parse_address
from workers.broker.connection import ping
from workers.cli.main import root
from workers.client import Client
from workers.embedded import WorkerProcess, worker_environment
from workers.settings import Settings

SECRETS = {
    "Redis password": "redis-QoRk7PmWxd",
    "access key": "AKIA6YJ2VTWNEXAMPLE",
    "secret key": "s3-Zt8LkUvRqEwX",
    "session token": "token-Hn4BfMcGpSaD",
}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer(password=SECRETS["Redis password"])
    yield server
    server.stop()


@pytest.fixture
def s3() -> Iterator[S3Server]:
    """A server that holds the objects of this test only: all of them are read."""
    server = S3Server()
    yield server
    server.stop()


def all_objects(s3: S3Server) -> Iterator[tuple[str, bytes]]:
    session = Session(s3.access_key, s3.secret_key, region_name=s3.region)
    client = session.client("s3", endpoint_url=s3.endpoint_url)
    for bucket in client.list_buckets()["Buckets"]:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for item in page.get("Contents", ()):
                yield item["Key"], client.get_object(Bucket=bucket["Name"], Key=item["Key"])["Body"].read()


def all_values(redis: RedisServer) -> Iterator[tuple[str, bytes]]:
    client = redis_py.Redis.from_url(redis.url)
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"set": client.smembers,
    }
    for key in client.scan_iter():
        kind = client.type(key)
        value = readers[kind](key) if kind != b"none" else None  # expired since it was listed
        yield key.decode(), repr((key, value)).encode()


def all_files(home: Path) -> Iterator[tuple[str, bytes]]:
    for path in home.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def leaks(places: Iterator[tuple[str, bytes]]) -> list[str]:
    found = [(where, name) for where, data in places for name, secret in SECRETS.items() if secret.encode() in data]
    return [f"{name} in {where}" for where, name in found]


def said_by_commands(settings: Settings, job: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, bytes]]:
    """The output of commands, with right and with wrong credentials, including errors and tracebacks."""
    for name, value in worker_environment(settings).items():
        if name.startswith("LATENTMILL_"):
            monkeypatch.setenv(name, value)
    commands = [
        ["status", job],
        ["report", job],
        ["jobs"],
        ["doctor", "--only", "store", "--only", "redis"],
        ["status", "nobody-0"],
    ]
    for arguments in commands * 2:
        done = CliRunner().invoke(root, arguments)
        error_text = "".join(traceback.format_exception(done.exception)) if done.exception else ""
        yield " ".join(arguments), (done.output + error_text).encode()
        if arguments == commands[-1]:  # in the second round, all access is denied
            monkeypatch.setenv("LATENTMILL_REDIS_URL", redis_address(settings).replace("mill:", "other:"))
            monkeypatch.setenv("LATENTMILL_S3_ENDPOINT_URL", "http://127.0.0.1:9")
            monkeypatch.setenv("LATENTMILL_S3_MAX_ATTEMPTS", "1")


def redis_address(settings: Settings) -> str:
    assert settings.redis_url is not None
    return settings.redis_url.get_secret_value()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_secret_is_found_anywhere_after_a_whole_run(
    redis: RedisServer, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = redis_py.Redis.from_url(redis.url)
    admin.execute_command("ACL", "SETUSER", "mill", f">{SECRETS['Redis password']}", "on", "~*", "&*", "+@all")
    good, doomed = (s3.make_bucket(f"secrets-{uuid.uuid4().hex}") for _ in range(2))
    settings = Settings(
        redis_url=SecretStr(f"redis://mill:{SECRETS['Redis password']}@127.0.0.1:{redis.port}/0"),
        root=f"{good}/mill",
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
        lease_seconds=2.0,
        reconcile_seconds=0.5,
        grace_seconds=1.0,
        max_shard_attempts=1,
        log_level="DEBUG",
        metrics_port=free_port(),
        device="cpu",
        s3_endpoint_url=s3.endpoint_url,
        s3_region=s3.region,
        s3_access_key=SecretStr(SECRETS["access key"]),
        s3_secret_key=SecretStr(SECRETS["secret key"]),
        s3_session_token=SecretStr(SECRETS["session token"]),
    )
    client, bundle = Client(settings), tiny_bundle(tmp_path / "tiny")
    spec = {"bundle": str(bundle), "name": "tiny", "count": 40, "shard_size": 20, "batch": 16}
    job = client.submit(spec | {"destination": f"{good}/out"}).job
    lost = client.submit(spec | {"destination": f"{doomed}/out"}).job
    remove_bucket(s3, doomed)
    worker = WorkerProcess(redis_address(settings), settings, tmp_path / "worker.log")
    try:
        assert client.wait(job, timeout=240).state == "committed"
        with suppress(JobFailed):
            client.wait(lost, timeout=120)
        lines = command_line(worker.process.pid)
        metrics = urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=10.0).read()
        while_running = leaks(all_values(redis))
    finally:
        worker.stop(20.0)
    status = client.status(lost)
    assert status.state == "failed"
    assert "Traceback" in "".join(data.decode("utf-8", "replace") for _, data in all_objects(s3))
    assert "DEBUG" in worker.log.read_text()
    assert while_running == []
    assert leaks(iter([("the worker's command line", lines), ("status", repr(status).encode())])) == []
    assert leaks(iter([("metrics", metrics)])) == []
    assert b'latentmill_commits_total{outcome="committed"} 1.0' in metrics
    assert not any(name.encode() in metrics for name in (job, lost, "tiny", "127.0.0.1", "secrets-", "mill@"))
    assert leaks(all_files(tmp_path)) == []
    assert leaks(all_objects(s3)) == []
    assert leaks(all_values(redis)) == []
    assert (
        leaks(iter([("repr", f"{settings!r} {settings} {settings.s3!r} {client!r} {settings.model_dump()}".encode())]))
        == []
    )
    assert leaks(said_by_commands(settings, job, monkeypatch)) == []


def remove_bucket(s3: S3Server, url: str) -> None:
    """Delete the bucket and its objects, so that every access fails."""
    client = Session(s3.access_key, s3.secret_key, region_name=s3.region).client("s3", endpoint_url=s3.endpoint_url)
    bucket = url.removeprefix("s3://")
    for item in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
        client.delete_object(Bucket=bucket, Key=item["Key"])
    client.delete_bucket(Bucket=bucket)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"connecting with {SECRETS['secret key']}")
    assert len(leaks(all_files(tmp_path))) == 1
    with pytest.raises(LatentmillError) as refused:
        ping(parse_address(f"redis://mill:{SECRETS['Redis password']}@127.0.0.1:9/0"))
    assert leaks(iter([("error", "".join(traceback.format_exception(refused.value)).encode())])) == []
    assert os.environ.get("LATENTMILL_S3_SECRET_KEY") is None
