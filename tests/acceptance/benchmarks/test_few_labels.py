"""`benchmarks/few_labels.py` runs on small data."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_server import run_script

ROOT = Path(__file__).parents[3]


def test_few_labels_are_measured_once_and_drawn_up(tmp_path: Path) -> None:
    output = [few_labels(tmp_path, *arguments) for arguments in (["--settings", "100"], [])]
    assert ("seed 0, 100" in output[0], "seed 0, unlabelled" in output[0]) == (True, False)
    assert ("seed 0, 100" in output[1], "seed 0, unlabelled" in output[1]) == (False, True)
    rows = [json.loads(line) for line in (tmp_path / "few_labels.jsonl").read_text().splitlines()]
    assert [row["setting"] for row in rows] == ["100", "unlabelled", "unlabelled, strong"]
    assert rows[0]["accuracy"]["real"] == rows[1]["accuracy"]["real"]
    assert rows[0]["accuracy"]["real, strong"] == rows[2]["accuracy"]["real, strong"]
    assert all(0.6 < value <= 1.0 for row in rows for value in (row["judge"], *row["accuracy"].values()))
    page = (tmp_path / "few_labels.md").read_text()
    assert page.count("| 100 | light | ") == page.count("| 100 | strong | ") == 1
    assert page.count("| unlabelled | light | ") == page.count("| unlabelled, strong | strong | ") == 2


def few_labels(out: Path, *arguments: str) -> str:
    words = ["--quick", "--threads", "1", "--out", out, "--work", out / "work", *arguments]
    done = run_script(ROOT / "benchmarks/few_labels.py", *words)
    assert done.returncode == 0, done.stderr
    return done.stderr
