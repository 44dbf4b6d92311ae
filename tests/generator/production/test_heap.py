"""Freed memory stays with the process, unless its user has set the heap."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from generator.production.heap import keep_freed_memory

ROOT = Path(__file__).parents[3]
# A thread that takes and frees 64 MiB at a time, and the pages that the system had to give for the last ten of them.
PROGRAM = """
import json, resource, sys, threading
from generator.production.heap import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else False
def take():
    for number in range(12):
        if number == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"x" * 2**26
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
faults = []
thread = threading.Thread(target=take)
thread.start()
thread.join()
print(json.dumps([kept, faults[0]]))
"""


def run(choice: str, **environment: str) -> tuple[bool, int]:
    command = [sys.executable, "-c", PROGRAM, choice]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    kept, faults = json.loads(done.stdout)
    return kept, faults


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is an option of glibc")
@pytest.mark.slow
def test_a_thread_gets_the_memory_again_that_it_has_freed() -> None:
    _, before = run("default")
    kept, after = run("kept")
    assert kept
    assert before > 10 * 64 * 16  # pages of at most 64 KiB
    assert after < before / 100


@pytest.mark.parametrize("set_by_user", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_options_of_the_user_stay(set_by_user: dict[str, str]) -> None:
    assert not keep_freed_memory(set_by_user)
