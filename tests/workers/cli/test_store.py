"""`latentmill store test`: what it says, its exit codes, and that it leaves a store as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import generator.store
from generator.store import S3Settings, Store, open_store
from generator.testing import StoreContract
from tests.faults.s3_proxy import Fault, S3Proxy
from tests.support import broken_stores as broken
from tests.support.servers import S3Server
from tests.support.unconditional_s3 import unconditional_s3
from workers.cli.main import main

CLI = [sys.executable, "-c", "from workers.cli import main; main()", "store", "test"]
WITHOUT_HYPOTHESIS = "import sys; sys.modules['hypothesis'] = None; from workers.cli import main; main()"


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LATENTMILL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process; its exit code, standard output and standard error."""

    def run(*words: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["latentmill", "store", "test", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        return ended.value.code, told.out, told.err

    return run


def reach(server: S3Server, monkeypatch: pytest.MonkeyPatch, endpoint: str = "") -> None:
    """Give the settings of ``server`` to commands in this process."""
    monkeypatch.setenv("LATENTMILL_S3_ENDPOINT_URL", endpoint or server.endpoint_url)
    for name in ("access_key", "secret_key", "region"):
        monkeypatch.setenv(f"LATENTMILL_S3_{name.upper()}", getattr(server, name))
    monkeypatch.setenv("LATENTMILL_S3_MAX_ATTEMPTS", "2")


def keys(store: Store) -> Sequence[str]:
    return [info.key for info in store.list()]


@pytest.mark.slow
def test_a_directory_passes_and_is_left_as_it_was(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreContract, "page", 50)
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "other").write_bytes(b"somebody else's")
    code, out, err = run("place", "--examples", "3")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith(f"testing {(tmp_path / 'place').as_uri()} below ")
    assert all(line.startswith("ok ") for line in lines[1:-1])
    assert "ok       a create never overwrites" in lines
    assert lines[-1].startswith(f"{len(lines) - 2} ok, 0 failed, in ")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["place", "place/other"]


def test_a_directory_that_is_not_there_is_not_left_behind(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("new/place", "--examples", "1", "--only", "states", "--json")
    told = json.loads(out)
    assert (code, told["passed"], told["counts"]) == (0, True, {"ok": 1, "failed": 0, "skipped": 0})
    assert told["store"] == (tmp_path / "new" / "place").as_uri()
    (check,) = told["checks"]
    assert (check["part"], check["status"]) == ("states", "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_is_left_as_it_was(
    run: Any, s3_server: S3Server, bucket: str, s3_settings: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(s3_server, monkeypatch)
    store = open_store(bucket, s3_settings)
    store.put("some/other", b"somebody else's")
    code, out, _ = run(f"{bucket}/some", "--examples", "1", "--only", "states")
    assert code == 0, out
    assert keys(store) == ["some/other"]


@pytest.mark.slow
def test_a_broken_store_fails_and_is_told_in_a_sentence(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a broken twin in memory: all checks over HTTP take half a minute."""

    def open_broken(url: str, s3: S3Settings | None = None) -> Store:
        return broken.CreateOverwrites(open_store(url, s3))

    monkeypatch.setattr(generator.store, "open_store", open_broken)
    url = f"memory://broken-{uuid.uuid4().hex}"
    code, out, err = run(url, "--only", "contract")
    assert (code, err) == (1, "")
    assert "FAILED   a create never overwrites: create over an object was not refused, expected AlreadyExists" in out
    assert out.splitlines()[-1].split(", in ")[0].endswith("failed, 1 skipped")
    assert keys(open_store(url)) == []
    code, out, _ = run("place", "--only", "states", "--examples", "200", "--shrink-seconds", "1", "--json")
    told = json.loads(out)
    assert (code, told["passed"]) == (1, False)
    assert "over an object" in told["checks"][0]["found"]
    assert told["checks"][0]["steps"]
    assert list(tmp_path.iterdir()) == []


def test_a_service_without_conditional_writes_is_found(
    run: Any, unsigned_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = unsigned_s3.make_bucket(f"unconditional-{uuid.uuid4().hex}")
    with unconditional_s3(unsigned_s3) as s3:
        reach(unsigned_s3, monkeypatch, s3.endpoint_url or "")
        code, out, err = run(bucket, "--only", "states", "--examples", "50", "--shrink-seconds", "1", "--json")
    facts = json.loads(out)
    assert (code, err, facts["passed"]) == (1, "", False)
    assert "expected" in facts["checks"][0]["found"]
    assert facts["checks"][0]["steps"]
    assert keys(open_store(bucket, unsigned_s3.settings)) == []


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://x", "memory://"])
def test_a_url_that_is_none_is_bad_input(run: Any, url: str) -> None:
    code, out, err = run(url, "--json")
    assert (code, out) == (2, "")
    assert json.loads(err)["error"] == "SpecError"


def test_a_store_that_cannot_be_used_is_bad_input(
    run: Any, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reach(s3_server, monkeypatch)
    code, _, err = run("s3://no-such-bucket-anywhere", "--json")
    assert (code, json.loads(err)["error"]) == (2, "BucketMissing")
    with S3Proxy(s3_server.port) as proxy:
        proxy.plan = lambda request: Fault.FORBIDDEN if "list-type" in request.path else None
        reach(s3_server, monkeypatch, proxy.endpoint_url)
        code, _, err = run(bucket, "--json")
    assert (code, json.loads(err)["error"]) == (2, "AccessDenied")
    assert keys(open_store(bucket, s3_server.settings)) == []
    code, _, err = run(bucket, "--json")  # the proxy is gone
    assert (code, json.loads(err)["error"]) == (2, "StoreUnavailable")
    (tmp_path / "file").write_bytes(b"")
    code, _, err = run("file/place", "--json")
    assert (code, json.loads(err)["error"]) == (2, "AccessDenied")


def test_what_the_extra_installs_is_named_where_it_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_HYPOTHESIS, "store", "test", "place"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "pip install 'latentmill[testing]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interrupted_test_leaves_nothing(tmp_path: Path) -> None:
    command = [*CLI, "place", "--only", "states", "--examples", "1000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("testing ")
    while not list(tmp_path.glob("place/*/states/example-*")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "interrupted")
    assert list(tmp_path.iterdir()) == []
