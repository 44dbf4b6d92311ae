"""``latentmill doctor`` on intact and broken real services: every problem is found and comes with a remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from click.testing import CliRunner
from pydantic import SecretStr

from generator.errors import AlreadyExists, SpecError
from generator.models.bundle import push, read_info
from generator.store import S3Settings, open_store
from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer, S3Server
from tests.support.unconditional_s3 import unconditional_s3
from workers.cli.doctor import doctor_command
from workers.doctor import Finding, blocking_findings, examine
from workers.doctor.store import _Probe
from workers.embedded import worker_environment
from workers.settings import Settings


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


def settings_for(server: RedisServer | None, home: Path, s3: S3Settings | None = None, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "state_dir": home / "state",
        "cache_dir": home / "cache",
        "cache_bytes": 0,
        "device": "cpu",
    }
    given["redis_url"] = SecretStr(server.url if server else "redis://127.0.0.1:9/0")
    if s3 is not None:
        given |= {f"s3_{name}": value for name, value in s3 if value is not None}
    return Settings(**given | more)


def by_check(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_healthy_machine_has_no_failure(
    kind: str, server: RedisServer, s3_server: S3Server, bucket: str, s3_settings: S3Settings, tmp_path: Path
) -> None:
    root = f"{bucket}/mill" if kind == "s3" else str(tmp_path / "root")
    bundle = open_store(str(tiny_bundle(tmp_path / "tiny")))
    digest = push(bundle, open_store(root, s3_settings))
    before = {info.key for info in open_store(root, s3_settings).list()}
    found = by_check(examine(settings_for(server, tmp_path, s3_settings), root, bundle=digest))
    assert {finding.status for finding in found.values()} <= {"ok", "warning"}, found
    assert [name for name, finding in found.items() if finding.status == "warning"] == (
        ["store checksums"] if kind == "s3" and type(s3_server) is S3Server else []  # moto does not compare checksums
    )
    assert {info.key for info in open_store(root, s3_settings).list()} == before
    assert redis_py.Redis.from_url(server.url).keys("*doctor*") == []
    assert digest in found["bundle"].found
    assert all(finding.mend for finding in found.values() if finding.status != "ok")


def test_what_does_not_answer_is_one_failure_each_and_the_rest_is_examined(tmp_path: Path) -> None:
    nowhere = S3Settings(endpoint_url="http://127.0.0.1:9", access_key="a", secret_key="hunter2", max_attempts=1)  # type: ignore[arg-type]
    found = by_check(examine(settings_for(None, tmp_path, nowhere, device="cuda:77"), "s3://bucket"))
    bad = {name for name, finding in found.items() if finding.status == "failed"}
    assert bad == {"redis", "store", "bundles", "device"}
    assert found["bundle cache"].status == "ok"
    assert all(finding.mend for finding in found.values() if finding.status != "ok")
    assert "hunter2" not in str(found)


def test_a_bucket_that_is_missing_says_how_to_make_it(s3_settings: S3Settings, tmp_path: Path) -> None:
    found = list(examine(settings_for(None, tmp_path, s3_settings), "s3://not-made-yet", parts=["store"]))
    assert [finding.status for finding in found] == ["failed"]
    assert "--make-bucket" in found[0].mend


def test_a_service_without_conditional_writes_is_refused_also_by_a_worker(
    unsigned_s3: S3Server, server: RedisServer, tmp_path: Path
) -> None:
    bucket = unsigned_s3.make_bucket(f"unconditional-{uuid.uuid4().hex}")
    with unconditional_s3(unsigned_s3) as s3:
        settings = settings_for(server, tmp_path, s3, root=f"{bucket}/mill")
        found = by_check(examine(settings, f"{bucket}/mill", parts=["store"]))
        assert found["store conditions"].status == "failed"
        assert found["store atomicity"].status == "failed"
        assert {finding.check for finding in blocking_findings(settings, f"{bucket}/mill")} == {
            "store conditions",
            "store atomicity",
        }
        refused = command(["worker"], settings)
    assert refused.returncode == 2
    assert "conditional writes" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_store_that_is_only_away_is_no_reason_not_to_start(tmp_path: Path) -> None:
    nowhere = S3Settings(endpoint_url="http://127.0.0.1:9", access_key="a", secret_key="b", max_attempts=1)  # type: ignore[arg-type]
    assert blocking_findings(settings_for(None, tmp_path, nowhere), "s3://bucket") == []


def test_a_store_whose_conditional_writes_are_not_atomic_is_detected(tmp_path: Path) -> None:
    """As in SeaweedFS until 4.16: the condition is checked in a separate step before the write."""
    inner = open_store(f"memory://{uuid.uuid4().hex}")

    class TwoSteps(type(inner)):  # type: ignore[misc]
        def create(self, key: str, data: bytes) -> str:
            if inner.head(key) is not None:
                raise AlreadyExists(key, "no object yet", "an object")
            time.sleep(0.05)
            return inner.put(key, data)

    found = _Probe(TwoSteps(uuid.uuid4().hex)).atomicity()
    assert (found.status, found.loses_data) == ("failed", True)
    assert _Probe(inner).atomicity().status == "ok"


def test_a_store_with_stale_reads_is_detected() -> None:
    inner = open_store(f"memory://{uuid.uuid4().hex}")

    class Stale(type(inner)):  # type: ignore[misc]
        def put(self, key: str, data: bytes) -> str:
            return super().put(key, data[:10])  # type: ignore[no-any-return]

    found = _Probe(Stale(uuid.uuid4().hex)).read_after_write()
    assert (found.status, found.loses_data) == ("failed", True)


def test_a_root_that_cannot_be_written_is_a_matter_of_rights(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (found,) = examine(settings_for(None, tmp_path), str(tmp_path / "file" / "root"), parts=["store"])
    assert found.status == "failed"
    assert "rights" in found.mend


@pytest.mark.parametrize(
    ("settings", "check", "status"),
    [
        ({"maxmemory": "512mb", "maxmemory-policy": "allkeys-lru"}, "redis eviction", "failed"),
        ({"maxmemory": "0", "maxmemory-policy": "volatile-ttl"}, "redis eviction", "warning"),
        ({"maxmemory": "3mb", "maxmemory-policy": "noeviction"}, "redis memory", "warning"),
        ({"appendonly": "no"}, "redis persistence", "warning"),
    ],
)
def test_settings_of_redis_that_forget(
    redis_server: RedisServer, tmp_path: Path, settings: dict[str, str], check: str, status: str
) -> None:
    admin = redis_py.Redis.from_url(redis_server.url)
    for name, value in settings.items():
        admin.config_set(name, value)
    found = by_check(examine(settings_for(redis_server, tmp_path), str(tmp_path), parts=["redis"]))
    assert found[check].status == status
    assert found[check].mend
    assert {finding.status for name, finding in found.items() if name != check} == {"ok"}


@pytest.mark.parametrize(
    ("rules", "check", "status"),
    [
        ("on resetchannels ~latentmill:* &latentmill:* +@all -@scripting", "redis rights", "failed"),
        ("on ~other* &* +@all", "redis rights", "failed"),
        ("on resetchannels ~latentmill:* +@all", "redis rights", "failed"),  # the broker's messages
        ("on resetchannels ~latentmill:* &latentmill:* +@all -info -config", "redis version", "warning"),
    ],
)
def test_a_user_of_redis_that_lacks_rights(
    redis_server: RedisServer, tmp_path: Path, rules: str, check: str, status: str
) -> None:
    admin = redis_py.Redis.from_url(redis_server.url)
    admin.execute_command("ACL", "SETUSER", "mill", ">hunter2", *rules.split())
    url = SecretStr(f"redis://mill:hunter2@127.0.0.1:{redis_server.port}/0")
    settings = settings_for(redis_server, tmp_path, redis_url=url)
    found = by_check(examine(settings, str(tmp_path), parts=["redis"]))
    assert found[check].status == status, found
    assert "hunter2" not in str(found)


def test_a_damaged_bundle_and_one_that_is_not_there(server: RedisServer, tmp_path: Path) -> None:
    root, home = open_store(str(tmp_path / "root")), tiny_bundle(tmp_path / "tiny")
    digest = push(open_store(str(home)), root)
    assert digest == read_info(open_store(str(home)))[0]
    root.put(f"bundles/{digest.removeprefix('sha256:')}/decoder.safetensors", b"altered")
    for named in (digest, "sha256:" + "0" * 64):
        found = by_check(
            examine(settings_for(server, tmp_path), str(tmp_path / "root"), parts=["bundles"], bundle=named)
        )
        assert found["bundle"].status == "failed"
        assert "push" in found["bundle"].mend or "altered" in found["bundle"].mend


def test_directories_of_this_machine(tmp_path: Path) -> None:
    open_to_all = tmp_path / "cache"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    settings = settings_for(None, tmp_path, cache_bytes=2**60)
    found = by_check(examine(settings, str(tmp_path), parts=["disks"]))
    assert (found["bundle cache"].status, found["state directory"].status) == ("failed", "ok")
    open_to_all.chmod(0o700)
    found = by_check(examine(settings, str(tmp_path), parts=["disks"]))
    assert found["bundle cache"].status == "warning"
    assert "CACHE_BYTES" in found["bundle cache"].mend


def test_times_that_do_not_fit_each_other(tmp_path: Path) -> None:
    for odd in ({"visibility_timeout": 900}, {"lease_seconds": 2.0}):
        (found,) = examine(settings_for(None, tmp_path, **odd), str(tmp_path), parts=["settings"])
        assert found.status == "warning"


def command(arguments: list[str], settings: Settings) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LATENTMILL_", "AWS_"))}
    words = [sys.executable, "-c", "from workers.cli import main; main()", *arguments]
    return subprocess.run(words, env=inherited | environment(settings), capture_output=True, text=True, timeout=120)


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables of these settings."""
    return {name: value for name, value in worker_environment(settings).items() if name.startswith("LATENTMILL_")}


def test_the_command(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(settings_for(server, tmp_path, root=str(tmp_path / "root"))).items():
        monkeypatch.setenv(name, value)
    run = CliRunner().invoke
    done = run(doctor_command, ["--json", "--only", "store", "--only", "redis"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["healthy"] is True
    assert {"redis version", "store conditions"} <= {finding["check"] for finding in document["findings"]}
    assert isinstance(run(doctor_command, ["--bundle", "latest"]).exception, SpecError)
    monkeypatch.setenv("LATENTMILL_REDIS_URL", "redis://127.0.0.1:9/0")
    broken = run(doctor_command, ["--only", "redis"])
    assert broken.exit_code == 1
    assert "mend: start Redis" in broken.stdout
