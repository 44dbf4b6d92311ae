"""`benchmarks/families.py` runs at small size; the documentation has its results on real data."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_server import run_script

ROOT = Path(__file__).parents[3]


def run(out: Path, *families: str) -> str:
    arguments = ["--quick", "--threads", "1", "--out", out, "--work", out / "work", "--samplers", "gaussian", "mixture"]
    done = run_script(ROOT / "benchmarks/families.py", *arguments, "--families", *families)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_families_are_measured_once_and_drawn_up(tmp_path: Path) -> None:
    run(tmp_path, "linear")
    before = (tmp_path / "families.jsonl").read_text()
    output = run(tmp_path, "linear", "stacked")
    assert "stacked" in output
    assert "linear" not in output
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
    assert "pictures/families/digits-linear-gaussian.jpg" in page
    assert (tmp_path / "pictures/families/digits-stacked-mixture.jpg").stat().st_size > 0
