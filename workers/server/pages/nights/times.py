"""The times of a schedule, in words: its cron expression, and moments in its own time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from workers.schedules.cron import zone_of


@dataclass(frozen=True)
class LocalTimes:
    """Moments in the time zone ``zone`` (its IANA name)."""

    zone: str

    def local(self, moment: datetime) -> datetime:
        """``moment`` in local time."""
        return moment.astimezone(self._zone)

    def text(self, moment: datetime) -> str:
        """``2026-03-01 03:30``; with its offset where clocks go back and the local time exists twice."""
        local = self.local(moment)
        twice = local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset() and self._exists(local)
        return local.strftime("%Y-%m-%d %H:%M") + (f" (UTC{local:%z})" if twice else "")

    def begin_of(self, day: date) -> datetime:
        """The first moment of a local day, in UTC."""
        return datetime(day.year, day.month, day.day, tzinfo=self._zone).astimezone(UTC)

    @property
    def _zone(self) -> ZoneInfo:
        return zone_of(self.zone)

    def _exists(self, local: datetime) -> bool:
        other = local.replace(fold=1 - local.fold)
        return other.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) == local.replace(tzinfo=None)


@lru_cache(maxsize=1000)
def cron_words(expression: str) -> str:
    """A cron expression in words (``At 03:30 every day``); the expression itself if there are none for it."""
    try:
        return CronSim(expression, datetime(2024, 1, 1)).explain()
    except (CronSimError, ValueError, AssertionError, NotImplementedError, KeyError, IndexError):
        return expression


def first_of_month(day: date, months: int = 0) -> date:
    """The first day of the month of ``day``, or of the one ``months`` later (or earlier)."""
    count = 12 * day.year + day.month - 1 + months
    return date(count // 12, count % 12 + 1, 1)


def days_of_month(month: date) -> list[date]:
    """The days of the month that begins with ``month``."""
    return [month + timedelta(days=number) for number in range((first_of_month(month, 1) - month).days)]
