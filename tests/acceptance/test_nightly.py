"""Schedules with real processes: Redis, a worker, killed schedulers, and a training script that reads the result."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from generator import open_dataset
from generator.datasets.promotion import read_latest
from generator.errors import LatentmillError
from generator.models.bundle import push
from generator.models.bundle.channels import move_channel
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.cli_sandbox import LENIENT_GATES, cli_sandbox, minutes_ago, write_schedule
from workers.cli.main import root as command_line
from workers.schedules.history import newest_runs
from workers.schedules.runs import Run, live_markers
from workers.schedules.store import update_stored


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "tiny.bundle")
    return tmp_path


def runs(home: Path, name: str) -> list[Run]:
    return newest_runs(open_store(str(home / "root")), name, 100)[::-1]


def states(home: Path, name: str) -> list[str]:
    return [run.state for run in runs(home, name)]


@pytest.mark.timeout(600)
def test_three_dates_two_schedulers_one_of_them_killed(home: Path) -> None:
    """Three missed dates are caught up by two schedulers, one of which is killed meanwhile."""
    with cli_sandbox(home) as mill:
        root, now = open_store(str(home / "root")), datetime.now(UTC)
        move_channel(root, "cats", push(open_store(str(home / "tiny.bundle")), root), by="a test")
        job = {"channel": "cats", "count": 60, "shard_size": 30, "batch": 16, "destination": "out"}
        good = {"name": "good", "start": minutes_ago(now, 3), "catch_up": "all", "retention": {"last": 2}, "job": job}
        refused = {"name": "refused", "start": minutes_ago(now, 3), "gates": LENIENT_GATES | {"images": 1_000_000}}
        folder = mill.schedule_folder(good, refused)
        mill.start("up", LATENTMILL_SCHEDULES_DIR=str(folder))
        state = home / "state" / "redis.json"
        mill.wait_until(state.exists)
        second = mill.start("scheduler")
        mill.wait_until(lambda: states(home, "good").count("promoted") >= 1)
        os.kill(second.pid, signal.SIGKILL)
        mill.wait_until(lambda: states(home, "good").count("promoted") >= 3 and "refused" in states(home, "refused"))
        for name in ("good", "refused"):
            update_stored(root, name, lambda stored: stored and stored.model_copy(update={"held": True}))
        mill.wait_until(lambda: not list(live_markers(root)))

        made = [run for run in runs(home, "good") if run.state != "skipped"]
        assert len(made) >= 3
        assert {run.state for run in made} == {"promoted"}
        assert {later.date - run.date for run, later in pairwise(made)} == {timedelta(minutes=1)}
        dataset = open_store(made[-1].dataset)
        latest = read_latest(dataset)
        assert latest is not None
        assert (latest.build, latest.logical_date) == (made[-1].spec.build_id, made[-1].date)  # type: ignore[union-attr]
        assert len(list(dataset.children("builds/"))) == 2  # retention
        assert len(list(open_dataset(str(home / "out" / "good")))) == 60
        (kept_back,) = [run for run in runs(home, "refused") if run.state != "skipped"][-1:]
        assert kept_back.state == "refused"
        assert "images" in kept_back.reason
        assert read_latest(open_store(kept_back.dataset)) is None

        log = home / "up-0.log"
        mill.wait_until(lambda: ": promoted" in log.read_text())
        assert "good " in log.read_text()


class Commands:
    """The command line, run in this process."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(home)
        for name in ("ROOT", "STATE_DIR", "CACHE_DIR", "SOURCE_CACHE"):
            monkeypatch.setenv(f"LATENTMILL_{name}", str(home / name.lower()))

    def text(self, *words: str, code: int = 0) -> str:
        done = CliRunner().invoke(command_line, ["schedule", *words])
        assert (done.exit_code, done.exception is None or code > 0) == (code, True), done.output
        return done.output

    def facts(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.text(*words, "--json", code=code))

    def refusal(self, *words: str, group: bool = True) -> LatentmillError:
        done = CliRunner().invoke(command_line, ["schedule", *words] if group else list(words))
        assert isinstance(done.exception, LatentmillError), done.output
        return done.exception


