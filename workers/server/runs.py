"""The runs of schedules as pages look at them: found by month, and read again only where they have changed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import final

from generator.store.base import Store
from workers.schedules.cron import parse_date_key
from workers.schedules.runs import RUNS, Run, read_run

_HELD = 2000  # runs; some 10 KB each
_READERS = 16
_EMPTY_MONTHS = 3  # in a row, before all runs of a schedule are listed
_DAY = timedelta(days=1)


@final
class RunListing:
    """Which runs a schedule has, listed month by month as they are asked for, each month once."""

    def __init__(self, root: Store, name: str) -> None:
        self.root, self.name = root, name
        self._months: dict[str, list[tuple[datetime, str]]] = {}

    def versions(self, month: str) -> list[tuple[datetime, str]]:
        """Date and etag of the runs of a month (``202603``, in UTC), or of all (empty). Raises ``StoreError``."""
        if month not in self._months:
            prefix = f"{RUNS}{self.name}/"
            self._months[month] = [
                (parse_date_key(info.key.removeprefix(prefix).removesuffix(".json")), info.etag)
                for info in self.root.list(prefix + month)
            ]
        return self._months[month]


@final
class RunShelf:
    """The runs that were asked for lately, by schedule, date and version. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, datetime, str], Run] = OrderedDict()

    def newest(self, listing: RunListing, until: datetime, limit: int) -> tuple[list[Run], datetime | None]:
        """The last ``limit`` runs with dates up to ``until``, the newest first; and the date of the next older one.

        Raises ``StoreError``, ``SpecError`` for a damaged run.
        """
        found = _newest_versions(listing, until, limit + 1)
        following = found[limit][0] if len(found) > limit else None
        return self._read(listing, found[:limit]), following

    def between(
        self, listing: RunListing, start: datetime, end: datetime, most: int
    ) -> tuple[list[Run], list[datetime]]:
        """The runs with dates from ``start`` to before ``end``, the newest first; and the dates of those that were not
        read, as at most ``most`` are read that are not held. Raises as ``newest`` does."""
        versions = [
            (date, etag)
            for month in _months(start, end)
            for date, etag in listing.versions(month)
            if start <= date < end
        ]
        wanted, unread, reads = list[tuple[datetime, str]](), list[datetime](), 0
        for date, etag in sorted(versions, reverse=True):
            if self._find(listing.name, date, etag) is None:
                reads += 1
                if reads > most:
                    unread.append(date)
                    continue
            wanted.append((date, etag))
        return self._read(listing, wanted), unread

    def _read(self, listing: RunListing, versions: list[tuple[datetime, str]]) -> list[Run]:
        root, name = listing.root, listing.name
        held = {version: self._find(name, *version) for version in versions}
        missing = [version for version, run in held.items() if run is None]
        if missing:
            with ThreadPoolExecutor(min(_READERS, len(missing))) as pool:
                read = pool.map(lambda version: read_run(root, name, version[0]), missing)
                for version, run in zip(missing, read, strict=True):
                    if run is not None:  # it may be newer than its version: the next listing tells
                        held[version] = run
                        self._hold(name, version, run)
        return [run for run in held.values() if run is not None]

    def _find(self, name: str, date: datetime, etag: str) -> Run | None:
        with self._lock:
            return self._held.get((name, date, etag))

    def _hold(self, name: str, version: tuple[datetime, str], run: Run) -> None:
        with self._lock:
            self._held[(name, *version)] = run
            self._held.move_to_end((name, *version))
            while len(self._held) > _HELD:
                self._held.popitem(last=False)


def _newest_versions(listing: RunListing, until: datetime, count: int) -> list[tuple[datetime, str]]:
    """Date and etag of the last ``count`` runs up to ``until``, the newest first. Lists month by month, so that the
    cost does not grow with the history."""
    found, month, empty = list[tuple[datetime, str]](), _first_of_month(until), 0
    while len(found) < count:
        if empty == _EMPTY_MONTHS:
            return sorted((each for each in listing.versions("") if each[0] <= until), reverse=True)[:count]
        own = [each for each in listing.versions(f"{month:%Y%m}") if each[0] <= until]
        found += sorted(own, reverse=True)
        empty = 0 if own else empty + 1
        month = _first_of_month(month - _DAY)
    return found[:count]


def _months(start: datetime, end: datetime) -> list[str]:
    found, month = list[str](), _first_of_month(start)
    while month < end:
        found.append(f"{month:%Y%m}")
        month = _first_of_month(month + 32 * _DAY)
    return found


def _first_of_month(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
