"""Results in batches: every row in its place, and no more memory than they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from generator.models.batched_rows import batched_rows

ROOT = Path(__file__).parents[3]
# 200 batches with temporaries of 16 MiB each, and results of 8 KiB; prints the most memory in MiB.
PROGRAM = """
import resource
import numpy as np
from generator.models.batched_rows import batched_rows
def compute(rows):
    large = bytearray(2**24)
    return np.ones((rows.stop - rows.start, 1024))
batched_rows(compute, 200, 1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("count", [0, 1, 4, 5, 11])
def test_every_row_is_in_its_place(count: int) -> None:
    values_N2 = np.arange(2 * count, dtype=np.int32).reshape(count, 2)
    found_N2 = batched_rows(lambda rows: values_N2[rows] + 1, count, 4)
    assert found_N2.dtype == np.int32
    assert np.array_equal(found_N2, values_N2 + 1)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_batches() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200
