"""`benchmarks/budget.py` runs on small data: one measurement, which the tests share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_server import run_script

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of one measurement."""
    out = tmp_path_factory.mktemp("budget") / "out"
    out.mkdir()
    measure(out)
    return out


@pytest.fixture
def out(measured: Path, tmp_path: Path) -> Path:
    """A copy of that directory."""
    return Path(shutil.copytree(measured, tmp_path / "out"))


def test_the_curve_is_measured_once_and_drawn_up(out: Path) -> None:
    rows = rows_of(out)
    assert [row["epochs"] for row in rows] == [4, 16]
    assert rows[1]["reconstruction_mse"] < rows[0]["reconstruction_mse"]
    assert rows[1]["accuracy"]["real"] > 0.6 < rows[1]["accuracy"]["reconstructions"]
    assert all(0.1 < value <= 1.0 for row in rows for value in row["accuracy"].values())
    page = (out / "budget.md").read_text()
    assert page.count(" | 16 | 1 | ") == 1
    assert "real" not in measure(out)
    assert rows_of(out) == rows
    assert (out / "budget.md").read_text() == page


def test_a_second_opinion_is_added(out: Path) -> None:
    before = rows_of(out)
    measure(out, "--residual")
    after = rows_of(out)
    assert [{name: row[name] for name in row if name != "residual"} for row in after] == before
    assert after[0]["residual"]["real"] == after[1]["residual"]["real"]
    assert all(0.1 < value <= 1.0 for row in after for value in row["residual"].values())
    assert (out / "budget.md").read_text().count("| vae, 16 dimensions, mixture, ") == 2
    assert sorted(path.name for path in out.iterdir()) == ["budget.jsonl", "budget.md", "work"]


def measure(out: Path, *arguments: str) -> str:
    """Run the benchmark into ``out``; what it prints of its progress."""
    words = ["--quick", "--threads", "1", "--judge-steps", "60", "--out", out, "--work", out / "work", *arguments]
    done = run_script(ROOT / "benchmarks/budget.py", *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "budget.jsonl").read_text().splitlines()]
