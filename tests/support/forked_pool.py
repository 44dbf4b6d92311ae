"""Pool processes of a forked worker: where Celery asks for a fresh interpreter, it gets a fork that has torch already.

A helper is forked from the worker's main process before that imports or starts anything. It has the session and the
output of the worker, and forks a pool process whenever one would be spawned. That process runs the command which the
interpreter would have run, with the same descriptors, environment and directory, and is a child of the main process.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

_PR_SET_CHILD_SUBREAPER = 36
_MESSAGE_BYTES = 1 << 18


def install(lives: int) -> None:
    """Fork the helper of this main process. The helper alone keeps ``lives`` open, and ends with the main process."""
    from billiard import popen_spawn_posix

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        with contextlib.suppress(BaseException):
            _serve(theirs, lives)
        os._exit(0)
    theirs.close()
    os.close(lives)
    # What the helper's short-lived child forks becomes a child of the main process, not of process 1.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    one_request = threading.Lock()

    def spawn(path: str, command: Sequence[str], descriptors: Sequence[int]) -> int:
        """The process id of a child that runs ``command`` with these descriptors, under the same numbers."""
        numbers = sorted(set(descriptors))
        request = {"command": [*command], "env": {**os.environ}, "cwd": os.getcwd(), "descriptors": numbers}  # noqa: PTH109
        with one_request:
            socket.send_fds(ours, [json.dumps(request).encode()], numbers)
            answer = ours.recv(4)
        if not answer:
            raise OSError("the helper that forks pool processes has ended")
        return int.from_bytes(answer)

    popen_spawn_posix.spawnv_passfds = spawn


def run_to_exit(run: Callable[[], object]) -> NoReturn:
    """Call ``run`` and end this process as an interpreter ends: threads, exit handlers, output, exit code."""
    code = 1
    try:
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _serve(connection: socket.socket, lives: int) -> None:
    """Answer the main process with the id of a new pool process, until it has ended."""
    while True:
        data, received, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 64)
        if not data:
            return
        child = _fork_below_the_parent(partial(_become, json.loads(data), received), (connection.fileno(), lives))
        for descriptor in received:
            os.close(descriptor)
        connection.send(child.to_bytes(4))


def _fork_below_the_parent(run: Callable[[], object], not_inherited: Sequence[int]) -> int:
    """The id of a process that calls ``run`` as a child of this one's parent, without these descriptors."""
    told, telling = os.pipe()
    middle = os.fork()
    if middle == 0:
        middle, child = os.getpid(), os.fork()
        if child:
            os.write(telling, child.to_bytes(4))
            os._exit(0)
        for descriptor in (told, telling, *not_inherited):
            os.close(descriptor)
        while os.getppid() == middle:
            time.sleep(0.001)
        run_to_exit(run)
    os.close(telling)
    os.waitpid(middle, 0)
    answer = os.read(told, 4)
    os.close(told)
    if not answer:
        raise ChildProcessError(f"process {middle} has ended before it told whom it forked")
    return int.from_bytes(answer)


def _become(request: dict[str, Any], received: list[int]) -> None:
    """Be the pool process of ``request`` in this process, to its end."""
    wanted = request["descriptors"]
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(wanted) + 1) for descriptor in received]
    for descriptor in received:
        os.close(descriptor)
    for descriptor, number in zip(above, wanted, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    command = request["command"]
    code = command.index("-c")
    sys.argv = ["-c", *command[code + 2 :]]
    exec(command[code + 1], {"__name__": "__main__"})
