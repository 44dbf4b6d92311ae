"""Cron dates over a year with clock changes: none is missing or doubled, wherever the iteration starts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.errors import SpecError
from workers.schedules.cron import Cron, date_key, parse_date_key
from workers.schedules.due_dates import newest_dates

START, END = datetime(2025, 12, 31, 12, tzinfo=UTC), datetime(2027, 1, 1, 12, tzinfo=UTC)
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
)  # the last one changes by half an hour, in the southern hemisphere
EXPRESSIONS = (
    "30 2 * * *",
    "15 1,2 * * *",
    "*/30 * * * *",
    "*/20 2 * * *",
    "0 */2 * * *",
    "45 1 L * *",
    "0 3 * * MON#2",
)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("time", [(1, 30), (2, 0), (2, 15), (2, 30), (3, 0)])
def test_a_named_time_comes_once_on_every_day_of_a_year(zone: str, time: tuple[int, int]) -> None:
    cron = Cron(f"{time[1]} {time[0]} * * *", zone)
    local = [cron.to_local(date) for date in cron.between(START, END)]
    days = [moment.date() for moment in local if moment.year == 2026]
    assert len(days) == len(set(days)) == 365
    shifted = [moment for moment in local if (moment.hour, moment.minute) != time]
    assert len(shifted) <= 1  # the day on which clocks go forward over it
    assert all(timedelta() < moment.replace(tzinfo=None) - moment.replace(tzinfo=None, hour=time[0], minute=time[1])
               <= timedelta(hours=1) for moment in shifted)  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
def test_with_a_star_for_the_hour_real_time_goes_on(zone: str) -> None:
    cron = Cron("*/30 * * * *", zone)
    for first, last in ((datetime(2026, 3, 1), datetime(2026, 4, 10)), (datetime(2026, 9, 25), datetime(2026, 11, 5))):
        dates = list(cron.between(first.replace(tzinfo=UTC), last.replace(tzinfo=UTC)))
        assert len({cron.to_local(date).utcoffset() for date in dates}) == 2
        assert {later - date for date, later in pairwise(dates)} == {timedelta(minutes=30)}


@pytest.mark.parametrize(
    ("zone", "expression", "day", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-03-29", ["03:00+0200"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25", ["02:30+0200"]),
        ("Europe/Berlin", "*/30 2 * * *", "2026-03-29", ["03:00+0200"]),
        ("Europe/Berlin", "30 1-3 * * *", "2026-03-29", ["01:30+0100", "03:00+0200", "03:30+0200"]),
        ("America/New_York", "30 1 * * *", "2026-11-01", ["01:30-0400"]),
        ("America/New_York", "30 0-2 * * *", "2026-11-01", ["00:30-0400", "01:30-0400", "02:30-0500"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-04", ["02:30+1100"]),
        ("Africa/Cairo", "0 0 * * *", "2026-04-24", ["01:00+0300"]),
    ],
)
def test_days_on_which_clocks_change(zone: str, expression: str, day: str, expected: list[str]) -> None:
    cron = Cron(expression, zone)
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=1)
    local = [cron.to_local(date) for date in cron.between(start, start + timedelta(days=3))]
    assert [f"{moment:%H:%M%z}" for moment in local if f"{moment:%Y-%m-%d}" == day] == expected


@settings(max_examples=60)
@given(st.sampled_from(ZONES), st.sampled_from(EXPRESSIONS), st.integers(0, 366 * 24 * 60), st.integers(1, 6000))
def test_any_beginning_gives_the_same_dates(zone: str, expression: str, minute: int, length: int) -> None:
    cron, start = Cron(expression, zone), START + timedelta(minutes=minute)
    end = start + timedelta(minutes=length)
    dates = list(cron.between(start - timedelta(days=2), end))
    assert dates == sorted(set(dates))
    assert list(cron.between(start, end)) == [date for date in dates if date > start]
    assert all(date.tzinfo is UTC and parse_date_key(date_key(date)) == date for date in dates)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.sampled_from(EXPRESSIONS), st.integers(0, 300 * 24), st.integers(1, 30))
def test_the_newest_dates_are_the_last_ones(expression: str, hours: int, count: int) -> None:
    cron, after = Cron(expression, "Europe/Berlin"), END - timedelta(hours=hours)
    found, whole = newest_dates(cron, after, END, count)
    dates = list(cron.between(after, END))
    assert found == dates[len(dates) - len(found) :]
    assert whole == (found == dates) or len(found) == len(dates)
    assert len(found) >= min(count, len(dates))


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "@daily", "61 * * * *", "0 24 * * *", "0 0 30 2 *", "0 0 31 4,6 *", "*/0 * * * *", "a b c d e",
     "0 0 * * 8", "0 0 * * MON#6", "5-1 * * * *", "0 0 0 * * *"],
)  # fmt: skip
def test_an_expression_that_never_comes_true_is_refused(expression: str) -> None:
    with pytest.raises(SpecError, match="cron: expected"):
        Cron(expression)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Europe", "../etc/passwd", "/etc/passwd", "Europe/Berlin\0"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(SpecError, match="timezone: expected a time zone"):
        Cron("* * * * *", zone)
