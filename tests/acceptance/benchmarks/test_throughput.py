"""`benchmarks/throughput.py` runs on few images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(600)
def test_throughput_is_measured_and_a_part_anew(tmp_path: Path) -> None:
    throughput(tmp_path, "--parts", "line", "s3", "growth", "encoders")
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


def throughput(out: Path, *arguments: str) -> None:
    command = [sys.executable, ROOT / "benchmarks/throughput.py", "--quick", "--out", out, "--work", out, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def read_rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]
