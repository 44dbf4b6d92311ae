"""The coordination benchmark runs at small size; docs/reliability.md has its results at full size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_a_job_of_instant_shards_is_committed_within_its_window() -> None:
    command = [sys.executable, ROOT / "benchmarks/coordination.py", "--quick", "--parts", "large"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["large"]
    assert facts["shards"] == 200
    assert facts["tickets_at_most"] <= facts["window"]
    assert 0 < facts["redis_mib_at_most"] < 1
    assert facts["manifest_mib"] > 0
