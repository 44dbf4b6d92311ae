"""Commands and scripts of tests as processes of their own, forked by a server that this test process shares.

Tests of how a fresh interpreter starts use ``subprocess`` instead.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.support.fork_server import ForkedCommand, ForkServer


def run_command(
    words: list[str], *, cwd: Path, env: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `latentmill` with ``words`` to its end. Raises ``subprocess.TimeoutExpired``."""
    return _run(ForkedCommand("latentmill", words, cwd, env), timeout)


def run_script(script: Path, *words: object, timeout: float = 280.0) -> subprocess.CompletedProcess[str]:
    """Run a Python script with ``words`` to its end, in the current directory. Raises ``subprocess.TimeoutExpired``."""
    arguments = [str(word) for word in (script, *words)]
    return _run(ForkedCommand("script", arguments, Path.cwd(), os.environ), timeout)


@cache
def shared_fork_server() -> ForkServer:
    """The server of this test process, which ends with it."""
    server = ForkServer()
    atexit.register(server.stop)
    return server


def _run(command: ForkedCommand, timeout: float) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = shared_fork_server().start(command, out, err)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess([*command.words], code, out.read().decode(), err.read().decode())
