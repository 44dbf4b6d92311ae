"""The private directory in which the processes of one worker keep their counts, and a place in it for each of them.

A place belongs to whoever holds its lock. A process that is killed loses the lock with its life, and the next one takes
the place and counts on from there: nothing is lost, nothing counts twice, and there are no more files than there were
processes at once.
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
_FILE_BYTES = 1 << 16  # prometheus_client's own size; some fifty series take 10 KiB
_METRIC_KINDS = ("counter", "histogram", "gauge_max")


@final
class MultiprocessDir:
    """A fresh directory below ``home`` for this process and those it starts; they find it by ``VARIABLE``.

    Those of workers that are no more are removed.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (home / "lock").open("ab") as alone:  # nobody takes a directory whose lock is not yet held for abandoned
            fcntl.flock(alone, fcntl.LOCK_EX)
            for path in home.iterdir():
                _remove_if_abandoned(path)
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=home))
            self._lock = _try_lock(self.path / "lock")
        os.environ[DIR_VARIABLE] = str(self.path)

    def close(self) -> None:
        """Remove it; a process that still counts does so for nobody."""
        os.environ.pop(DIR_VARIABLE, None)
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


@final
class ProcessFiles:
    """The first free place of the directory that the parent process has made. Raises ``OSError``, ``KeyError``."""

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
    """The file, with its lock held; ``None`` where somebody else has it."""
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
    """A whole file of zeros, or the one that is there. A file with holes would kill who writes it to a full disk."""
    if path.exists():
        return
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
    draft.replace(path)
