"""A process that imports the slow libraries once and forks: a command then starts without the seconds they take.

For every command the server forks: the child has its own process id, directory, environment, output and exit code,
and runs the same code as a fresh interpreter would. The server has one thread, since threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from tests.faults.process_reaper import MARK, bear_mark
from tests.support import forked_pool

ROOT = Path(__file__).parents[2]
_PRELOADED = (
    "torch",
    "torch._dynamo",  # the first optimizer of a process imports it
    "scipy.stats",
    "sklearn.mixture",
    "pyarrow.parquet",
    "boto3.session",
    "billiard.popen_spawn_posix",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "kombu.transport.redis",
    "workers.cli.main",
    "generator.models.learning",
    "workers.schedules.ticker",
    "workers.worker.reconciler",
    "workers.worker.ticket_handler",
)


@dataclass(frozen=True)
class ForkedCommand:
    """What a child runs: the words of `latentmill`, a script and its words, or a worker's ``python -m celery`` words.

    A worker is the leader of a session of its own, and its pool processes are forked too.
    """

    kind: Literal["latentmill", "script", "worker"]
    words: Sequence[str]
    cwd: Path
    env: Mapping[str, str]


class ForkedProcess:
    """The process of a command; the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, command: ForkedCommand, connection: socket.socket) -> None:
        self._command, self._connection = command, connection
        self.pid = int.from_bytes(_receive(connection, 4))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for the number of a signal; ``None`` while the process lives."""
        return self._code(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises ``subprocess.TimeoutExpired``."""
        code = self._code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired([*self._command.words], timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = int.from_bytes(_receive(self._connection, 4), signed=True)
            self._connection.close()
        return self.returncode


class ForkClient:
    """Asks the fork server at ``address`` for processes."""

    def __init__(self, address: str) -> None:
        self.address = address

    def start(self, command: ForkedCommand, out: IO[bytes], err: IO[bytes]) -> ForkedProcess:
        """Start a command with its output in these files."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        request = json.dumps(
            {"kind": command.kind, "words": [*command.words], "cwd": str(command.cwd), "env": {**command.env}}
        ).encode()
        socket.send_fds(connection, [len(request).to_bytes(4)], [out.fileno(), err.fileno()])
        connection.sendall(request)
        return ForkedProcess(command, connection)


class ForkServer(ForkClient):
    """A server process; ``stop`` ends it, and so does the end of this process. Commands live on.

    ``variables`` are added to its environment, for libraries that read it when they are loaded.
    """

    def __init__(self, **variables: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="latentmill-forks-")
        super().__init__(f"{self._directory.name}/socket")
        # Without the mark of a process reaper: the server outlives the test that happens to start it.
        inherited = {name: value for name, value in os.environ.items() if name != MARK}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self.address],
            cwd=ROOT,
            env=inherited | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        """End the server; none of its own processes is left."""
        with self._process:  # closes its pipes
            assert self._process.stdout is not None
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.stdout.read()  # until every process has ended that has the server's output
        self._directory.cleanup()


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the fork server has ended")
        data += part
    return data


def _serve(address: str) -> None:
    """Answer requests, each from a child that waits for its own; end when the test process does."""
    for name in _PRELOADED:
        __import__(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        if os.fork() == 0:  # ends the server with the test process, whatever becomes of that
            with contextlib.suppress(BaseException):
                sys.stdin.buffer.read()
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(0)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """Start the command of one request; tell its process id, then its exit code, once all helpers have ended too."""
    size, files, _, _ = socket.recv_fds(connection, 4, 2)
    request = json.loads(_receive(connection, int.from_bytes(size)))
    ended, lives = os.pipe()  # the helper of a worker holds ``lives``
    child = os.fork()
    if child == 0:
        connection.close()
        os.close(ended)
        _become(request, files, lives)
    for file in (*files, lives):
        os.close(file)
    connection.sendall(child.to_bytes(4))
    _, status = os.waitpid(child, 0)
    os.read(ended, 1)
    with contextlib.suppress(OSError):  # nobody waits for it
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, signed=True))


def _become(request: dict[str, Any], files: list[int], lives: int) -> None:
    """Be the command of ``request`` in this process, to its end."""
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((null, *files)):
        os.dup2(source, target)
        os.close(source)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    bear_mark()
    tempfile.tempdir = None  # it may have been found in the environment of the server
    forked_pool.run_to_exit(lambda: _run(request["kind"], request["words"], lives))


def _run(kind: str, words: list[str], lives: int) -> None:
    if kind == "worker":
        os.setsid()
        forked_pool.install(lives)
        sys.argv = ["celery", *words]
        runpy.run_module("celery", run_name="__main__", alter_sys=True)
        return
    os.close(lives)
    if kind == "script":
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
    else:
        from workers.cli.main import main

        sys.argv = ["latentmill", *words]
        main()


if __name__ == "__main__":
    _serve(sys.argv[1])
