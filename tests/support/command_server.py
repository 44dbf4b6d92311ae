"""Commands and scripts of tests as processes of their own, forked by a server that test processes share.

Tests of how a fresh interpreter starts use ``subprocess`` instead.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.support.fork_server import ForkClient, ForkedCommand, ForkServer

SERVER_VARIABLE = "MILL_TEST_FORK_SERVER"  # the address of a server to use instead of an own one


def run_command(
    words: list[str], *, cwd: Path, env: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `latentmill` with ``words`` to its end. Raises ``subprocess.TimeoutExpired``."""
    return run_forked(ForkedCommand("latentmill", words, cwd, env), timeout)


def run_script(script: Path, *words: object, timeout: float = 280.0) -> subprocess.CompletedProcess[str]:
    """Run a Python script with ``words`` to its end, in the current directory. Raises ``subprocess.TimeoutExpired``."""
    arguments = [str(word) for word in (script, *words)]
    return run_forked(ForkedCommand("script", arguments, Path.cwd(), os.environ), timeout)


@cache
def shared_fork_server(**variables: str) -> ForkClient:
    """The server of this run of tests or, with variables in its environment, of this process."""
    if not variables and SERVER_VARIABLE in os.environ:
        return ForkClient(os.environ[SERVER_VARIABLE])
    server = ForkServer(**variables)
    atexit.register(server.stop)
    return server


def run_forked(
    command: ForkedCommand, timeout: float, server: ForkClient | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end, forked by ``server`` or the shared one. Raises ``subprocess.TimeoutExpired``."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = (server or shared_fork_server()).start(command, out, err)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess([*command.words], code, out.read().decode(), err.read().decode())
