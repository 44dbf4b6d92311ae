"""Law 1 for noise: it depends only on (seed, index, attempt), for any batching of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from generator.spec.seeding import noise, permutation

rows = st.lists(st.tuples(st.integers(0, 10**9 - 1), st.integers(0, 9_999)), min_size=1, max_size=40)
seeds = st.integers(0, 2**63 - 1)
dims = st.integers(1, 70)


def drawn(seed: int, pairs: list[tuple[int, int]], width: int) -> np.ndarray:
    index, attempt = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    made = noise(seed, index, attempt, width)
    return np.column_stack([made.choice_B, made.normal_BD])


@given(seeds, rows, dims, st.sampled_from([1, 3, 7]))
def test_any_batching_gives_the_same_noise(seed: int, pairs: list[tuple[int, int]], width: int, batch: int) -> None:
    whole = drawn(seed, pairs, width)
    parts = [drawn(seed, pairs[start : start + batch], width) for start in range(0, len(pairs), batch)]
    assert np.array_equal(whole, np.concatenate(parts))


@given(seeds, rows, dims, st.randoms())
def test_any_order_gives_the_same_noise(seed: int, pairs: list[tuple[int, int]], width: int, random: object) -> None:
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert np.array_equal(drawn(seed, pairs, width)[order], drawn(seed, [pairs[at] for at in order], width))


@given(seeds, st.integers(0, 10**9 - 300), dims)
def test_a_run_of_indices_is_its_rows(seed: int, start: int, width: int) -> None:
    pairs = [(start + step, 0) for step in range(20)]
    assert np.array_equal(drawn(seed, pairs, width), np.concatenate([drawn(seed, [pair], width) for pair in pairs]))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 24])
def test_indices_attempts_and_seeds_share_no_noise(width: int) -> None:
    pairs = [(index, attempt) for index in range(50) for attempt in range(20)]
    values = np.concatenate([drawn(seed, pairs, width).ravel() for seed in (0, 1, 2**63 - 1)])
    assert len(np.unique(values)) == len(values)


def test_noise_has_the_distributions_it_claims() -> None:
    made = noise(3, np.arange(20_000), np.zeros(20_000, dtype=np.int64), 8)
    assert stats.kstest(made.choice_B, "uniform").pvalue > 1e-3
    assert stats.kstest(made.normal_BD.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(np.column_stack([made.choice_B, made.normal_BD]), rowvar=False)
    assert np.abs(correlation - np.eye(9)).max() < 0.03
    assert np.isfinite(made.normal_BD).all()


def test_noise_is_what_it_was() -> None:
    """Guards refactoring: ``recipe_version`` 1 promises these numbers to every recipe."""
    made = noise(7, np.array([0, 123_456_789]), np.array([0, 5]), 2)
    assert [value.hex() for value in made.choice_B] == GOLDEN_CHOICE
    assert np.allclose(made.normal_BD, GOLDEN_NORMAL, rtol=1e-14)


@given(seeds, st.integers(0, 10**6), st.integers(0, 300))
def test_permutations_are_permutations(seed: int, stream: int, size: int) -> None:
    assert sorted(permutation(seed, stream=stream, size=size).tolist()) == list(range(size))


GOLDEN_CHOICE = ["0x1.31e8385ab230cp-3", "0x1.0aa79715b2b1ep-2"]
GOLDEN_NORMAL = [[0.41267086841182465, -0.6645691634854848], [0.21215221429668824, -0.5413771521856522]]
