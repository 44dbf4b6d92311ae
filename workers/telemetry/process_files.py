"""Counter files: a private directory for the processes of one worker, with one numbered set of files for each process.

Each process holds the lock of its file set. When a process is killed its lock is freed, and the next process takes over
the set and continues its counters. So no count is lost or doubled, and there are only as many files as there were
processes at the same time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from itertools import count
from pathlib import Path
from typing import IO, final

DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client looks for the directory
_FILE_BYTES = 1 << 16  # prometheus_client's default size; fifty series take about 10 KiB
_METRIC_KINDS = ("counter", "histogram", "gauge_max")


@final
class MultiprocessDir:
    """A new directory below ``home`` for this process and its children, which find it by ``DIR_VARIABLE``.

    Directories of dead workers are removed.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Hold the common lock until our own is held, so that no other worker removes our directory as abandoned.
        with (home / "lock").open("ab") as home_lock:
            fcntl.flock(home_lock, fcntl.LOCK_EX)
            for path in home.iterdir():
                _remove_if_abandoned(path)
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=home))
            self._lock = _try_lock(self.path / "lock")
        os.environ[DIR_VARIABLE] = str(self.path)

    def close(self) -> None:
        """Remove the directory; later counts of the children are lost."""
        os.environ.pop(DIR_VARIABLE, None)
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


@final
class ProcessFiles:
    """The first free file set of the parent's ``MultiprocessDir``, locked. Raises ``OSError``, ``KeyError``."""

    def __init__(self) -> None:
        directory = Path(os.environ[DIR_VARIABLE])
        for number in count():
            lock = _try_lock(directory / f"{number}.lock")
            if lock is not None:
                self.number, self._lock = number, lock
                break
        for kind in _METRIC_KINDS:
            _allocate(directory / f"{kind}_{self.number}.db")


def _try_lock(path: Path) -> IO[bytes] | None:
    """The file, locked; ``None`` if another process holds the lock."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _remove_if_abandoned(directory: Path) -> None:
    if not directory.name.startswith("worker-") or not directory.is_dir() or directory.is_symlink():
        return
    if (lock := _try_lock(directory / "lock")) is not None:
        shutil.rmtree(directory, ignore_errors=True)
        lock.close()


def _allocate(path: Path) -> None:
    """Create a fully allocated file of zeros, if missing: writing a sparse one to a full disk kills the process."""
    if path.exists():
        return
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
    draft.replace(path)
