"""The unit files for systemd and the script for Slurm."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from workers.cli.main import root
from workers.settings import ENV_PREFIX, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(path.name for path in (DEPLOY / "systemd").iterdir())
PROGRAM = "/opt/latentmill/bin/latentmill"


def verify(unit: Path) -> str:
    """What systemd-analyze complains of."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    return "\n".join(line for line in lines if unit.name in line)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_every_unit(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / name).read_text()
    unit = tmp_path / name
    unit.write_text(text.replace(PROGRAM, "/bin/true"))
    assert verify(unit) == ""
    unit.write_text(
        text.replace(PROGRAM, "/bin/true")
        .replace("KillMode=mixed", "KillMode=all")
        .replace("TimeoutStopSec=60", "TimeoutStopSec=soon")
    )
    assert "soon" in verify(unit)


@pytest.mark.parametrize("name", UNITS)
def test_units_name_commands_and_settings_that_there_are(name: str) -> None:
    lines = (DEPLOY / "systemd" / name).read_text().splitlines()
    (command,) = [line for line in lines if line.startswith("ExecStart=")]
    assert command.removeprefix(f"ExecStart={PROGRAM} ") in root.list_commands(click.Context(root))
    known = {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}
    variables = {line.split("=")[1] for line in lines if line.startswith("Environment=")}
    assert variables <= known
    (timeout,) = [line.removeprefix("TimeoutStopSec=") for line in lines if line.startswith("TimeoutStopSec=")]
    assert int(timeout) >= Settings.model_fields["grace_seconds"].default + 30


def test_the_script_for_slurm_starts_a_worker_with_the_settings_of_its_file(tmp_path: Path) -> None:
    """Slurm is not here: a program that says what it was asked for stands for ``srun``."""
    script = DEPLOY / "slurm" / "latentmill-worker.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "$@" "$LATENTMILL_ROOT" "$LATENTMILL_GRACE_SECONDS" "$LATENTMILL_STATE_DIR"\n')
    srun.chmod(0o700)
    (tmp_path / "mill.env").write_text("LATENTMILL_ROOT=s3://bucket/mill\n")
    variables = {
        "LATENTMILL_ENV_FILE": str(tmp_path / "mill.env"),
        "TMPDIR": str(tmp_path),
        "USER": "me",
        "SLURM_JOB_ID": "7",
    }
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), **variables}
    done = subprocess.run([script, "--concurrency", "2"], env=environment, capture_output=True, text=True, check=True)
    state = tmp_path / "latentmill-me" / "state-7"
    assert done.stdout == f"--kill-on-bad-exit=1 latentmill worker --concurrency 2 s3://bucket/mill 15 {state}\n"
    directives = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --signal=TERM@60" in directives
