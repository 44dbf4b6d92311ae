"""The dates of a schedule: cron expressions in a time zone, with defined behaviour when its clocks change.

An expression has the five fields of cron: minute, hour, day of the month, month, day of the week; ``L``, ``LW``,
``MON#2`` and ``FRIL`` are known too. cronsim finds the local times. This file converts them to UTC, because the
dates of one expression must be the same to the second, wherever the iteration starts:

- A local time that does not exist (clocks go forward over it) is due at the first moment after the gap.
- A local time that exists twice (clocks go back) is due once, the first time.
- With ``*`` in the hour field (``*/15 * * * *``) elapsed time counts: a local time that does not exist is left out, and
  one that exists twice is due twice, so the interval between two dates stays constant.
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

_EXPECTED = "five fields: minute hour day-of-month month day-of-week (30 3 * * * is every night at 03:30)"
_MAX_CLOCK_CHANGE = timedelta(hours=3)  # no time zone sets its clocks back by more
_MINUTE = timedelta(minutes=1)
_KEY_FORMAT = "%Y%m%dT%H%M%SZ"
_FIRST_YEAR, _LAST_YEAR = 1970, 9998


@dataclass(frozen=True)
class Cron:
    """A valid cron expression in a time zone. Datetimes are passed and returned in UTC."""

    expression: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        """Raises ``SpecError`` for an invalid expression, one that never matches, or an unknown zone."""
        _ = self._zone
        if len(self.expression.split()) != 5:
            raise SpecError("cron", _EXPECTED, short_repr(self.expression))
        try:
            CronSim(self.expression, datetime(2024, 1, 1))
        except (CronSimError, ValueError, AssertionError) as error:
            raise SpecError("cron", _EXPECTED, f"{short_repr(self.expression)} ({error or 'unknown words'})") from error
        if next(self._local_times(datetime(2024, 1, 1)), None) is None:
            raise SpecError(
                "cron", "an expression that matches some date", f"{short_repr(self.expression)}, which never matches"
            )

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Every date later than ``moment``, ascending, without end (or until cronsim gives up after fifty years)."""
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
        """``moment`` in local time of the zone."""
        return moment.astimezone(self._zone)

    def to_utc(self, local: datetime) -> datetime:
        """A local time without an offset, in UTC, by the rules above for an hour field without ``*``."""
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
        """UTC times, ascending. May start earlier than ``after`` and contain duplicates."""
        repeated: list[datetime] = []  # second occurrences of local times, ascending
        start = after.astimezone(self._zone).replace(tzinfo=None, microsecond=0, fold=0) - _MAX_CLOCK_CHANGE
        for local in self._local_times(start):
            if self._is_real_time and not self._exists(local):
                continue
            first = self._first_moment(local)
            while repeated and repeated[0] <= first:
                yield repeated.pop(0)
            yield first
            second = local.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
            if self._is_real_time and second > first:
                repeated.append(second)
        yield from repeated

    def _exists(self, local: datetime) -> bool:
        round_trip = local.replace(tzinfo=self._zone, fold=0).astimezone(UTC).astimezone(self._zone)
        return round_trip.replace(tzinfo=None, fold=0) == local

    def _first_moment(self, local: datetime) -> datetime:
        """The first occurrence of ``local`` in UTC; for a time inside a gap, the first moment after the gap."""
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
    """``moment`` (with or without an offset), if its year is supported. Raises ``SpecError`` naming ``field``."""
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise SpecError(field, f"a year from {_FIRST_YEAR} to {_LAST_YEAR}", short_repr(moment.isoformat()))
    return moment


def date_key(moment: datetime) -> str:
    """A moment as part of a store key: ``20260301T033000Z``. Keys sort in time order."""
    return moment.astimezone(UTC).strftime(_KEY_FORMAT)


def parse_date_key(key: str) -> datetime:
    """The inverse of ``date_key``. Raises ``SpecError``."""
    try:
        return datetime.strptime(key, _KEY_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise SpecError("date", "a moment such as 20260301T033000Z", short_repr(key)) from error
