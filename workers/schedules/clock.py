"""The current time, and a check of this machine's clock against the store's.

A fast clock would start tomorrow's runs today; a slow one would start today's runs late or skip them. So before a
ticker decides anything, it writes an object and compares the time that the store gives it with the local clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import final

from generator.store.base import Store

CLOCK_KEY = "schedules/clock"
TOLERANCE = timedelta(minutes=2)


class Clock(ABC):
    """A ticker's source of the current time."""

    @abstractmethod
    def now(self) -> datetime:
        """The current time, in UTC."""

    @abstractmethod
    def skew_warning(self, root: Store) -> str:
        """Why this clock cannot be trusted, as text; empty if it can. Raises ``StoreError``."""


@final
class SystemClock(Clock):
    """The clock of this machine, compared with that of the store. For a local directory the two are the same clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def skew_warning(self, root: Store) -> str:
        before = self.now()
        root.put(CLOCK_KEY, b"")
        written = root.head(CLOCK_KEY)
        if written is None:  # deleted meanwhile: no conclusion
            return ""
        if before - TOLERANCE <= written.modified <= self.now() + TOLERANCE:
            return ""
        offset = (before - written.modified).total_seconds()
        direction = "ahead of" if offset > 0 else "behind"
        return f"the clock of this machine is {abs(offset):,.0f} s {direction} that of the store"
