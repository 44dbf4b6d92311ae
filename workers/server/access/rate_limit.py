"""Rate limits: buckets that fill evenly, one for each key or address. Each server process counts for itself."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import final

_HELD = 100_000  # buckets; the ones used longest ago are dropped, and begin full again


@final
class RateLimit:
    """``per_minute`` events of each name, at most ``burst`` of them at once. Safe to use from several threads."""

    def __init__(
        self, per_minute: float, burst: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second, self._burst = per_minute / 60.0, burst or max(1.0, per_minute / 4.0)
        self._clock, self._lock = clock, threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # content, when

    def take(self, name: str) -> float:
        """Count one event: 0.0 if it is within the limit, else the seconds until one would be."""
        return self._pour(name, 1.0)

    def wait(self, name: str) -> float:
        """The seconds until an event would be within the limit; counts nothing."""
        return self._pour(name, 0.0)

    def _pour(self, name: str, amount: float) -> float:
        now = self._clock()
        with self._lock:
            content, at = self._buckets.pop(name, (self._burst, now))
            content = min(self._burst, content + (now - at) * self._per_second)
            enough = content >= 1.0
            self._buckets[name] = (content - amount if enough else content, now)
            while len(self._buckets) > _HELD:
                self._buckets.popitem(last=False)
        return 0.0 if enough else (1.0 - content) / self._per_second
