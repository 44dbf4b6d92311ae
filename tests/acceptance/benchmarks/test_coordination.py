"""The coordination benchmark runs at small size; docs/reliability.md has its results at full size."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_server import run_script

ROOT = Path(__file__).parents[3]


def test_a_job_of_instant_shards_is_committed_within_its_window() -> None:
    done = run_script(ROOT / "benchmarks/coordination.py", "--quick", "--parts", "large")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["large"]
    assert facts["shards"] == 200
    assert facts["tickets_at_most"] <= facts["window"]
    assert 0 < facts["redis_mib_at_most"] < 2
    assert facts["manifest_mib"] > 0
