"""A sandbox for the command line: `latentmill` processes in a directory of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.support.command_server import run_command, shared_fork_server
from tests.support.fork_server import ForkedCommand, ForkedProcess

CLI = [sys.executable, "-c", "from workers.cli import main; main()"]
LENIENT_GATES: dict[str, Any] = {
    "copies": None,
    "duplicates": None,
    "drift": None,
    "confidence_drop": None,
    "limit": 100,
}


class CliSandbox:
    """A directory with a store root, and the `latentmill` processes that were started in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LATENTMILL_")}
        self.environment = inherited | {
            "LATENTMILL_ROOT": str(home / "root"),
            "LATENTMILL_STATE_DIR": str(home / "state"),
            "LATENTMILL_CACHE_DIR": str(home / "cache"),
            "LATENTMILL_SOURCE_CACHE": str(home / "sources"),
            "LATENTMILL_DEVICE": "cpu",
            "LATENTMILL_TICK_SECONDS": "0.5",
            "LATENTMILL_RECONCILE_SECONDS": "0.5",
            "OMP_NUM_THREADS": "1",
        }
        self.processes: list[subprocess.Popen[bytes] | ForkedProcess] = []

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes] | ForkedProcess:
        """Start a command in the background, with a log named after it; a scheduler is forked, others are not."""
        variables = self.environment | environment
        process: subprocess.Popen[bytes] | ForkedProcess
        with (self.home / f"{words[0]}-{len(self.processes)}.log").open("ab") as log:
            if words[0] == "scheduler":
                process = shared_fork_server().start(ForkedCommand("latentmill", words, self.home, variables), log, log)
            else:
                process = subprocess.Popen([*CLI, *words], cwd=self.home, env=variables, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, and check its exit code and that it shows no traceback."""
        done = run_command([*words], cwd=self.home, env=self.environment, timeout=120)
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def schedule_folder(self, *declared: dict[str, Any]) -> Path:
        """Write these schedules to a folder; return the folder."""
        for fields in declared:
            write_schedule(self.home / "schedules", fields)
        return self.home / "schedules"

    def wait_until(self, condition: Callable[[], bool], seconds: float = 270.0, *, pause: float = 0.2) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(pause)

    def logs(self) -> str:
        paths = [*sorted(self.home.glob("*.log")), *sorted((self.home / "state").glob("*.log"))]
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in paths)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def write_schedule(folder: Path, fields: dict[str, Any]) -> str:
    """Write the file of a schedule, due every minute, for 60 small images in two shards; ``fields`` override these."""
    folder.mkdir(exist_ok=True)
    job = {"bundle": "tiny.bundle", "count": 60, "shard_size": 30, "batch": 16, "destination": "out"}
    path = folder / f"{fields['name']}-{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump({"cron": "* * * * *", "job": job, "gates": LENIENT_GATES} | fields))
    return str(path)


@contextmanager
def cli_sandbox(home: Path) -> Iterator[CliSandbox]:
    """A sandbox whose processes are stopped after the block."""
    sandbox = CliSandbox(home)
    try:
        yield sandbox
    finally:
        sandbox.stop()


def minutes_ago(now: datetime, minutes: int) -> str:
    """A past whole minute, in ISO format as in a schedule."""
    return (now.replace(second=0, microsecond=0) - timedelta(minutes=minutes)).isoformat()
