"""`benchmarks/virtual.py` and `benchmarks/reading_starts.py` run on few images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.slow, pytest.mark.server]


def run(script: str, out: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / script), *options, "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_the_cost_of_a_virtual_dataset_is_measured(tmp_path: Path) -> None:
    options = ("--samples", "600", "--size", "16", "--width", "8", "--rounds", "1", "--device", "cpu")
    found = run("virtual.py", tmp_path / "virtual.json", *options)
    for workers in (0, 1):
        seconds = found[f"workers {workers}"]
        assert seconds.keys() == {"alone", "stored", "virtual"}
        assert all(value > 0 for value in seconds.values())


def test_starts_of_epochs_are_measured_here_and_from_s3(tmp_path: Path) -> None:
    options = ("--shards", "6", "--samples", "60", "--rounds", "1")
    found = run("reading_starts.py", tmp_path / "starts.json", *options)
    assert {name for name in found if name.startswith("first sample of")} == {
        "first sample of 6 shards, local (s)",
        "first sample of 6 shards, S3 (s)",
        "first sample of a resumed epoch, local (s)",
        "first sample of a resumed epoch, S3 (s)",
    }
    assert 0 < found["tables, share of making the build"] < 1
    assert found["S3, open_dataset (samples/s)"] > 0
