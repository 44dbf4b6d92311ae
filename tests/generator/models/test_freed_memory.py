"""Memory between stages of a training goes back to the system, although small results lie above it in the heap."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys

import pytest

_PROGRAM = """
from pathlib import Path

import numpy as np

from generator.models.freed_memory import give_back_freed_memory

def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

temporaries, small = [], []
for _ in range(2000):  # of 100 KB, which glibc keeps in its heap
    temporaries.append(np.ones(12_500))
    small.append(np.ones(8))
temporaries.clear()
before = anonymous()
give_back_freed_memory()
print(before, anonymous())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not the C library glibc")
def test_freed_memory_below_small_results_goes_back() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, env=environment)
    before, after = map(int, re.findall(r"\d+", run.stdout))
    assert before > 190_000  # kilobytes: kept by glibc
    assert after < before - 150_000
