"""Threads of the numeric libraries: what a command sets before it imports them, and what torch makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from workers.cli import threads

ROOT = Path(__file__).parents[3]
# A command that shows what torch sees, started like any other.
COMMAND = """
import json, os, sys, click
from importlib import import_module
from workers.cli import threads
main = import_module("workers.cli.main")
@click.command("seen")
def seen_command():
    assert "torch" not in sys.modules, "the variables must be set before torch is imported"
    import torch
    print(json.dumps({"threads": torch.get_num_threads(), "policy": os.environ.get("OMP_WAIT_POLICY")}))
main.CommandGroup.get_command = lambda self, ctx, name: seen_command
if len(sys.argv) > 2:
    cores = int(sys.argv.pop())
    threads.usable_cores, threads.allowed_cores = (lambda: cores), (lambda: 64)
main.main()
"""


def seen(*quota: str, **variables: str) -> dict[str, object]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
    command = [sys.executable, "-c", COMMAND, "seen", *quota]
    done = subprocess.run(command, cwd=ROOT, env=kept | variables, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_command_waits_asleep_and_keeps_to_its_quota() -> None:
    found = seen("1")
    assert found["policy"] == "PASSIVE"
    assert found["threads"] == 1


@pytest.mark.slow
def test_without_a_quota_the_number_is_that_of_openmp() -> None:
    assert seen()["threads"] == len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_what_the_user_has_set_stays() -> None:
    found = seen("2", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="ACTIVE")
    assert (found["threads"], found["policy"]) == (1, "ACTIVE")


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_any_word_of_the_user_about_waiting_counts(name: str) -> None:
    given = {name: "5"}
    threads.set_thread_variables(given)
    assert given == {name: "5"} | ({"OMP_NUM_THREADS": given["OMP_NUM_THREADS"]} if "OMP_NUM_THREADS" in given else {})


def test_the_number_is_set_where_a_quota_is_below_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "allowed_cores", lambda: 64)
    for cores, expected in ((64, None), (3, "3")):
        monkeypatch.setattr(threads, "usable_cores", lambda cores=cores: cores)
        found: dict[str, str] = {}
        threads.set_thread_variables(found)
        assert found.get("OMP_NUM_THREADS") == expected


@pytest.mark.parametrize(
    ("command", "gib", "kept"),
    [
        ("generate", 2, True),
        ("worker", 2, True),
        ("train", 8, True),
        ("train", 7, False),
        ("measure", 8, True),
        ("serve", 8, False),
    ],
)
def test_commands_that_compute_in_batches_keep_freed_memory(
    command: str, gib: int, kept: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = list[str]()
    main = import_module("workers.cli.main")
    monkeypatch.setattr(main, "keep_freed_memory", lambda: calls.append(command))
    monkeypatch.setattr(main, "set_thread_variables", lambda _: None)
    monkeypatch.setattr(main, "available_memory", lambda: gib * 2**30)
    monkeypatch.setattr(sys, "argv", ["latentmill", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0, capsys.readouterr().err
    assert bool(calls) == kept
