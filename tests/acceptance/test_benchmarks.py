"""The benchmarks run at small size; the documentation has their results on real data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(out: Path, *families: str) -> str:
    arguments = ["--quick", "--threads", "1", "--out", out, "--work", out / "work", "--samplers", "gaussian", "mixture"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/families.py", *arguments, "--families", *families],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
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


def test_few_labels_are_measured_once_and_drawn_up(tmp_path: Path) -> None:
    output = [few_labels(tmp_path, *arguments) for arguments in (["--settings", "100"], [])]
    assert ("seed 0, 100" in output[0], "seed 0, unlabelled" in output[0]) == (True, False)
    assert ("seed 0, 100" in output[1], "seed 0, unlabelled" in output[1]) == (False, True)
    rows = [json.loads(line) for line in (tmp_path / "few_labels.jsonl").read_text().splitlines()]
    assert [row["setting"] for row in rows] == ["100", "unlabelled"]
    assert rows[0]["accuracy"]["real"] == rows[1]["accuracy"]["real"]
    assert all(0.6 < value <= 1.0 for row in rows for value in (row["judge"], row["accuracy"]["real + synthetic"]))
    page = (tmp_path / "few_labels.md").read_text()
    assert page.count("| 100 | light | ") == page.count("| 100 | strong | ") == 1
    assert "| unlabelled | light | " in page


def few_labels(out: Path, *arguments: str) -> str:
    command = [sys.executable, ROOT / "benchmarks/few_labels.py", "--quick", "--threads", "1", "--out", out, *arguments]
    done = subprocess.run([*command, "--work", out / "work"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_budget_curve_is_measured_once_and_drawn_up(tmp_path: Path) -> None:
    arguments = ["--quick", "--threads", "1", "--out", tmp_path, "--work", tmp_path / "work"]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, ROOT / "benchmarks/budget.py", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "real" not in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "budget.jsonl").read_text().splitlines()]
    assert [row["epochs"] for row in rows] == [6, 24]
    assert rows[1]["reconstruction_mse"] < rows[0]["reconstruction_mse"]
    assert rows[1]["accuracy"]["real"] > 0.6 < rows[1]["accuracy"]["reconstructions"]
    assert (tmp_path / "budget.md").read_text().count(" | 24 | 1 | ") == 1


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


def test_the_budget_is_measured_once_and_a_second_opinion_is_added(tmp_path: Path) -> None:
    budget(tmp_path)
    before = rows_of_budget(tmp_path)
    assert [row["epochs"] for row in before] == [6, 24]
    assert all(0.1 < value <= 1.0 for row in before for value in row["accuracy"].values())
    budget(tmp_path, "--residual")
    after = rows_of_budget(tmp_path)
    assert [{name: row[name] for name in row if name != "residual"} for row in after] == before
    assert after[0]["residual"]["real"] == after[1]["residual"]["real"]
    assert all(0.1 < value <= 1.0 for row in after for value in row["residual"].values())
    page = (tmp_path / "budget.md").read_text()
    assert page.count("| vae, 16 dimensions, mixture, ") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["budget.jsonl", "budget.md", "work"]


def budget(out: Path, *arguments: str) -> None:
    command = [sys.executable, ROOT / "benchmarks/budget.py", "--quick", "--threads", "1", "--out", out, *arguments]
    done = subprocess.run([*command, "--work", out / "work"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def rows_of_budget(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "budget.jsonl").read_text().splitlines()]
