"""Progress without a terminal: a line now and then on standard error, in every stage, and nothing with --json."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.bundles import tiny_bundle
from tests.support.command_server import run_script
from workers.cli.progress import LinesBar, progress_bar, progress_lines

ROOT = Path(__file__).parents[3]
# A command with a line every few hundredths of a second; its output is no terminal.
COMMAND = """
import sys
from workers.cli import main, progress
given = progress.progress_lines
progress.progress_lines = lambda *args, **kw: given(*args, **{**kw, "seconds": 0.02})
main()
"""
LINE = r"[\w -]+: ([\d,]+( of [\d,]+)? \w+ )?after \d+ s(, about \d+ s left)?"


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = home / "command.py"
    script.write_text(COMMAND)
    done = run_script(script, *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_lines_say_stage_amount_and_time() -> None:
    bar = LinesBar("training", 900, "steps")
    assert bar.line() == "training: 0 of 900 steps after 0 s"
    bar(900)
    assert bar.line() == "training: 900 of 900 steps after 0 s"
    bar.stage("encoding", None, "images")
    assert bar.line() == "encoding: after 0 s"
    bar(1200)
    assert bar.line() == "encoding: 1,200 images after 0 s"
    bar.stage("training the judges")
    assert bar.line() == "training the judges: after 0 s"


def test_a_line_comes_though_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_lines("waiting", None, quiet=False, seconds=0.02):
        deadline = time.monotonic() + 20
        written = ""
        while written.count("\n") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            written += capsys.readouterr().err
    assert set(written.splitlines()) <= {f"waiting: after {second} s" for second in range(20)}
    before = threading.active_count()
    time.sleep(0.1)
    assert capsys.readouterr().err.count("\n") <= 1, "nothing comes after the end"
    assert threading.active_count() == before


def test_quiet_and_quick_commands_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_lines("waiting", None, quiet=True, seconds=0.01):
        time.sleep(0.1)
    with progress_bar("quick", 10, quiet=False) as bar:
        bar(10)
        bar.stage("another")
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_train_and_generate_say_where_they_are(tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle")
    small = ("--epochs", "1", "--latent-dim", "4", "--judge-steps", "10", "--sampler", "gaussian")
    trained = run(tmp_path, "train", "digits", "--out", bundle, *small).stderr
    for stage in ("training: ", "training the judges: ", "measuring what the checks let pass: "):
        assert re.search(rf"^{stage}", trained, flags=re.MULTILINE), trained
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"bundle: {bundle}\ndestination: {tmp_path}/out\nname: tiny\ncount: 200\nbatch: 8\nshard_size: 50\n"
    )
    made = run(tmp_path, "generate", str(spec)).stderr
    assert re.search(r"^tiny: [\d,]+ of 200 images after", made, flags=re.MULTILINE), made
    for line in (trained + made).splitlines():
        assert re.fullmatch(LINE, line) or line.startswith("notice: "), line
    measure = ("measure", f"{tmp_path}/out/tiny", "digits", "--measures", "duplicates", "--steps", "20")
    measured = run(tmp_path, *measure, "--seeds", "1", "--bundle", bundle).stderr
    assert re.search(r": after \d+ s$", measured, flags=re.MULTILINE), measured


@pytest.mark.slow
def test_a_reader_that_has_gone_harms_nobody(tmp_path: Path) -> None:
    """Nobody reads standard error any more: the command does its work."""
    tiny_bundle(tmp_path / "bundle")
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"bundle: {tmp_path}/bundle\ndestination: {tmp_path}/out\nname: tiny\ncount: 60\nshard_size: 30\n")
    child = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "generate", str(spec)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stderr is not None
    child.stderr.close()
    assert child.stdout is not None
    assert b"committed" in child.stdout.read()
    child.stdout.close()
    assert child.wait(timeout=120) == 0
