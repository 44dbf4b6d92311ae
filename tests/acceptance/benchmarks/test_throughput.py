"""`benchmarks/throughput.py` runs on few images.

At first its measurements and workers are forked (`tests/support/fork_server.py`), then it is run as a user runs it.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_server import run_script, shared_fork_server
from tests.support.forked_worker import ForkedWorker

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(600)
def test_throughput_is_measured_and_a_part_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forked_throughput(monkeypatch, tmp_path, "--parts", "line", "s3", "growth", "encoders")
    rows = read_rows(tmp_path / "throughput.jsonl")
    assert {row["part"] for row in rows} == {"line", "s3", "growth", "encoders"}
    (line,) = (row for row in rows if row["part"] == "line")
    assert line["whole_rate"] > 0.0
    assert abs(line["limit"] - min(line["decode_rate"], line["cores"] / sum(line["alone"].values()))) < 1.0
    (stored,) = (row["s3"] for row in rows if row["part"] == "s3")
    assert 0.0 < stored["server_seconds"] < stored["cores"] * stored["seconds"]
    grown = [row for row in rows if row["part"] == "growth"]
    assert [row["images"] for row in grown] == [600, 1200]
    assert all(row["peak_mib"] > 50.0 for row in grown)
    page = tmp_path / "performance.md"
    page.write_text(f"# Above\n\n{page.read_text()}\nbelow\n")
    throughput(tmp_path, "--parts", "encoders")
    output = page.read_text()
    assert output.startswith("# Above\n")
    assert output.endswith("\nbelow\n")
    assert len(read_rows(tmp_path / "throughput.jsonl")) == len(rows)
    assert output.count("| jpeg, latentmill | ") == 1


def words(out: Path, *arguments: str) -> list[str]:
    script = ROOT / "benchmarks/throughput.py"
    return [str(word) for word in (script, "--quick", "--out", out, "--work", out, *arguments)]


def throughput(out: Path, *arguments: str) -> None:
    command = [sys.executable, *words(out, *arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def forked_throughput(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> None:
    """The benchmark in this process; what it would start as fresh interpreters is forked."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", words(out, *arguments))
    parts, pool = (importlib.import_module(name) for name in ("throughput_parts", "throughput_pool"))
    monkeypatch.setattr(parts, "run_script", run_script)
    monkeypatch.setattr(pool, "WorkerProcess", partial(ForkedWorker, shared_fork_server()))
    assert importlib.import_module("throughput").main() == 0


def read_rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]
