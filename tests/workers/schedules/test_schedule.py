"""Schedule files: errors are found before anything is stored."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from generator.errors import BundleMissing, InputError, LatentmillError, SettingsError, SpecError
from generator.models.bundle import push
from generator.models.bundle.channels import move_channel
from generator.store import Store, open_store
from tests.support.bundles import tiny_bundle
from workers.schedules.declare import check_schedule, declare
from workers.schedules.folder import ScheduleFolder, read_schedules
from workers.schedules.schedule import Schedule, parse_schedule, read_schedule, seed_of
from workers.schedules.store import read_stored, remove_schedule
from workers.schedules.templates import fill_templates
from workers.settings import Settings

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
JOB = {"bundle": "tiny.bundle", "count": 30, "destination": "out"}


def text(**fields: Any) -> bytes:
    return yaml.safe_dump({"name": "nightly", "cron": "30 3 * * *", "job": JOB} | fields).encode()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "tiny.bundle")
    return open_store(str(tmp_path / "root"))


@pytest.fixture
def settings(root: Store) -> Settings:
    return Settings(root=root.url)


def test_fields_of_the_date() -> None:
    date = datetime(2026, 3, 1, 4, 30, tzinfo=UTC)
    job = {"name": "{schedule}-{date:%Y%m%d}", "count": "{date:%d}00", "counts": {"cat": "1{date:%H}"},
           "draw": {"code": ["{date:%m}", 2]}, "destination": "out/{date}/{{x}}", "dtype": "{date:%d}", "seed": 5,
           }  # fmt: skip
    assert fill_templates(job, schedule="cats", date=date) == {
        "name": "cats-20260301", "count": 100, "counts": {"cat": 104}, "draw": {"code": [3, 2]},
        "destination": "out/2026-03-01/{x}", "seed": 5, "dtype": "01",
    }  # fmt: skip


@pytest.mark.parametrize(
    "template",
    ["{day}", "{date.year}", "{date[0]}", "{date!r}", "{}", "{0}", "{date", "date}", "{date:%B}", "{date:%}",
     "{schedule:>9}", "{date:{schedule}}"],
)  # fmt: skip
def test_unknown_fields_are_named(template: str) -> None:
    with pytest.raises(SpecError, match=r"job\.name: expected"):
        parse_schedule(text(job=JOB | {"name": template}), "a file")


def test_every_format_that_the_page_names_is_known() -> None:
    page = (Path(__file__).parents[3] / "docs/nightly.md").read_text()
    (named,) = re.findall(r"`(%Y %y [^`]*)`", page)
    for form in named.split():
        filled = fill_templates(
            {"count": f"{{date:{form}}}"}, schedule="cats", date=datetime(2026, 3, 1, 4, 30, tzinfo=UTC)
        )
        assert str(filled["count"])


def test_each_date_has_a_seed_of_its_own_and_keeps_it() -> None:
    schedule = parse_schedule(text(), "a file")
    dates = schedule.timetable.upcoming(NOW, 400)
    seeds = [schedule.job_draft(date).seed for date in dates]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [seed_of("nightly", date) for date in dates]
    assert seed_of("nightly", dates[0]) != seed_of("weekly", dates[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cron": "0 0 31 2 *"}, "cron: expected five fields"),
        ({"timezone": "Berlin"}, "timezone: expected a time zone"),
        ({"name": "Not a name"}, "name: expected"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"job": JOB | {"colour": "red"}}, r"job\.colour: expected one of the fields of a job"),
        ({"job": JOB | {"tenant": "x"}}, "tenant is a field of the schedule, not of job"),
        ({"job": JOB | {"channel": "cats"}}, "either bundle .* or channel .*, got both"),
        ({"job": {"count": 3, "destination": "out"}}, "got neither"),
        ({"job": JOB | {"count": "{date:%d}x"}}, r"job\.count: expected"),
        ({"job": JOB | {"count": 0}}, r"job\.count: expected"),
        ({"job": {"channel": "Cats!", "count": 3, "destination": "out"}}, r"job\.channel: expected"),
        ({"job": JOB | {"seed": datetime(2026, 1, 1).date()}}, "put dates in quotes"),
        ({"deadline": "soon"}, "deadline: expected a span"),
        ({"deadline": "0h"}, "deadline: expected a span"),
        ({"deadline": 1050}, "deadline: expected a span .* in quotes"),
        ({"start": "0001-01-01"}, "start: expected a year from 1970 to 9998"),
        ({"end": "9999-12-31"}, "end: expected a year from 1970 to 9998"),
        ({"start": "2026-03-02", "end": "2026-03-01"}, "end: expected a moment after start"),
        ({"catch_up": "some"}, "catch_up: expected"),
        ({"overlap": "fight"}, "overlap: expected"),
        ({"catch_up_limit": 0}, "catch_up_limit: expected"),
        ({"retention": {"last": 0}}, r"retention\.last: expected"),
        ({"gates": {"balance": 7}}, r"gates\.balance"),
        ({"job": "many"}, "job: expected a mapping"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_schedule(text(**fields), "a file")


@pytest.mark.parametrize(
    ("deadline", "date", "due"),
    [
        ("2h30m", "2026-03-01T03:30+00:00", "2026-03-01T06:00+00:00"),
        ("07:00", "2026-03-01T02:30+00:00", "2026-03-01T06:00+00:00"),
        ("07:00", "2026-03-29T00:30+00:00", "2026-03-29T05:00+00:00"),  # clocks went forward meanwhile
        ("01:00", "2026-03-01T02:30+00:00", "2026-03-02T00:00+00:00"),
    ],
)
def test_deadlines_are_spans_or_times_of_the_zone(deadline: str, date: str, due: str) -> None:
    schedule = parse_schedule(text(timezone="Europe/Berlin", deadline=deadline), "a file")
    assert schedule.deadline_of(datetime.fromisoformat(date)) == datetime.fromisoformat(due)


def test_declaring_makes_it_self_contained_and_twice_is_once(root: Store, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "nightly.yaml").write_bytes(text())
    schedule, digest = read_schedule("nightly.yaml")
    stored = declare(schedule, digest, root, settings, NOW)
    assert stored.schedule.job["bundle"].startswith("sha256:")
    assert stored.schedule.job["destination"] == str(tmp_path / "out")
    assert read_stored(root, "nightly") == stored
    assert declare(schedule, digest, root, settings, NOW + timedelta(days=3)) == stored
    assert [job.spec.recipe.total for job in check_schedule(stored.schedule, root, settings, NOW)] == [30, 30, 30]


def test_the_images_that_gates_compare_with_are_found_from_everywhere(
    root: Store, settings: Settings, tmp_path: Path
) -> None:
    for source, test in (("photos", None), ("digits", "test"), ("/data/a.npz", "b.npz")):
        schedule = parse_schedule(text(gates={"reference": {"source": source, "test": test}}), "a file")
        gates = declare(schedule, "sha256:" + "1" * 64, root, settings, NOW, replace=True).schedule.gates
        assert gates is not None
        assert gates.reference is not None
        remove_schedule(root, "nightly")
        found = [gates.reference.source, gates.reference.test]
        assert found == [str(tmp_path / each) if each in ("photos", "b.npz") else each for each in (source, test)]


def test_a_second_schedule_of_one_name_is_refused(root: Store, settings: Settings) -> None:
    first = declare(parse_schedule(text(), "a"), "sha256:" + "1" * 64, root, settings, NOW)
    other = parse_schedule(text(job=JOB | {"count": 31}), "b")
    with pytest.raises(SpecError, match=r"name: expected a name that no other .* --replace"):
        declare(other, "sha256:" + "2" * 64, root, settings, NOW)
    assert read_stored(root, "nightly") == first
    later = NOW + timedelta(days=1)
    replaced = declare(other, "sha256:" + "2" * 64, root, settings, later, replace=True)
    assert (replaced.schedule.job["count"], replaced.since) == (31, first.since)  # its dates have not changed
    moved = declare(
        parse_schedule(text(cron="0 5 * * *"), "c"), "sha256:" + "3" * 64, root, settings, later, replace=True
    )
    assert moved.since == later


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"job": JOB | {"bundle": "nowhere.bundle"}}, BundleMissing),
        ({"job": JOB | {"bundle": "sha256:" + "0" * 64}}, BundleMissing),
        ({"job": {"channel": "cats", "count": 3, "destination": "out"}}, BundleMissing),
        ({"job": JOB | {"count": None, "counts": {"horse": 3}}}, SpecError),
        ({"end": "2026-05-01"}, SpecError),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    root: Store, settings: Settings, fields: dict[str, Any], error: type[InputError]
) -> None:
    with pytest.raises(error):
        declare(parse_schedule(text(**fields), "a"), "sha256:" + "1" * 64, root, settings, NOW)
    assert list(root.list()) == []


def test_a_place_that_is_not_allowed_is_refused(root: Store) -> None:
    settings = Settings(root=root.url, allowed_stores="s3://")
    with pytest.raises(SettingsError, match="destination"):
        declare(parse_schedule(text(), "a"), "sha256:" + "1" * 64, root, settings, NOW)


def test_a_channel_is_read_when_a_date_comes(root: Store, settings: Settings, tmp_path: Path) -> None:
    first = push(open_store("tiny.bundle"), root)
    move_channel(root, "cats", first, by="a test")
    schedule = parse_schedule(text(job={"channel": "cats", "count": 3, "destination": "out"}), "a")
    assert check_schedule(schedule, root, settings, NOW)[0].spec.recipe.bundle == first
    second = push(open_store(str(tiny_bundle(tmp_path / "other.bundle", seed=1))), root)
    move_channel(root, "cats", second, by="a test")
    assert check_schedule(schedule, root, settings, NOW)[0].spec.recipe.bundle == second != first


def test_a_folder_is_followed(
    root: Store, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder_path = tmp_path / "schedules"
    with pytest.raises(SettingsError, match="LATENTMILL_SCHEDULES_DIR"):
        ScheduleFolder(folder_path, settings)
    folder_path.mkdir()
    (folder_path / "good.yaml").write_bytes(text())
    (folder_path / "bad.yml").write_bytes(text(name="bad", cron="never"))
    (folder_path / "one.yaml").write_bytes(text(name="twin"))
    (folder_path / "two.yaml").write_bytes(text(name="twin", cron="0 0 * * *"))
    (folder_path / "notes.txt").write_text("no schedule")
    folder = ScheduleFolder(folder_path, settings)
    assert folder.sync(root, NOW) == ["nightly"]
    assert "bad.yml: not stored: cron: expected" in caplog.text
    assert "a different name for each schedule, got twin, as in " in caplog.text
    assert folder.sync(root, NOW) == []
    (folder_path / "good.yaml").write_bytes(text(job=JOB | {"count": 3}))
    (folder_path / "two.yaml").unlink()
    assert folder.sync(root, NOW) == ["nightly", "twin"]
    stored = read_stored(root, "nightly")
    assert stored is not None
    assert stored.schedule.job["count"] == 3
    (folder_path / "good.yaml").write_bytes(b"- not a mapping at all")
    assert folder.sync(root, NOW) == []
    assert read_stored(root, "nightly") == stored
    assert ScheduleFolder(folder_path, settings).sync(root, NOW) == ["twin"]  # idempotent


def test_files_are_judged_together(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        (tmp_path / name).write_bytes(text(name="one" if name == "c.yaml" else "two"))
    found = read_schedules([tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml", tmp_path / "d.yaml"])
    assert [isinstance(read, LatentmillError) for read in found.values()] == [True, True, False, True]


def test_start_and_end_are_both_among_the_next_dates() -> None:
    schedule = parse_schedule(text(cron=" 30  3 * *\n*", start="2026-06-01T03:30", end="2026-06-02T03:30"), "a file")
    assert schedule.cron == "30 3 * * *"
    assert [f"{date:%m-%d %H:%M}" for date in schedule.upcoming(NOW, 9)] == ["06-01 03:30", "06-02 03:30"]
    assert schedule.upcoming(datetime(2026, 6, 2, 3, 30, tzinfo=UTC), 9) == []


def test_every_field_survives_its_storage(root: Store, settings: Settings) -> None:
    fields = {"start": "2026-06-01", "end": datetime(2026, 7, 1, tzinfo=UTC), "deadline": "3h", "gates": None,
              "retention": {"last": 3}, "priority": 5, "catch_up": "all", "overlap": "replace"}  # fmt: skip
    stored = declare(parse_schedule(text(**fields), "a"), "sha256:" + "1" * 64, root, settings, NOW)
    assert read_stored(root, "nightly") == stored
    assert stored.since == datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC)
    assert Schedule.model_validate(stored.schedule.model_dump(mode="json")) == stored.schedule
