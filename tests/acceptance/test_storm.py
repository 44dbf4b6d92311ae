"""Three short storms (random faults); ``make storm`` runs twenty long ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults import storm_script
from tests.faults.process_reaper import ProcessReaper, start_ticks
from tests.faults.run_storms import OUTCOMES, PAGE, ROOT, table
from tests.faults.storm_script import SHORT
from tests.support.bundles import tiny_bundle
from tests.support.command_server import SERVER_VARIABLE, shared_fork_server
from tests.support.fork_server import ForkedCommand
from tests.support.servers import S3Server

SEEDS = (101, 102, 103)
FAILOVER = 103  # the storm in which Redis is a master behind a Sentinel, and is lost


@pytest.fixture(scope="module")
def outcomes(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The outcomes of all storms by their seeds. They wait for most of their time, so they rage at once."""
    home, server = tmp_path_factory.mktemp("storms"), shared_fork_server()
    bundle, script = tiny_bundle(home / "tiny"), Path(storm_script.__file__)
    with ProcessReaper() as watcher, ExitStack() as files:
        environment = os.environ | {SERVER_VARIABLE: server.address}
        storms = {}
        for seed in SEEDS:
            words = [str(word) for word in (script, seed, bundle, s3_server.port, home / f"storm-{seed}")]
            words += ["failover"] if seed == FAILOVER else []
            out, err = (files.enter_context((home / f"{seed}.{name}").open("wb")) for name in ("out", "err"))
            storms[seed] = server.start(ForkedCommand("script", words, ROOT, environment), out, err)
        for seed, storm in storms.items():
            assert storm.wait(280.0) == 0, (home / f"{seed}.err").read_text()
    assert watcher.left == []
    return {seed: json.loads((home / f"{seed}.out").read_text()) for seed in SEEDS}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_loses_nothing(seed: int, outcomes: dict[int, dict[str, Any]]) -> None:
    outcome = outcomes[seed]
    assert outcome["problems"] == [], outcome
    assert outcome["objects_equal"] == outcome["objects"] > 3 * SHORT.shards
    assert sum(outcome["events"].values()) >= 3
    assert seed != FAILOVER or outcome["events"]["Redis killed and restarted"] == 1
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
