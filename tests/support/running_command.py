"""A forked ``latentmill`` command, whose children are processes of their own, and what becomes of these."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.command_server import shared_fork_server
from tests.support.fork_server import ForkedCommand


def until(condition: Callable[[], bool], describe: Callable[[], str] = str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> set[int]:
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found |= {int(child)} | descendants(int(child))
    return found


class Running:
    """A ``latentmill`` command that runs until it is stopped, in a directory with a space in its name."""

    def __init__(self, home: Path, *words: str, **environment: str) -> None:
        self.home, self.state = home, home / "the state"
        home.mkdir(exist_ok=True)
        self.environment = (
            {name: value for name, value in os.environ.items() if not name.startswith("LATENTMILL_")}
            | {"LATENTMILL_STATE_DIR": str(self.state), "LATENTMILL_CACHE_DIR": str(home / "cache")}
            | {"LATENTMILL_SOURCE_CACHE": str(home / "sources")}
            | environment
        )
        self.log = home / f"{words[0]}.log"
        with self.log.open("ab") as log:
            command = ForkedCommand("latentmill", words, home, self.environment)
            self.process = shared_fork_server().start(command, log, log)
        self.children: set[int] = set()

    def until_served(self, ready: Path) -> None:
        """Wait for the file that signals readiness, and record all child processes."""

        def served() -> bool:
            self.children = descendants(self.process.pid)
            return ready.exists() and len(self.children) >= 2  # Redis and a worker

        until(lambda: served() or self.process.poll() is not None, self.log.read_text)
        assert self.process.poll() is None, self.log.read_text()

    def ended(self) -> int:
        return self.process.wait(60)

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.children |= descendants(self.process.pid)
            self.process.kill()
            self.process.wait()
        for pid in filter(lives, self.children):
            os.kill(pid, signal.SIGKILL)
