"""The calendar of nights: what a day shows for every state, in the zone of the schedule, when its clocks change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from workers.schedules.cron import Cron
from workers.schedules.runs import Run
from workers.schedules.schedule import Schedule
from workers.schedules.store import StoredSchedule
from workers.server.pages.nights.calendar import MEANINGS, SIGNS, STATES, CalendarRuns, Day, Mark, make_months
from workers.server.pages.nights.times import LocalTimes, cron_words, days_of_month, first_of_month

JOB = {"bundle": "sha256:" + "5" * 64, "count": 3, "destination": "/tmp/out"}
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
SINCE = datetime(2026, 3, 5, tzinfo=UTC)


def stored_schedule(cron: str = "0 4 * * *", zone: str = "UTC", **fields: Any) -> StoredSchedule:
    schedule = Schedule(name="nightly", cron=cron, timezone=zone, job=JOB, **fields)
    return StoredSchedule(schedule=schedule, source="sha256:" + "6" * 64, since=SINCE, added=SINCE)


def run_at(moment: datetime, state: str, **fields: Any) -> Run:
    return Run(schedule="nightly", date=moment, state=state, created=moment, **fields)


def days(stored: StoredSchedule, runs: list[Run], first: date = date(2026, 3, 1), **found: Any) -> dict[date, Day]:
    """The days of a month, by date."""
    times = LocalTimes(stored.schedule.timezone)
    inside = CalendarRuns(**{"runs": runs, "unread": (), "before": None, "listed": frozenset(), "current": ""} | found)
    month = make_months(stored, times, [first], inside, NOW)[0]
    return {day.day: day for week in month.weeks for day in week if day is not None}


def only(day: Day) -> Mark:
    assert len(day.marks) == 1, day
    return day.marks[0]


@pytest.mark.parametrize(
    ("state", "why", "shown"),
    [
        *((state, "", state) for state in ("promoted", "kept", "refused", "failed", "cancelled", "replaced")),
        *((state, "", "running") for state in ("created", "submitted", "committed", "judged")),
        ("skipped", "missed", "missed"),
        ("skipped", "overlap", "skipped"),
        ("skipped", "paused", "paused"),
    ],
)
def test_a_day_shows_what_came_of_its_run(state: str, why: str, shown: str) -> None:
    run = run_at(datetime(2026, 3, 10, 4, tzinfo=UTC), state, why=why)
    mark = only(days(stored_schedule(), [run])[date(2026, 3, 10)])
    assert (mark.state, mark.count, mark.time) == (shown, 1, "04:00")
    assert mark.href == "?month=2026-03&until=20260310T040000Z#run-20260310T040000Z"


def test_every_state_has_a_sign_of_its_own_and_a_meaning() -> None:
    assert set(SIGNS) == set(MEANINGS) == set(STATES)
    assert len(set(SIGNS.values())) == len(STATES)


def test_days_without_a_run_are_due_without_one_or_upcoming_or_no_dates_at_all() -> None:
    found = days(stored_schedule(), [])
    assert found[date(2026, 3, 4)].marks == ()  # before the schedule was added
    assert only(found[date(2026, 3, 6)]).state == "none"
    assert only(found[date(2026, 3, 20)]).state == "none"
    assert only(found[date(2026, 3, 21)]).state == "upcoming"
    assert found[date(2026, 3, 20)].is_today
    paused = stored_schedule().model_copy(update={"held": True})
    assert only(days(paused, [])[date(2026, 3, 21)]).state == "paused"
    weekly = days(stored_schedule("0 4 * * MON"), [])
    assert [day for day, each in weekly.items() if each.marks] == [date(2026, 3, day) for day in (9, 16, 23, 30)]
    ending = days(stored_schedule(end="2026-03-22T05:00"), [])
    assert [day.day for day, each in ending.items() if each.marks and each.marks[0].state == "upcoming"] == [21, 22]


def test_one_skipped_run_stands_for_all_dates_up_to_its_end() -> None:
    begin, until = datetime(2026, 2, 20, 4, tzinfo=UTC), datetime(2026, 3, 8, 4, tzinfo=UTC)
    span = run_at(begin, "skipped", why="missed", until=until)
    found = days(stored_schedule(), [], before=span)
    assert [only(found[date(2026, 3, day)]).state for day in (1, 7, 8, 9)] == ["missed", "missed", "missed", "none"]
    assert only(found[date(2026, 3, 7)]).href.endswith("#run-20260220T040000Z")


def test_a_day_with_several_runs_counts_them_by_state_and_leads_to_the_newest() -> None:
    moments = [datetime(2026, 3, 10, hour, tzinfo=UTC) for hour in (0, 6, 12, 18)]
    runs = [run_at(m, s) for m, s in zip(moments, ("promoted", "refused", "promoted", "promoted"), strict=True)]
    marks = days(stored_schedule("0 */6 * * *"), runs, listed={"20260310T180000Z"})[date(2026, 3, 10)].marks
    assert [(mark.state, mark.count, mark.words) for mark in marks] == [
        ("promoted", 3, "3 promoted"),
        ("refused", 1, "refused"),
    ]
    assert marks[0].href == "#run-20260310T180000Z"
    assert marks[1].href.endswith("until=20260310T060000Z#run-20260310T060000Z")
    upcoming = only(days(stored_schedule("0 */6 * * *"), [])[date(2026, 3, 25)])
    assert upcoming.words == "several upcoming"


def test_a_date_without_a_run_is_shown_beside_the_runs_of_its_day() -> None:
    runs = [run_at(datetime(2026, 3, 10, hour, tzinfo=UTC), "promoted") for hour in (0, 12)]
    marks = days(stored_schedule("0 */6 * * *"), runs)[date(2026, 3, 10)].marks
    assert [(mark.state, mark.count) for mark in marks] == [("promoted", 2), ("none", 2)]
    before = days(stored_schedule("0 */6 * * *"), [run_at(SINCE - timedelta(hours=6), "promoted")])
    assert [mark.state for mark in before[date(2026, 3, 4)].marks] == ["promoted"]
    today = days(stored_schedule("0 */6 * * *"), [run_at(NOW, "promoted")])[date(2026, 3, 20)].marks
    assert [(mark.state, mark.count) for mark in today] == [("promoted", 1), ("none", 2), ("upcoming", 1)]


def test_runs_that_were_not_read_are_counted_and_lead_to_the_newest() -> None:
    unread = [datetime(2026, 3, 10, hour, tzinfo=UTC) for hour in range(5)]
    mark = only(days(stored_schedule("0 * * * *"), [], unread=unread)[date(2026, 3, 10)])
    assert (mark.state, mark.count) == ("runs", 5)
    assert mark.href.endswith("#run-20260310T040000Z")


def test_days_are_those_of_the_zone_of_the_schedule() -> None:
    late = run_at(datetime(2026, 3, 10, 23, 30, tzinfo=UTC), "promoted")  # the next day in Berlin
    found = days(stored_schedule("30 0 * * *", "Europe/Berlin"), [late])
    assert only(found[date(2026, 3, 11)]).time == "00:30"
    assert only(found[date(2026, 3, 10)]).state == "none"


def test_days_on_which_clocks_change_have_their_dates() -> None:
    berlin = stored_schedule("30 2 * * *", "Europe/Berlin")  # 02:30 does not exist on March 29
    assert only(days(berlin, [])[date(2026, 3, 29)]).time == "03:00"
    assert LocalTimes("Europe/Berlin").begin_of(date(2026, 3, 30)) == datetime(2026, 3, 29, 22, tzinfo=UTC)


def test_the_build_that_readers_get_is_marked() -> None:
    run = run_at(datetime(2026, 3, 10, 4, tzinfo=UTC), "promoted")
    assert only(days(stored_schedule(), [run], current="20260310T040000Z")[date(2026, 3, 10)]).current
    assert not only(days(stored_schedule(), [run])[date(2026, 3, 10)]).current


def test_months_have_whole_weeks_from_monday_on() -> None:
    months = make_months(
        stored_schedule(),
        LocalTimes("UTC"),
        [date(2026, 2, 1), date(2024, 2, 1)],
        CalendarRuns([], [], None, frozenset()),
        NOW,
    )
    for month in months:
        assert all(len(week) == 7 for week in month.weeks)
        found = [day.day for week in month.weeks for day in week if day]
        assert found == days_of_month(month.first)
        assert all(day.day.weekday() == place for week in month.weeks for place, day in enumerate(week) if day)
    assert months[1].title == "February 2024"
    assert len(days_of_month(date(2024, 2, 1))) == 29


@pytest.mark.parametrize(
    ("day", "months", "first"), [("2026-01-31", -1, "2025-12-01"), ("2026-12-05", 1, "2027-01-01")]
)
def test_months_follow_one_another(day: str, months: int, first: str) -> None:
    assert first_of_month(date.fromisoformat(day), months) == date.fromisoformat(first)


@pytest.mark.parametrize(
    ("zone", "moment", "text"),
    [
        ("Europe/Berlin", "2026-03-01T02:30+00:00", "2026-03-01 03:30"),
        ("Europe/Berlin", "2026-10-25T00:30+00:00", "2026-10-25 02:30 (UTC+0200)"),
        ("Europe/Berlin", "2026-10-25T01:30+00:00", "2026-10-25 02:30 (UTC+0100)"),
        ("Europe/Berlin", "2026-03-29T01:00+00:00", "2026-03-29 03:00"),
        ("Asia/Kolkata", "2026-03-01T00:00+00:00", "2026-03-01 05:30"),
        ("America/St_Johns", "2026-03-01T00:00+00:00", "2026-02-28 20:30"),
    ],
)
def test_moments_are_written_in_local_time_with_the_offset_where_a_time_exists_twice(
    zone: str, moment: str, text: str
) -> None:
    assert LocalTimes(zone).text(datetime.fromisoformat(moment)) == text


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("30 3 * * *", "At 03:30 every day"),
        ("0 4 * * MON-FRI", "At 04:00 on Monday through Friday"),
        ("0 6 LW * *", "At 06:00 on the last weekday of every month"),
        ("nonsense", "nonsense"),
    ],
)
def test_cron_expressions_are_said_in_words(cron: str, words: str) -> None:
    assert cron_words(cron) == words


def test_a_calendar_of_a_schedule_of_every_minute_is_made_without_all_its_dates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, original = list[datetime](), Cron.after

    def after(self: Cron, moment: datetime) -> Iterator[datetime]:
        for found in original(self, moment):
            asked.append(found)
            yield found

    monkeypatch.setattr(Cron, "after", after)
    assert only(days(stored_schedule("* * * * *"), [])[date(2026, 3, 25)]).words == "several upcoming"
    assert len(asked) < 31 * 10
