"""Mixing by proportion: exact in every batch, whole in an epoch, the same on any number of ranks and workers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from generator.datasets.mix import MixedDataset, mix
from generator.datasets.source_samples import source_samples
from generator.datasets.torch_dataset import open_dataset
from generator.errors import SpecError
from generator.sources.base import make_source
from tests.support.small_builds import SmallBuild

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
A, B, C = ([f"{name}{number}" for number in range(count)] for name, count in (("a", 30), ("b", 50), ("c", 7)))


def batches(dataset: MixedDataset, workers: int = 0) -> list[list[str]]:
    return [list(batch) for batch in DataLoader(dataset, batch_size=None, num_workers=workers)]


def kinds(batch: list[str]) -> Counter[str]:
    return Counter(name[0] for name in batch)


def test_proportions_hold_in_every_batch() -> None:
    found = batches(mix([(A, 0.5), (B, 0.25), (C, 0.25)], batch_size=8, stop="last"))
    assert all(kinds(batch) == {"a": 4, "b": 2, "c": 2} for batch in found)
    thirds = batches(mix([(A, 1), (B, 1), (C, 1)], batch_size=8, length=240))
    totals = sum((kinds(batch) for batch in thirds), Counter[str]())
    assert totals == {"a": 80, "b": 80, "c": 80}
    assert all(max(kinds(batch).values()) <= 3 for batch in thirds)


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(1, 20), st.integers(0, 5), st.integers(1, 300)
)
@example([1.0, 1.0, 1.0, 0.125, 0.125], 1, 0, 14)  # a dataset that is ahead by more than a block
def test_any_proportions(shares: list[float], size: int, epoch: int, length: int) -> None:
    parts = [[(part, row) for row in range(40)] for part in range(len(shares))]
    plan = mix(list(zip(parts, shares, strict=True)), batch_size=size, length=length)._plan
    slots = list(plan.slots(epoch, 0, length))
    assert len(slots) == length
    assert [next(iter(plan.slots(epoch, at, at + 1))) for at in range(0, length, 7)] == slots[::7]
    for part, share in enumerate(shares):
        rows = [row for number, row in slots if number == part]
        whole = length // size * size
        due = share / sum(shares) * whole
        assert abs(sum(number == part for number, _ in slots[:whole]) - due) <= len(shares)
        assert len(set(rows)) == len(rows)


def test_stopping_rules() -> None:
    first = batches(mix([(A, 0.5), (B, 0.5)], batch_size=10))
    assert Counter(name for batch in first for name in batch if name[0] == "a") == Counter(A)
    last = [name for batch in batches(mix([(A, 0.5), (B, 0.5)], batch_size=10, stop="last")) for name in batch]
    counts = Counter(last)
    assert {counts[name] for name in B} == {1}
    assert {counts[name] for name in A} == {1, 2}
    assert len(list(mix([(A, 3), (B, 1)], length=25))) == 25


def test_epochs_and_seeds_differ() -> None:
    dataset = mix({tuple(A): 0.5, tuple(B): 0.5}, batch_size=10)
    orders = {tuple(batches(dataset)[0])}
    dataset.set_epoch(1)
    orders |= {tuple(batches(dataset)[0]), tuple(batches(mix([(A, 0.5), (B, 0.5)], batch_size=10, seed=1))[0])}
    assert len(orders) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_workers_and_states(workers: int) -> None:
    def part(rank: int, world: int) -> MixedDataset:
        return mix([(A, 0.5), (B, 0.5)], batch_size=6, rank=rank, world_size=world, uneven="keep")

    alone = batches(part(0, 1))
    ranks = [batches(part(rank, 2), workers) for rank in range(2)]
    assert [ranks[step % 2][step // 2] for step in range(len(alone))] == alone
    state = part(0, 1).state_dict(consumed=18)
    later = [part(rank, 3) for rank in range(3)]
    for dataset in later:
        dataset.load_state_dict(state)
    rest = [batches(dataset, workers) for dataset in later]
    assert [rest[step % 3][step // 3] for step in range(len(alone) - 3)] == alone[3:]
    with pytest.raises(SpecError, match=r"state\.mix"):
        mix([(A, 0.4), (B, 0.6)], batch_size=6, length=60).load_state_dict(state)


def test_weights() -> None:
    weights = np.zeros(len(B))
    weights[[3, 7]] = 1.0, 3.0
    dataset = mix([(A, 0.5), (B, 0.5)], batch_size=10, length=800, weights={1: weights})
    drawn = Counter(name for batch in batches(dataset) for name in batch if name[0] == "b")
    assert set(drawn) == {"b3", "b7"}
    assert 2.2 < drawn["b7"] / drawn["b3"] < 4.0


def test_real_images_beside_a_build(tmp_path: Path) -> None:
    small = SmallBuild(counts=(12, 12), shard_size=10)
    small.commit(str(tmp_path))
    rng = np.random.default_rng(0)
    names = ("square", "round")  # another order than the build's
    source = make_source(rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8), np.arange(20) % 2, names, name="real")
    synthetic = open_dataset(f"{tmp_path}/small", map_style=True, provenance=False)
    real = source_samples(source, synthetic.classes)
    assert (synthetic.classes, real[0].label, real[1].label) == (("round", "square"), 1, 0)
    loader = DataLoader(mix([(real, 0.5), (synthetic, 0.5)], batch_size=8), batch_size=None, num_workers=2)
    found = list(loader)
    assert len(found) == len(loader) == 5
    assert {tuple(batch.image.shape) for batch in found} == {(8, 8, 8, 1)}
    with pytest.raises(SpecError, match="also 'square'"):
        source_samples(source, ("round",))


@pytest.mark.parametrize(
    ("shares", "options", "field"),
    [
        ([], {}, "shares"),
        ([(A, 0.0)], {}, "shares[0]"),
        ([(A, 1), (B, float("nan"))], {}, "shares[1]"),
        ([(iter(A), 1)], {}, "shares[0]"),
        ([([], 1)], {}, "shares[0]"),
        ([(A, 1)], {"stop": "never"}, "stop"),
        ([(A, 1)], {"length": 0}, "length"),
        ([(A, 1)], {"weights": {1: np.ones(30)}}, "weights[1]"),
        ([(A, 1)], {"weights": {0: np.ones(29)}}, "weights[0]"),
        ([(A, 1)], {"weights": {0: np.zeros(30)}}, "weights[0]"),
        ([(A, 1)], {"weights": {0: -np.ones(30)}}, "weights[0]"),
        ([(A, 1)], {"batch_size": -1}, "batch_size"),
    ],
)
def test_mixtures_that_cannot_be(shares: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        mix(shares, **options)
    assert refused.value.field == field
