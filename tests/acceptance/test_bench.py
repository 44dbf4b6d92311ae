"""The command ``latentmill bench``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.support.command_server import run_command


def bench(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(home)}
    return run_command(["bench", *arguments], cwd=Path.cwd(), env=environment, timeout=280)


def test_it_says_what_this_machine_does(tmp_path: Path) -> None:
    done = bench(tmp_path, "--images", "500", "--size", "8", "--price-per-hour", "1", "--seconds", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 500
    assert found["cost_per_million"] > 0.0
    assert found["suggestion"]["concurrency"] >= 1
    assert not list(tmp_path.glob("latentmill-bench-*"))


def test_a_size_that_is_none_is_bad_input(tmp_path: Path) -> None:
    done = bench(tmp_path, "--size", "64x")
    assert done.returncode == 2
    assert "error: size: expected a size in pixels, such as 64, or 96x64" in done.stderr


def test_a_bundle_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    done = bench(tmp_path, str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
