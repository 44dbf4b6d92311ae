"""A short storm (random faults) of three seeds; ``make storm`` runs twenty long ones."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.process_reaper import start_ticks
from tests.faults.run_storms import OUTCOMES, PAGE, ROOT, table
from tests.faults.storm import StormSettings, StormTarget, run_storm
from tests.support.bundles import tiny_bundle
from tests.support.servers import S3Server

SHORT = StormSettings(shards=16, workers=2, pause=1.5, storm_seconds=20.0, limit_seconds=200.0, forked=True)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> StormTarget:
    return StormTarget(tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"), SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101, 102, 103])
def test_a_storm_loses_nothing(seed: int, target: StormTarget, s3_server: S3Server, tmp_path: Path) -> None:
    outcome = run_storm(seed, target, s3_server, tmp_path / "storm")
    assert outcome["problems"] == [], outcome
    assert outcome["objects_equal"] == outcome["objects"] > 3 * SHORT.shards
    assert sum(outcome["events"].values()) >= 3
    assert outcome["faults"]["500"] > 0


def test_the_page_tells_of_every_storm_that_was_recorded() -> None:
    assert table(OUTCOMES.read_text().splitlines()) in PAGE.read_text()


_LEFT_BEHIND = """
import subprocess, sys, time
from tests.faults.process_reaper import ProcessReaper
with ProcessReaper() as watcher:
    marked = subprocess.Popen(["sleep", "600"], start_new_session=True)
    noted = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
    watcher.note(noted.pid)
    print(marked.pid, noted.pid, flush=True)
    time.sleep(600)
"""


def test_nothing_outlives_a_test_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _LEFT_BEHIND], cwd=ROOT, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        pids = [int(pid) for pid in test.stdout.readline().split()]
        assert all(start_ticks(pid) is not None for pid in pids)
        test.kill()
    deadline = time.monotonic() + 30.0
    while any(start_ticks(pid) is not None for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
