"""Commands and scripts as processes of their own, without the seconds that importing torch takes each time.

A server process imports the slow libraries once, with one thread each. For every command it forks: the child has its
own process id, directory, environment, output and exit code, and runs the same ``main`` as the installed command, or a
script. Commands in the background, and tests of how a fresh interpreter starts, use ``subprocess`` instead.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_PRELOADED = (
    "torch",
    "scipy.stats",
    "sklearn.mixture",
    "pyarrow.parquet",
    "workers.cli.main",
    "workers.worker.ticket_handler",
)


def run_command(
    words: list[str], *, cwd: Path, env: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `latentmill` with ``words`` to its end. Raises ``subprocess.TimeoutExpired``."""
    return _run({"words": words, "cwd": str(cwd), "env": env}, timeout)


def run_script(script: Path, *words: object, timeout: float = 280.0) -> subprocess.CompletedProcess[str]:
    """Run a Python script with ``words`` to its end, in the current directory. Raises ``subprocess.TimeoutExpired``."""
    arguments = [str(word) for word in words]
    return _run({"script": str(script), "words": arguments, "cwd": str(Path.cwd()), "env": dict(os.environ)}, timeout)


def _run(wanted: dict[str, object], timeout: float) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, socket.socket(socket.AF_UNIX) as client:
        client.connect(_server())
        request = json.dumps(wanted).encode()
        socket.send_fds(client, [len(request).to_bytes(4)], [out.fileno(), err.fileno()])
        client.sendall(request)
        pid = int.from_bytes(_receive(client, 4))
        client.settimeout(timeout)
        try:
            code = int.from_bytes(_receive(client, 4), signed=True)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(str(wanted["words"]), timeout) from None
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(str(wanted["words"]), code, out.read().decode(), err.read().decode())


@cache
def _server() -> str:
    """The address of this test process's server, which ends with it."""
    directory = tempfile.TemporaryDirectory(prefix="latentmill-commands-")
    address = f"{directory.name}/socket"
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, address],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # threads do not survive a fork
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    atexit.register(directory.cleanup)
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    return address


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the command server has ended")
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
    size, fds, _, _ = socket.recv_fds(connection, 4, 2)
    request = json.loads(_receive(connection, int.from_bytes(size)))
    child = os.fork()
    if child == 0:
        connection.close()
        _become(request, fds)
    connection.sendall(child.to_bytes(4))
    _, status = os.waitpid(child, 0)
    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, signed=True))


def _become(request: dict[str, object], fds: list[int]) -> None:
    from workers.cli.main import main

    code = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in zip((null, *fds), range(3), strict=True):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(request["env"])  # type: ignore[call-overload]
        os.chdir(str(request["cwd"]))
        script = request.get("script")
        sys.argv = [str(script or "latentmill"), *request["words"]]  # type: ignore[misc]
        if script is None:
            main()
        else:
            sys.path.insert(0, str(Path(str(script)).parent))
            runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
