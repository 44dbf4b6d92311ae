"""Places that benchmarks write to: made if they are missing, refused before any work begins if they cannot be."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if re.search(r'"--(work|out|json)",', path.read_text()))

sys.path.insert(0, str(BENCHMARKS))
from arguments import directory, output_file  # noqa: E402


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    assert directory(str(tmp_path / "a/b")).is_dir()
    assert directory(str(tmp_path / "a/b")) == tmp_path / "a/b"
    assert output_file(str(tmp_path / "c/rows.json")) == tmp_path / "c/rows.json"
    assert (tmp_path / "c").is_dir()


def test_what_cannot_be_made_is_an_error_of_usage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/below"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"expected a directory, got .*file"):
            directory(str(tmp_path / place))
    with pytest.raises(argparse.ArgumentTypeError, match="expected a file, got the directory"):
        output_file(str(tmp_path))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_checks_where_it_writes(script: Path) -> None:
    text = script.read_text()
    for option in re.findall(r'add_argument\(\s*"--(?:work|out|json)",[^)]*\)', text):
        assert "type=directory" in option or "type=output_file" in option or "store_true" in option, option


@pytest.mark.slow
def test_a_script_says_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    command = [sys.executable, str(BENCHMARKS / "usefulness.py"), "--work", str(tmp_path / "file/work")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent)
    assert done.returncode == 2
    assert "argument --work: expected a directory, got" in done.stderr
    assert "Traceback" not in done.stderr
