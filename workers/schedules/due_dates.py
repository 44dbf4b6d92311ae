"""Decides which dates are due, and whether each is run or skipped (with a reason). Pure functions.

A date is on time while it is no older than the grace period; an older one was missed, because no ticker ran or the
store was unavailable. ``catch_up`` decides about missed dates, ``overlap`` about those on time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from workers.schedules.cron import Cron
from workers.schedules.runs import SkipReason
from workers.schedules.schedule import Schedule
from workers.schedules.store import StoredSchedule

MAX_WAITING_RUNS = 100  # waiting runs of one schedule; further dates are skipped
MAX_SINGLE_SKIPS = 50  # skipped dates with an object each; more of them share one object

_SECOND = timedelta(seconds=1)
_FIRST_SPAN = timedelta(hours=1)


@dataclass(frozen=True)
class Decision:
    """Run or skip ``date``. A skip may cover every date up to ``until``."""

    date: datetime
    on_time: bool = False
    why: SkipReason = ""
    reason: str = ""
    until: datetime | None = None

    @property
    def should_run(self) -> bool:
        return not self.why


def decide_dates(
    stored: StoredSchedule, through: datetime | None, now: datetime, active: Collection[datetime], grace: timedelta
) -> tuple[list[Decision], datetime | None]:
    """The decisions that are due, ascending by date, and the last date that they cover.

    ``through``: the last date decided before. ``active``: dates whose runs have not ended.
    """
    schedule, after, until = stored.schedule, _window_start(stored, through), _window_end(stored.schedule, now)
    limit = schedule.catch_up_limit + MAX_SINGLE_SKIPS + int(grace / timedelta(minutes=1)) + 1
    dates, complete = newest_dates(schedule.timetable, after, until, limit)
    if not dates:
        return [], None
    if stored.paused:
        return _skip_decisions(schedule, after, dates, complete, "paused", "the schedule was paused"), dates[-1]
    on_time = [date for date in dates if now - date <= grace]
    missed = dates[: len(dates) - len(on_time)]
    caught_up = _dates_to_catch_up(schedule, missed, bool(on_time))
    dropped = missed[: len(missed) - len(caught_up)]
    decisions = (
        _skip_decisions(schedule, after, dropped, complete, "missed", _missed_reason(schedule)) if dropped else []
    )
    decisions += [Decision(date) for date in caught_up]
    earlier_runs = len(active) + len(caught_up)
    for date in on_time:
        decisions.append(_decide_on_time(schedule, date, earlier_runs))
        earlier_runs += decisions[-1].should_run
    return decisions, dates[-1]


def newest_dates(times: Cron, after: datetime, until: datetime, count: int) -> tuple[list[datetime], bool]:
    """The newest dates later than ``after`` and up to ``until``, ascending, at least ``count`` if there are as many;
    and whether those are all. The cost depends on ``count``, not on how long ago ``after`` is."""
    span = _FIRST_SPAN
    while True:
        start = max(after, until - span)
        found = list(times.between(start, until))
        if start == after or len(found) >= count:
            return found, start == after
        span *= 4


def _window_start(stored: StoredSchedule, through: datetime | None) -> datetime:
    start = stored.schedule.start_utc
    first = stored.since if start is None else max(stored.since, start - _SECOND)
    return first if through is None else max(first, through)


def _window_end(schedule: Schedule, now: datetime) -> datetime:
    return now if schedule.end_utc is None else min(now, schedule.end_utc)


def _dates_to_catch_up(schedule: Schedule, missed: list[datetime], later: bool) -> list[datetime]:
    if schedule.catch_up == "none" or (schedule.catch_up == "latest" and later):
        return []
    return missed[-1:] if schedule.catch_up == "latest" else missed[-schedule.catch_up_limit :]


def _missed_reason(schedule: Schedule) -> str:
    policy = {"none": "none of them", "latest": "only the latest", "all": f"the last {schedule.catch_up_limit}"}
    return f"no scheduler was running in time, and catch_up: {schedule.catch_up} keeps {policy[schedule.catch_up]}"


def _skip_decisions(
    schedule: Schedule, after: datetime, dates: list[datetime], complete: bool, why: SkipReason, reason: str
) -> list[Decision]:
    if complete and len(dates) <= MAX_SINGLE_SKIPS:
        return [Decision(date, why=why, reason=reason) for date in dates]
    first = next(schedule.timetable.after(after))
    return [Decision(first, why=why, reason=reason, until=dates[-1])]


def _decide_on_time(schedule: Schedule, date: datetime, earlier_runs: int) -> Decision:
    if earlier_runs and schedule.overlap == "skip":
        return Decision(date, why="overlap", reason="an earlier run had not ended")
    if earlier_runs >= MAX_WAITING_RUNS and schedule.overlap == "queue":
        return Decision(date, why="overlap", reason=f"{earlier_runs} earlier runs were waiting")
    return Decision(date, on_time=True)
