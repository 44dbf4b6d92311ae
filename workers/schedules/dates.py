"""The moments at which a schedule is due: cron expressions in a time zone, through every change of its clocks.

An expression has the five fields of cron: minute, hour, day of the month, month, day of the week; ``L``, ``LW``,
``MON#2`` and ``FRIL`` are known too. cronsim finds the local times; how they become moments is decided here, because
two readings of one expression must agree to the second, wherever they begin:

- A local time that does not exist (clocks go forward over it) is due at the first moment after the gap.
- A local time that exists twice (clocks go back) is due once, the first time.
- With ``*`` in the hour field (``*/15 * * * *``) it is real time that counts: what does not exist is left out, and what
  exists twice is due twice, so that the distance between two dates stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from generator.errors import SpecError
from generator.spec.canonical import short_repr

_EXPECTED = "five fields: minute hour day-of-month month day-of-week (30 3 * * * is every night at half past three)"
_MAX_CLOCK_CHANGE = timedelta(hours=3)  # no clock goes back by more
_MINUTE = timedelta(minutes=1)
_KEY_FORMAT = "%Y%m%dT%H%M%SZ"
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


@dataclass(frozen=True)
class Cron:
    """A cron expression in a time zone, both checked. Moments are given and returned in UTC."""

    expression: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        """Raises ``SpecError`` for an expression that means nothing or never comes true, or an unknown zone."""
        _ = self._zone
        if len(self.expression.split()) != 5:
            raise SpecError("cron", _EXPECTED, short_repr(self.expression))
        try:
            CronSim(self.expression, datetime(2024, 1, 1))
        except (CronSimError, ValueError, AssertionError) as wrong:
            raise SpecError("cron", _EXPECTED, f"{short_repr(self.expression)} ({wrong or 'unknown words'})") from wrong
        if next(self._local_times(datetime(2024, 1, 1)), None) is None:
            raise SpecError("cron", "an expression that comes true", f"{short_repr(self.expression)}, which never does")

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Every date later than ``moment``, in order, without end (or until cron gives up after fifty years)."""
        last = moment
        for found in self._moments(moment):
            if found > last:
                last = found
                yield found

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The dates later than ``after`` and not later than ``until``."""
        for found in self.after(after):
            if found > until:
                return
            yield found

    def upcoming(self, moment: datetime, count: int) -> list[datetime]:
        """The next ``count`` dates."""
        return list(islice(self.after(moment), count))

    def to_local(self, moment: datetime) -> datetime:
        """``moment`` as the clocks of the zone show it."""
        return moment.astimezone(self._zone)

    def to_utc(self, local: datetime) -> datetime:
        """A time without a zone, read in this one, by the rules above for named hours."""
        return self._first_moment(local)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return zone_of(self.zone)

    @property
    def _is_real_time(self) -> bool:
        return self.expression.split()[1].startswith("*")

    def _local_times(self, start: datetime) -> Iterator[datetime]:
        try:
            yield from CronSim(self.expression, start)
        except OverflowError:  # the year 9999
            return

    def _moments(self, after: datetime) -> Iterator[datetime]:
        """Ascending; it may begin earlier than ``after``, and say a moment twice."""
        again: list[datetime] = []  # second passes of local times, ascending
        start = after.astimezone(self._zone).replace(tzinfo=None, microsecond=0, fold=0) - _MAX_CLOCK_CHANGE
        for local in self._local_times(start):
            if self._is_real_time and not self._exists(local):
                continue
            first = self._first_moment(local)
            while again and again[0] <= first:
                yield again.pop(0)
            yield first
            second = local.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
            if self._is_real_time and second > first:
                again.append(second)
        yield from again

    def _exists(self, local: datetime) -> bool:
        there = local.replace(tzinfo=self._zone, fold=0).astimezone(UTC).astimezone(self._zone)
        return there.replace(tzinfo=None, fold=0) == local

    def _first_moment(self, local: datetime) -> datetime:
        """The first moment of ``local``, or the first one after the gap that it lies in."""
        if not self._exists(local):
            local = local.replace(second=0, microsecond=0)
            while not self._exists(local):
                local += _MINUTE
        return local.replace(tzinfo=self._zone, fold=0).astimezone(UTC)


def zone_of(name: str) -> ZoneInfo:
    """The IANA time zone ``name``. Raises ``SpecError``."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as unknown:  # a folder of zones ("Europe") is an OSError
        hint = "the list: https://en.wikipedia.org/wiki/List_of_tz_database_time_zones"
        raise SpecError("timezone", "a time zone such as UTC or Europe/Berlin", short_repr(name), hint) from unknown


def check_moment(moment: datetime, field: str) -> datetime:
    """``moment``, with or without a zone, if every zone can tell it. Raises ``SpecError`` naming ``field``."""
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise SpecError(field, f"a year from {_FIRST_YEAR} to {_LAST_YEAR}", short_repr(moment.isoformat()))
    return moment


def date_key(moment: datetime) -> str:
    """A moment as a segment of a key: ``20260301T033000Z``; keys sort as moments do."""
    return moment.astimezone(UTC).strftime(_KEY_FORMAT)


def parse_date_key(key: str) -> datetime:
    """The moment of ``key_of``. Raises ``SpecError``."""
    try:
        return datetime.strptime(key, _KEY_FORMAT).replace(tzinfo=UTC)
    except ValueError as wrong:
        raise SpecError("date", "a moment such as 20260301T033000Z", short_repr(key)) from wrong
