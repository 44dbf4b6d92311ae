"""Heartbeat files: each live worker touches one, independently of Redis and the store; ``health`` reads them.

A worker keeps its file locked while it lives. So an old unlocked file belongs to a killed worker, and an old locked one
to a worker that hangs.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

log = logging.getLogger(__name__)

_BEAT_SECONDS = 5.0
_READY_POLL_SECONDS = 0.2  # between two checks whether the worker is ready


class Health(NamedTuple):
    """The number of live workers of a state directory, and the age in seconds of their oldest heartbeat."""

    workers: int
    oldest: float


class Heartbeat:
    """A thread that touches ``<directory>/<process id>`` while ``is_healthy()``, once the worker is ready."""

    def __init__(self, directory: Path, is_healthy: Callable[[], bool]) -> None:
        self._directory, self._is_healthy = directory, is_healthy
        self._stopped = threading.Event()
        self._file: IO[bytes] | None = None

    def start(self, is_ready: Callable[[], bool] = lambda: True) -> None:
        """Start, at once or as soon as ``is_ready()``. Files of dead workers are removed."""
        if is_ready():
            self._begin()
        else:
            threading.Thread(
                target=self._begin_when_ready, args=(is_ready,), name="wait until ready", daemon=True
            ).start()

    def stop(self) -> None:
        self._stopped.set()

    def _begin_when_ready(self, is_ready: Callable[[], bool]) -> None:
        while not is_ready():
            if self._stopped.wait(_READY_POLL_SECONDS):
                return
        self._begin()

    def _begin(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        health(self._directory)
        path = self._directory / str(os.getpid())
        self._file = path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        threading.Thread(target=self._run, args=(path,), name="heartbeat", daemon=True).start()
        log.info("ready: the heartbeat begins")

    def _run(self, path: Path) -> None:
        while True:
            if self._is_healthy():
                path.touch()
            if self._stopped.wait(_BEAT_SECONDS):
                return


def health(directory: Path) -> Health:
    """The health of the workers on this host. Unlocked heartbeat files are removed."""
    ages = []
    for path in sorted(directory.glob("*")) if directory.is_dir() else ():
        try:
            with path.open("rb") as file:
                ages += [] if _remove_if_abandoned(file, path) else [time.time() - path.stat().st_mtime]
        except FileNotFoundError:  # another process removed it
            continue
    return Health(len(ages), max(ages, default=0.0))


def _remove_if_abandoned(file: IO[bytes], path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    path.unlink(missing_ok=True)
    return True
