"""Nothing that a test starts outlives it: every process below it carries a mark, and is ended by its id.

The mark is an environment variable, which children, grandchildren and orphans inherit. A program that overwrites its
environment, as redis-server does for its title, is noted by its id and the moment of its birth instead. ``Watcher``
ends them all when its block ends; a process of its own, which imports nothing of ours, does so when the test process
itself is killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "MILL_TEST_MARK"

NotedProcesses = set[tuple[int, int]]  # process ids, and the clock ticks at which they began


def start_ticks(pid: int) -> int | None:
    """When a living process began, in clock ticks since the machine did; ``None`` for one that has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])


def watched_pids(mark: str, noted: NotedProcesses) -> list[int]:
    """The living processes that carry ``mark`` or were noted, but this one."""
    wanted, found = f"{MARK}={mark}".encode(), [pid for pid, birth in noted if start_ticks(pid) == birth]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found


def kill_all(mark: str, noted: NotedProcesses, *, patience: float = 10.0) -> list[int]:
    """SIGKILL for every process that is watched, until there is none; those that there were."""
    ended, deadline = set[int](), time.monotonic() + patience
    while (pids := watched_pids(mark, noted)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        ended |= set(pids)
        time.sleep(0.05)
    return sorted(ended)


class ProcessReaper:
    """Inside the block every process that is started is watched; after it none of them lives.

    ``left`` are the processes that somebody had left behind when the block ended.
    """

    def __init__(self) -> None:
        self.mark = secrets.token_hex(8)
        self.left: list[int] = []
        self._noted: NotedProcesses = set()

    def __enter__(self) -> ProcessReaper:
        # Without the mark of an outer watcher, which would end the guard before it has done its work.
        unmarked = {name: value for name, value in os.environ.items() if name != MARK}
        self._guard = subprocess.Popen(
            [sys.executable, "-I", __file__, self.mark], stdin=subprocess.PIPE, start_new_session=True, env=unmarked
        )
        self._before = os.environ.get(MARK)
        os.environ[MARK] = self.mark
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(MARK)
        if self._before is not None:
            os.environ[MARK] = self._before
        self.left = kill_all(self.mark, self._noted)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def note(self, pid: int) -> None:
        """Watch a living process that may overwrite its environment."""
        birth = start_ticks(pid)
        if birth is not None:
            self._noted.add((pid, birth))
            assert self._guard.stdin is not None
            self._guard.stdin.write(f"{pid} {birth}\n".encode())
            self._guard.stdin.flush()

    def watched(self) -> list[int]:
        """The living processes that were started in this block."""
        return watched_pids(self.mark, self._noted)


def _guard(mark: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it has to stay until the last moment
    noted: NotedProcesses = set()
    for line in sys.stdin:  # until the test process has ended, however it did
        pid, birth = line.split()
        noted.add((int(pid), int(birth)))
    kill_all(mark, noted, patience=120.0)  # whoever is left has no time to keep


if __name__ == "__main__":
    _guard(sys.argv[1])
