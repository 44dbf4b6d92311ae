"""The process reaper: kills every process that a test started, at the end of the test.

Processes are marked by an environment variable, which children, grandchildren and orphans inherit. What a fork server
forks shows the server's environment; it has the mark for its name instead, which forks inherit too (``bear_mark``). A
program that overwrites its environment, as redis-server does for its title, is noted by its id and start time.
``ProcessReaper`` kills them all when its block ends; if the test process itself is killed, a separate guard process,
which imports nothing of ours, kills them.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "MILL_TEST_MARK"
_MARK_BYTES = 7  # in hexadecimal as long as a name of a process may be
_PR_SET_NAME = 15

NotedProcesses = set[tuple[int, int]]  # process ids, and their start times in clock ticks


def start_ticks(pid: int) -> int | None:
    """The start time of a live process, in clock ticks since boot; ``None`` if it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])


def bear_mark() -> None:
    """Show the mark in the environment, if there is one, as the name of this process, which was forked."""
    if mark := os.environ.get(MARK):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, mark.encode(), 0, 0, 0)


def watched_pids(mark: str, noted: NotedProcesses) -> list[int]:
    """The live processes that carry ``mark`` or were noted, except for this one."""
    variable, found = f"{MARK}={mark}".encode(), [pid for pid, started in noted if start_ticks(pid) == started]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            named = (entry / "comm").read_text().rstrip("\n") == mark and start_ticks(int(entry.name)) is not None
            if named or variable in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has ended, or belongs to another user
            continue
    return found


def kill_all(mark: str, noted: NotedProcesses, *, timeout: float = 10.0) -> list[int]:
    """Send SIGKILL to all watched processes until none is left or ``timeout`` seconds pass; return their ids."""
    killed, deadline = set[int](), time.monotonic() + timeout
    while (pids := watched_pids(mark, noted)) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        killed |= set(pids)
        time.sleep(0.05)
    return sorted(killed)


class ProcessReaper:
    """Watches every process that is started in the block, and kills those that are left at its end.

    ``left`` are the ids of the processes that had to be killed.
    """

    def __init__(self) -> None:
        self.mark = secrets.token_hex(_MARK_BYTES)
        self.left: list[int] = []
        self._noted: NotedProcesses = set()

    def __enter__(self) -> ProcessReaper:
        # Without the mark of an outer reaper, which would kill the guard too early.
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
        started = start_ticks(pid)
        if started is not None:
            self._noted.add((pid, started))
            assert self._guard.stdin is not None
            self._guard.stdin.write(f"{pid} {started}\n".encode())
            self._guard.stdin.flush()

    def watched(self) -> list[int]:
        """The live processes that were started in this block."""
        return watched_pids(self.mark, self._noted)


def _guard(mark: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the guard must outlive the test process
    noted: NotedProcesses = set()
    for line in sys.stdin:  # until the test process has ended in any way
        pid, started = line.split()
        noted.add((int(pid), int(started)))
    kill_all(mark, noted, timeout=120.0)


if __name__ == "__main__":
    _guard(sys.argv[1])
