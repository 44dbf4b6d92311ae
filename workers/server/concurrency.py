"""Slots: how many of something one server process does at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from workers.server.problems import too_many


@final
class Slots:
    """At most ``limit`` at the same time; who comes beyond that is told to come back. Safe to use from threads."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self._taken, self._lock = 0, threading.Lock()

    @property
    def is_full(self) -> bool:
        return self._taken >= self.limit

    @contextmanager
    def one(self) -> Iterator[None]:
        """Holds a slot for the block. Raises ``Problem`` (429) if there is none."""
        with self._lock:
            if self.is_full:
                raise self.refusal()
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1

    def refusal(self) -> Exception:
        """What to raise if there is none."""
        return too_many(self.name, f"at most {self.limit} at a time", 10.0)
