"""A schedule that is due every minute of the wall clock: three builds are promoted, each for its own minute.

``python -m pytest tests/faults/wall_clock_schedule.py`` (with ``make storm``): it takes four minutes, most of them
asleep, so it is not part of the regular tests. Two schedulers run; one is killed and started again after each build.
"""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from generator import open_dataset
from generator.datasets.promotion import read_latest
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.cli_sandbox import cli_sandbox, write_schedule
from workers.schedules.history import newest_runs
from workers.schedules.runs import live_markers
from workers.schedules.store import update_stored


@pytest.mark.timeout(900)
def test_three_minutes_three_promoted_builds(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "tiny.bundle")
    with cli_sandbox(tmp_path) as mill:
        mill.run("schedule", "add", write_schedule(tmp_path, {"name": "often", "overlap": "queue", "deadline": "5m"}))
        mill.start("up")
        mill.wait_until((tmp_path / "state" / "redis.json").exists)
        root = open_store(str(tmp_path / "root"))
        for wanted in range(1, 4):
            second = mill.start("scheduler")
            mill.wait_until(lambda wanted=wanted: len(newest_runs(root, "often", 10)) >= wanted)  # type: ignore[misc]
            os.kill(second.pid, signal.SIGKILL)
            mill.wait_until(
                lambda wanted=wanted: [run.state for run in newest_runs(root, "often", 10)].count("promoted") >= wanted  # type: ignore[misc]
            )
        update_stored(root, "often", lambda kept: kept and kept.model_copy(update={"held": True}))
        mill.wait_until(lambda: not list(live_markers(root)))
        runs = [run for run in newest_runs(root, "often", 10)[::-1] if run.state != "skipped"]
        assert len(runs) >= 3
        assert {run.state for run in runs} == {"promoted"}
        assert {later.date - run.date for run, later in pairwise(runs)} == {timedelta(minutes=1)}
        assert all(run.date <= run.created < run.date + timedelta(minutes=1) for run in runs)
        assert all(run.at_risk == "" for run in runs)
        latest = read_latest(open_store(runs[-1].dataset))
        assert latest is not None
        assert latest.logical_date == runs[-1].date <= datetime.now(UTC)
        assert len(list(open_dataset(runs[-1].dataset))) == 60
