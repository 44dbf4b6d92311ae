"""Properties of the split into training and holdout images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.errors import SourceError
from generator.sources import split

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(lambda labels: np.array(labels, dtype=np.int64))
SHARES = st.floats(0.001, 0.999)
SEEDS = st.integers(0, 2**63 - 1)


@given(LABELS, SHARES, SEEDS)
def test_every_image_is_on_exactly_one_side(labels_N: np.ndarray, holdout: float, seed: int) -> None:
    for labels in (labels_N, None):
        parts = split(len(labels_N), labels, holdout=holdout, seed=seed)
        both_N = np.concatenate([parts.train_N, parts.holdout_N])
        assert sorted(both_N.tolist()) == list(range(len(labels_N)))
        assert both_N.dtype == np.int64
        for side_N in (parts.train_N, parts.holdout_N):
            assert (np.diff(side_N) > 0).all()


@given(LABELS, SHARES, SEEDS)
def test_every_class_is_on_both_sides_in_proportion(labels_N: np.ndarray, holdout: float, seed: int) -> None:
    parts = split(len(labels_N), labels_N, holdout=holdout, seed=seed)
    for label in np.unique(labels_N):
        size = int((labels_N == label).sum())
        held = int((labels_N[parts.holdout_N] == label).sum())
        if size == 1:
            assert held == 0
        else:
            assert 1 <= held <= size - 1
            assert abs(held - holdout * size) <= 0.5 or held in (1, size - 1)


@given(LABELS, SHARES, SEEDS)
def test_the_same_arguments_give_the_same_split(labels_N: np.ndarray, holdout: float, seed: int) -> None:
    first = split(len(labels_N), labels_N, holdout=holdout, seed=seed)
    again = split(len(labels_N), labels_N.copy(), holdout=holdout, seed=seed)
    np.testing.assert_array_equal(first.train_N, again.train_N)


@given(LABELS, LABELS, SHARES, SEEDS)
def test_a_class_is_split_alone(one_N: np.ndarray, other_N: np.ndarray, holdout: float, seed: int) -> None:
    """Images of other classes, put before or behind, do not change which images of a class are held out."""
    labels_N = np.concatenate([one_N, other_N + 7])
    together = split(len(labels_N), labels_N, holdout=holdout, seed=seed)
    alone = split(len(one_N), one_N, holdout=holdout, seed=seed)
    inside_N = together.holdout_N[together.holdout_N < len(one_N)]
    np.testing.assert_array_equal(inside_N, alone.holdout_N)


def test_the_seed_matters_and_the_default_share_is_a_tenth() -> None:
    splits = [split(1000, None, seed=seed).holdout_N for seed in range(5)]
    assert {len(holdout_N) for holdout_N in splits} == {100}
    assert len({tuple(holdout_N.tolist()) for holdout_N in splits}) == 5


def test_classes_of_one_size_are_not_split_at_the_same_places() -> None:
    holdout_N = split(1000, np.repeat([0, 1], 500), seed=3).holdout_N
    assert len(holdout_N) == 100
    assert set(holdout_N[:50].tolist()) != set((holdout_N[50:] - 500).tolist())


def test_every_image_is_held_out_equally_often() -> None:
    held_N = np.zeros(50)
    for seed in range(600):
        held_N[split(50, None, holdout=0.2, seed=seed).holdout_N] += 1
    spread = np.sqrt(600 * 0.2 * 0.8)
    assert np.abs(held_N - 120).max() < 5 * spread


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(holdout: float) -> None:
    with pytest.raises(SourceError, match="holdout"):
        split(10, None, holdout=holdout)
