"""`benchmarks/preview.py` runs; the documentation has its figures."""

from __future__ import annotations

from tests.acceptance.benchmarks.test_coordination import ROOT
from tests.support.command_server import run_script


def test_previews_and_requests_are_measured() -> None:
    done = run_script(ROOT / "benchmarks/preview.py", "--times", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 8
    assert sum("preview of" in line for line in lines) == 4
