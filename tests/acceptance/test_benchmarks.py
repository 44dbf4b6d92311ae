"""The benchmarks run, small: what they say of real data stands in the documentation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(out: Path, *families: str) -> str:
    words = ["--quick", "--threads", "1", "--out", out, "--work", out / "work", "--samplers", "gaussian", "mixture"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/families.py", *words, "--families", *families],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_families_are_measured_once_and_drawn_up(tmp_path: Path) -> None:
    run(tmp_path, "linear")
    before = (tmp_path / "families.jsonl").read_text()
    told = run(tmp_path, "linear", "stacked")
    assert "stacked" in told
    assert "linear" not in told
    rows = [json.loads(line) for line in (tmp_path / "families.jsonl").read_text().splitlines()]
    assert (tmp_path / "families.jsonl").read_text().startswith(before)
    assert [(row["family"], row["sampler"]) for row in rows] == [
        ("linear", "gaussian"),
        ("linear", "mixture"),
        ("stacked", "gaussian"),
        ("stacked", "mixture"),
    ]
    assert all(0.0 < row["accuracy"] <= 1.0 and 0.0 < row["reconstruction_mse"] < 0.2 for row in rows)
    page = (tmp_path / "families.md").read_text()
    assert page.count("| linear | ") == 2
    assert "pictures/families/digits-linear-gaussian.png" in page
    assert (tmp_path / "pictures/families/digits-stacked-mixture.png").stat().st_size > 0
