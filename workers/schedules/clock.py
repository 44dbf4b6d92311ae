"""What time it is, and whether that can be believed.

A machine whose clock runs ahead would begin tomorrow's runs today; one whose clock is behind would not begin them at
all. So before anything is decided, the time at which the store says that it wrote an object is compared with ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import final

from generator.store.base import Store

CLOCK_KEY = "schedules/clock"
TOLERANCE = timedelta(minutes=2)


class Clock(ABC):
    """Where a ticker has the time from."""

    @abstractmethod
    def now(self) -> datetime:
        """The time, in UTC."""

    @abstractmethod
    def skew_warning(self, root: Store) -> str:
        """Why the time is not to be believed; empty where it is. Raises ``StoreError``."""


@final
class SystemClock(Clock):
    """The clock of this machine, compared with that of the store. For a directory of this machine the two are one."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def skew_warning(self, root: Store) -> str:
        before = self.now()
        root.put(CLOCK_KEY, b"")
        written = root.head(CLOCK_KEY)
        if written is None:  # somebody sweeps the root this very moment; nothing is known
            return ""
        if before - TOLERANCE <= written.modified <= self.now() + TOLERANCE:
            return ""
        off = (before - written.modified).total_seconds()
        return f"the clock of this machine is {abs(off):,.0f} s {'ahead of' if off > 0 else 'behind'} that of the store"
