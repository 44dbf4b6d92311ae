"""Heartbeat files of workers: one for each live worker, removed after its death, independent of Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers.worker.heartbeat import Heartbeat, health

_WORKER = (
    "import pathlib, sys, time; from workers.worker.heartbeat import Heartbeat\n"
    "Heartbeat(pathlib.Path(sys.argv[1]), lambda: True).start(); print('started', flush=True); time.sleep(600)"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _WORKER, str(tmp_path / "heartbeats")]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert running[-1].stdout is not None
        assert running[-1].stdout.readline() == b"started\n"
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_each_worker_has_its_own_and_a_dead_one_is_forgotten(
    start: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    directory = tmp_path / "heartbeats"
    assert health(directory) == (0, 0.0)
    first, second = start(), start()
    assert health(directory).workers == 2
    hour_ago = time.time() - 3600
    os.kill(first.pid, signal.SIGSTOP)  # it hangs; the heartbeat of the other worker must not hide that
    os.utime(directory / str(first.pid), (hour_ago, hour_ago))
    assert health(directory).oldest > 3000
    second.kill()
    second.wait()
    assert health(directory).workers == 1
    first.kill()
    first.wait()
    assert health(directory) == (0, 0.0)
    assert list(directory.iterdir()) == []


def test_a_worker_that_is_not_ready_yet_shows_none(tmp_path: Path) -> None:
    ready, asked = threading.Event(), threading.Semaphore(0)

    def answer() -> bool:
        asked.release()
        return ready.is_set()

    heartbeat = Heartbeat(tmp_path / "heartbeats", lambda: True)
    heartbeat.start(answer)
    for _ in range(3):
        assert asked.acquire(timeout=30)
    assert health(tmp_path / "heartbeats").workers == 0
    ready.set()
    until = time.monotonic() + 30
    while not list((tmp_path / "heartbeats").glob("*")):
        assert time.monotonic() < until
        time.sleep(0.01)
    heartbeat.stop()
    assert heartbeat._file is not None
    heartbeat._file.close()


def test_a_number_that_is_none_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from generator.errors import SettingsError
    from workers.settings import load_settings

    for name in ("GRACE_SECONDS", "LEASE_SECONDS", "RECONCILE_SECONDS", "S3_READ_TIMEOUT"):
        for value in ("inf", "nan", "1e999"):
            with monkeypatch.context() as patch:
                patch.setenv(f"LATENTMILL_{name}", value)
                with pytest.raises(SettingsError, match=name):
                    load_settings()
