"""Which dates have come, and what becomes of each: to be run, or skipped with a reason. Pure functions.

A date is on time while it is no older than the grace that a ticker may take; an older one was missed: no ticker ran, or
the store was away. What was missed is caught up by the schedule's policy, what is on time meets its overlap policy.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from workers.schedules.dates import Cron
from workers.schedules.runs import SkipReason
from workers.schedules.schedule import Schedule
from workers.schedules.store import StoredSchedule

MAX_WAITING_RUNS = 100  # runs of one schedule; more would never be caught up with
MAX_SINGLE_SKIPS = 50  # skipped dates that get an object each; more of them share one

_SECOND = timedelta(seconds=1)
_FIRST_SPAN = timedelta(hours=1)


@dataclass(frozen=True)
class Decision:
    """What becomes of ``date``. A skip may stand for every date up to ``until``."""

    date: datetime
    on_time: bool = False
    why: SkipReason = ""
    reason: str = ""
    until: datetime | None = None

    @property
    def should_run(self) -> bool:
        return not self.why


def decide_dates(
    kept: StoredSchedule, through: datetime | None, now: datetime, going: Collection[datetime], grace: timedelta
) -> tuple[list[Decision], datetime | None]:
    """The decisions that are due, ascending by date, and up to which date everything is decided then.

    ``through``: up to which date everything has been decided before. ``going``: dates whose runs are not over.
    """
    schedule, after, until = kept.schedule, _window_start(kept, through), _window_end(kept.schedule, now)
    most = schedule.catch_up_limit + MAX_SINGLE_SKIPS + int(grace / timedelta(minutes=1)) + 1
    dates, whole = newest_dates(schedule.timetable, after, until, most)
    if not dates:
        return [], None
    if kept.paused:
        return _skip_decisions(schedule, after, dates, whole, "paused", "the schedule was paused"), dates[-1]
    on_time = [date for date in dates if now - date <= grace]
    missed = dates[: len(dates) - len(on_time)]
    caught = _dates_to_catch_up(schedule, missed, bool(on_time))
    left = missed[: len(missed) - len(caught)]
    decisions = _skip_decisions(schedule, after, left, whole, "missed", _missed_reason(schedule)) if left else []
    decisions += [Decision(date) for date in caught]
    ahead = len(going) + len(caught)
    for date in on_time:
        decisions.append(_decide_on_time(schedule, date, ahead))
        ahead += decisions[-1].should_run
    return decisions, dates[-1]


def newest_dates(times: Cron, after: datetime, until: datetime, count: int) -> tuple[list[datetime], bool]:
    """The newest dates later than ``after`` and up to ``until``, at least ``count`` if there are so many, ascending;
    and whether those are all. Takes time by ``count``, not by how long ago ``after`` is."""
    span = _FIRST_SPAN
    while True:
        start = max(after, until - span)
        found = list(times.between(start, until))
        if start == after or len(found) >= count:
            return found, start == after
        span *= 4


def _window_start(kept: StoredSchedule, through: datetime | None) -> datetime:
    begins = kept.schedule.start_utc
    first = kept.since if begins is None else max(kept.since, begins - _SECOND)
    return first if through is None else max(first, through)


def _window_end(schedule: Schedule, now: datetime) -> datetime:
    return now if schedule.end_utc is None else min(now, schedule.end_utc)


def _dates_to_catch_up(schedule: Schedule, missed: list[datetime], later: bool) -> list[datetime]:
    if schedule.catch_up == "none" or (schedule.catch_up == "latest" and later):
        return []
    return missed[-1:] if schedule.catch_up == "latest" else missed[-schedule.catch_up_limit :]


def _missed_reason(schedule: Schedule) -> str:
    kept = {"none": "nothing", "latest": "the latest alone", "all": f"the last {schedule.catch_up_limit}"}
    return f"nobody was there to begin it in time, and the schedule catches up with {kept[schedule.catch_up]}"


def _skip_decisions(
    schedule: Schedule, after: datetime, dates: list[datetime], whole: bool, why: SkipReason, reason: str
) -> list[Decision]:
    if whole and len(dates) <= MAX_SINGLE_SKIPS:
        return [Decision(date, why=why, reason=reason) for date in dates]
    first = next(schedule.timetable.after(after))
    return [Decision(first, why=why, reason=reason, until=dates[-1])]


def _decide_on_time(schedule: Schedule, date: datetime, ahead: int) -> Decision:
    if ahead and schedule.overlap == "skip":
        return Decision(date, why="overlap", reason="an earlier run was still going on")
    if ahead >= MAX_WAITING_RUNS and schedule.overlap == "queue":
        return Decision(date, why="overlap", reason=f"{ahead} earlier runs were waiting")
    return Decision(date, on_time=True)
