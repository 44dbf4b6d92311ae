"""Results in batches: every row in its place."""

from __future__ import annotations

import numpy as np
import pytest

from generator.models.batched_rows import batched_rows


@pytest.mark.parametrize("count", [0, 1, 4, 5, 11])
def test_every_row_is_in_its_place(count: int) -> None:
    values_N2 = np.arange(2 * count, dtype=np.int32).reshape(count, 2)
    found_N2 = batched_rows(lambda rows: values_N2[rows] + 1, count, 4)
    assert found_N2.dtype == np.int32
    assert np.array_equal(found_N2, values_N2 + 1)