@pytest.fixture
def schedule(home: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(home, monkeypatch)


def test_the_commands_that_declare(home: Path, schedule: Commands) -> None:
    nightly = write_schedule(home, {"name": "nightly", "cron": "30 3 * * *", "timezone": "Europe/Berlin"})
    bad = write_schedule(home, {"name": "bad", "cron": "30 3 31 2 *"})
    output = schedule.facts("validate", nightly, bad, code=2)
    assert [facts["valid"] for facts in output] == [True, False]
    assert "cron: expected five fields" in schedule.text("validate", bad, code=2)
    assert schedule.text("list") == "no schedules: latentmill schedule add FILE\n"
    assert schedule.refusal("add", "nowhere.yaml").field == "schedule"
    facts = schedule.facts("add", nightly)
    assert all(date[11:16] == "03:30" for date in facts["next"])
    assert schedule.facts("add", nightly)["since"] == facts["since"]
    other = write_schedule(home, {"name": "nightly", "cron": "0 4 * * *"})
    assert schedule.refusal("add", other).field == "name"
    assert schedule.facts("add", other, "--replace")["cron"] == "0 4 * * *"
    (home / "images [2026]").mkdir()
    away = {"source": "elsewhere.npz", "test": str(home / "images [2026]")}
    compared = write_schedule(home, {"name": "compared", "cron": "0 4 * * *", "gates": {"reference": away}})
    assert "not on this machine: elsewhere.npz" in schedule.text("validate", compared)
    assert schedule.facts("add", compared)["not_on_this_machine"] == [str(Path.cwd() / "elsewhere.npz")]
    schedule.text("remove", "compared")
    assert "nightly" in schedule.text("list")
    assert schedule.facts("pause", "nightly")["next"] == []
    assert schedule.facts("list")[0]["paused"] is True
    assert schedule.facts("resume", "nightly")["paused"] is False
    assert schedule.facts("show", "nightly")["declared"]["job"]["count"] == 60
    assert "declared" in schedule.text("show", "nightly")
    assert schedule.facts("remove", "nightly") == {"name": "nightly", "removed": True}
    assert schedule.facts("list") == []
    for words in (("show", "nightly"), ("pause", "nightly"), ("run", "no"), ("remove", "a/../b"), ("history", "no")):
        assert schedule.refusal(*words).field == "schedule"


def test_the_commands_that_begin_runs(home: Path, schedule: Commands) -> None:
    schedule.text("add", write_schedule(home, {"name": "nightly", "cron": "30 3 * * *", "timezone": "Europe/Berlin"}))
    begun = schedule.facts("run", "nightly", "--date", "2025-03-30")
    assert (begun["date"], begun["state"], begun["origin"]) == ("2025-03-30T03:30+02:00", "created", "hand")
    assert schedule.refusal("run", "nightly", "--date", "2025-03-30").field == "run"
    assert schedule.refusal("run", "nightly", "--date", "yesterday").field == "date"
    dry = schedule.facts("backfill", "nightly", "2025-03-28", "2025-04-01", "--dry-run")
    assert (len(dry["dates"]), dry["left_alone"], dry["begun"]) == (4, 1, 0)
    refusal = schedule.refusal("backfill", "nightly", "1997-01-01", "2025-01-01")
    assert (refusal.field, refusal.got) == ("backfill", "10,228 runs of nightly")
    assert "--yes" in refusal.expected
    assert schedule.refusal("run", "nightly", "--date", "2999-01-01").field == "date"
    assert schedule.refusal("backfill", "nightly", "2025-03-28", "2999-01-01").field == "to"
    assert len(schedule.facts("history", "nightly")) == 1  # nothing has happened yet
    assert schedule.refusal("backfill", "nightly", "2025-03-31", "2025-03-01").field == "to"
    assert schedule.refusal("backfill", "nightly", "2025-03-31T04:00", "2025-03-31T05:00").field == "from"
    assert schedule.facts("backfill", "nightly", "2025-03-28", "2025-04-01")["begun"] == 4
    assert schedule.facts("backfill", "nightly", "2025-03-28", "2025-04-01")["begun"] == 0
    assert schedule.facts("backfill", "nightly", "2025-01-01", "2025-02-28", "--yes")["begun"] == 59
    history = schedule.facts("history", "nightly", "--limit", "100")
    assert [each["origin"] for each in history].count("backfill") == 63
    assert history == sorted(history, key=lambda each: each["key"], reverse=True)
    assert "2025-03-30T03:30+02:00  created" in (output := schedule.text("history", "nightly"))
    assert "waits for a scheduler" in output
    assert schedule.facts("remove", "nightly")["removed"]
    assert len(schedule.facts("history", "nightly")) == 20


def test_what_up_shows(home: Path) -> None:
    """The tables in a terminal and the lines in a log, from the objects in the store."""
    from rich.console import Console

    from tests.support.simulated_schedules import START, ScheduleSimulation
    from workers.cli.dashboard import DashboardState, change_lines, render

    simulation = ScheduleSimulation(home)
    simulation.declare(gates=None)
    simulation.clock.advance(hours=3, minutes=31)
    simulation.ticker().tick()
    runs_then = tuple(simulation.runs())
    simulation.clock.advance(minutes=20)
    simulation.ticker().tick()
    upcoming = ((START, "2026-01-02T03:30+00:00", "nightly"),)
    before, after = (
        DashboardState((), (), runs_then),
        DashboardState((), upcoming, tuple(simulation.runs()), "redis: away"),
    )
    assert list(change_lines(DashboardState(), before)) == ["nightly 2026-01-01T03:30+00:00: submitted"]
    assert list(change_lines(before, after)) == [
        "nightly 2026-01-01T03:30+00:00: promoted",
        "nightly: next at 2026-01-02T03:30+00:00",
        "redis: away",
    ]
    assert list(change_lines(after, after)) == []
    console = Console(width=100, record=True, file=StringIO())
    console.print(render(after))
    text = console.export_text()
    assert all(word in text for word in ("running: nothing", "next", "2026-01-02T03:30", "promoted", "redis: away"))


def test_up_follows_a_run_of_an_old_date_to_its_end(home: Path) -> None:
    """A finished run of an older date is still shown, though it has no marker and is not of the last day."""
    from tests.support.simulated_schedules import START, ScheduleSimulation
    from workers.cli.dashboard import DashboardState, read_state
    from workers.client import Client
    from workers.jobs.pool import Pool
    from workers.schedules.manual_runs import start_run

    simulation = ScheduleSimulation(home)
    stored = simulation.declare(gates=None)
    client, pool = Client(simulation.pool.settings), Pool(simulation.pool.settings)
    start_run(simulation.pool, stored, START - timedelta(days=30), START, "hand")
    seen, states = DashboardState(), list[list[str]]()
    for hours in (0, 1, 12, 40):
        simulation.clock.time = START + timedelta(hours=hours, minutes=1)
        for _ in range(min(hours, 2)):
            simulation.ticker().tick()
        seen = read_state(client, pool, simulation.clock.time, seen)
        states.append([run.state for run in seen.runs if run.origin == "hand"])
    assert states == [["created"], ["submitted"], ["promoted"], []]


def test_a_scheduler_refuses_what_it_cannot_follow(schedule: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTMILL_SCHEDULES_DIR", "nowhere")
    assert schedule.refusal("up", group=False).field == "LATENTMILL_SCHEDULES_DIR"
    assert schedule.refusal("scheduler", group=False).field == "LATENTMILL_REDIS_URL"
    monkeypatch.setenv("LATENTMILL_REDIS_URL", "nonsense://somewhere")
    monkeypatch.delenv("LATENTMILL_SCHEDULES_DIR")
    assert schedule.refusal("scheduler", group=False).field == "LATENTMILL_REDIS_URL"
    monkeypatch.setenv("LATENTMILL_SCHEDULES_DIR", "nowhere")
    monkeypatch.setenv("LATENTMILL_REDIS_URL", "redis://127.0.0.1:1/0")
    assert schedule.refusal("scheduler", group=False).field == "LATENTMILL_SCHEDULES_DIR"
