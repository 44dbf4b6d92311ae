"""The simulation of large pools runs at small size; docs/performance.md has its results at full size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_server import run_script

ROOT = Path(__file__).parents[3]


def simulate(*parts: str) -> dict[str, Any]:
    done = run_script(ROOT / "benchmarks/simulation.py", "--quick", "--parts", ",".join(parts))
    assert done.returncode == 0, done.stderr
    found, rest = dict[str, Any](), done.stdout
    while rest.strip():
        document, end = json.JSONDecoder().raw_decode(rest.lstrip())
        found, rest = found | document, rest.lstrip()[end:]
    return found


@pytest.mark.timeout(600)
def test_tenants_share_by_weight_and_every_build_is_committed_with_one_segment_left_to_write() -> None:
    facts = simulate("pool")["pool"]
    assert facts["commits"] == facts["segments_missing_at_commits"] == facts["tenants"]
    assert facts["fairness"]["jain"] > 0.999
    assert facts["ledger_bits_a_shard"] < 32


def test_ledgers_and_commits_and_readers_of_large_builds() -> None:
    facts = simulate("million", "commit", "reading")
    assert facts["million"]["shards"] == 12_000
    assert facts["million"]["ledger_bits_a_shard"] < 8
    (gathered,), without = facts["commit"], facts["commit_without_segments"]
    assert (gathered["shards"], gathered["gathered"]) == (1001, True)
    assert gathered["calls"] < 30 < without["calls"]
    assert facts["reading"]["samples"] == 2_000_000
