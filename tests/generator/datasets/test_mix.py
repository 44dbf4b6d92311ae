"""Mixing by proportion: exact in every batch, whole in an epoch, the same on any number of ranks and workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from generator.datasets.mix import MixedDataset, mix
from generator.datasets.source_samples import source_samples
from generator.datasets.torch_dataset import open_dataset
from generator.errors import SpecError
from generator.models.bundle import push
from generator.sources.base import make_source
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.small_builds import SmallBuild

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata calls it
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
    per = "epoch" if epoch % 2 else "batch"
    plan = mix(list(zip(parts, shares, strict=True)), batch_size=size, length=length, per=per, uneven="keep")._plan
    slots = list(plan.slots(epoch, 0, length))
    assert len(slots) == length
    assert [plan.rows(part) for part in range(len(shares))] == [
        sum(slot.part == part for slot in slots) for part in range(len(shares))
    ]
    for part in range(len(shares)):
        assert [slot.row for slot in slots if slot.part == part] == list(range(plan.rows(part)))
    assert [next(iter(plan.slots(epoch, at, at + 1))) for at in range(0, length, 7)] == slots[::7]
    for part, share in enumerate(shares):
        rows = [row for number, row in slots if number == part]
        whole = length if per == "epoch" else length // size * size
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


def test_proportions_over_the_epoch_alone() -> None:
    found = batches(mix([(A, 0.5), (B, 0.5)], batch_size=10, per="epoch", stop="last"))
    totals = sum((kinds(batch) for batch in found), Counter[str]())
    assert totals == {"a": 50, "b": 50}
    assert len({kinds(batch)["a"] for batch in found}) > 1


class Numbers(IterableDataset[str]):
    """Samples that can only be iterated; ``known``: whether it states how many they are."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count, self.begun, self.epochs = name, count, 0, list[int]()

    def __iter__(self) -> Iterator[str]:
        self.begun += 1
        return (f"{self.name}{number}" for number in range(self.count))

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class Stateful(Numbers):
    """The same, with a state of its own; ``given`` counts the samples that it gave."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name, count)
        self.at = self.given = 0

    def __iter__(self) -> Iterator[str]:
        begin = self.at
        for number in range(begin, self.count):
            self.at, self.given = number + 1, self.given + 1
            yield f"{self.name}{number}"
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterable_dataset_is_mixed_and_begins_again_at_its_end(workers: int) -> None:
    numbers = Numbers("n", 7)
    dataset = mix([(numbers, 0.5), (A, 0.5)], batch_size=6)
    found = batches(dataset, workers)
    assert len(found) == len(dataset) == 10
    assert all(kinds(batch) == {"n": 3, "a": 3} for batch in found)
    given = [name for batch in found for name in batch if name[0] == "n"]
    assert given == [f"n{at % 7}" for at in range(30)]
    if not workers:
        assert numbers.epochs == [0, 1, 2, 3, 4]


def test_ranks_share_an_iterable_dataset_and_go_on_by_skipping() -> None:
    def part(rank: int, world: int) -> MixedDataset:
        return mix([(Numbers("n", 7), 0.5), (B, 0.5)], batch_size=4, length=64, rank=rank, world_size=world)

    alone = batches(part(0, 1))
    ranks = [batches(part(rank, 2)) for rank in range(2)]
    assert [ranks[step % 2][step // 2] for step in range(16)] == alone
    resumed = part(0, 1)
    resumed.load_state_dict(part(0, 1).state_dict(consumed=24))
    assert batches(resumed) == alone[6:]


def test_a_state_of_its_own_is_used_where_the_process_that_reads_gave_it() -> None:
    def dataset(numbers: Stateful) -> MixedDataset:
        return mix([(numbers, 0.5), (B, 0.5)], batch_size=4, length=80)

    whole = batches(dataset(Stateful("n", 23)))
    first = dataset(Stateful("n", 23))
    head = [next(steps) for steps in [iter(first)] for _ in range(13)]
    state = json.loads(json.dumps(first.state_dict()))
    again = Stateful("n", 23)
    resumed = dataset(again)
    resumed.load_state_dict(state)
    assert head + batches(resumed) == whole
    assert again.given == 40 - 26  # nothing was read only to be skipped
    loader = StatefulDataLoader(dataset(Stateful("n", 23)), batch_size=None, num_workers=1)
    steps = iter(loader)
    head = [list(next(steps)) for _ in range(5)]
    state = loader.state_dict()
    later = StatefulDataLoader(dataset(Stateful("n", 23)), batch_size=None, num_workers=1)
    later.load_state_dict(state)
    assert head + [list(batch) for batch in later] == whole
    resumed, later = dataset(Stateful("n", 23)), dataset(Stateful("n", 23))
    resumed.load_state_dict(first.state_dict())
    for each in (resumed, later):  # the state was one of another epoch
        each.set_epoch(1)
    assert batches(resumed) == batches(later)
    with pytest.raises(SpecError, match="this dataset takes none"):
        mix([(Numbers("n", 23), 0.5), (B, 0.5)], batch_size=4, length=80).load_state_dict(first.state_dict())
    state = first.state_dict() | {"own": {"0": {"row": -1}}}
    with pytest.raises(SpecError, match=r"state\.shares\[0\]"):
        dataset(Stateful("n", 23)).load_state_dict(state)


def test_an_iterable_dataset_needs_one_reader_and_samples() -> None:
    with pytest.raises(SpecError, match="at most one worker"):
        batches(mix([(Numbers("n", 7), 1)], batch_size=4, length=8), workers=2)
    with pytest.raises(SpecError, match="gives samples whenever"):
        batches(mix([(Numbers("n", 0), 1)], batch_size=4, length=8))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_builds_and_recipes_are_mixed_by_their_positions(workers: int, tmp_path: Path) -> None:
    SmallBuild(counts=(12, 12), shard_size=10).commit(str(tmp_path))
    root = open_store(str(tmp_path / "root"))
    digest = push(open_store(str(tiny_bundle(tmp_path / "b", classes=("round", "square")))), root)
    recipe = {"bundle": digest, "count": 20, "batch": 8, "seed": 1}

    def dataset(**options: Any) -> MixedDataset:
        stored = open_dataset(f"{tmp_path}/small", shuffle=True, seed=2)
        virtual = open_dataset(recipe=recipe, root=root.url, device="cpu")
        return mix([(stored, 0.25), (virtual, 0.75)], batch_size=8, length=80, **options)

    def read(mixed: MixedDataset) -> list[tuple[str, int, bytes]]:
        rows = []
        for batch in DataLoader(mixed, batch_size=None, num_workers=workers):
            facts = batch.provenance
            images = [image.numpy().tobytes() for image in batch.image]
            rows += list(zip(facts["recipe"], facts["index"].tolist(), images, strict=True))
        return rows

    whole = read(dataset())
    virtual = open_dataset(recipe=recipe, root=root.url, device="cpu")
    wanted = []
    for epoch in range(3):  # 60 samples of a recipe of 20: three passes, each with a seed of its own
        virtual.set_epoch(epoch)
        wanted += [(each.provenance["recipe"], each.provenance["index"], each.image.tobytes()) for each in virtual]
    stored = open_dataset(f"{tmp_path}/small", shuffle=True, seed=2)
    first = [(each.provenance["recipe"], each.provenance["index"], each.image.tobytes()) for each in stored]
    synthetic = {row[0] for row in wanted}
    assert [row for row in whole if row[0] in synthetic] == wanted
    assert [row for row in whole if row[0] not in synthetic] == first[:20]
    for step in range(10):
        batch = whole[8 * step : 8 * step + 8]
        assert sum(row[0] in synthetic for row in batch) == 6
    later = dataset()
    later.set_epoch(1)
    assert not {row[2] for row in read(later) if row[0] not in {first[0][0]}} & {row[2] for row in wanted}
    resumed = dataset(rank=1, world_size=2)
    resumed.load_state_dict(dataset().state_dict(consumed=32))
    assert read(resumed) == [row for step in (5, 7, 9) for row in whole[8 * step : 8 * step + 8]]
    other = open_dataset(recipe=recipe | {"seed": 2}, root=root.url, device="cpu")
    with pytest.raises(SpecError, match=r"state\.parts"):
        mix([(stored, 0.25), (other, 0.75)], batch_size=8, length=80).load_state_dict(dataset().state_dict(consumed=8))


def test_weights_by_a_column(tmp_path: Path) -> None:
    SmallBuild(counts=(12, 12), shard_size=6).commit(str(tmp_path))
    build = open_dataset(f"{tmp_path}/small", map_style=True)
    named = mix([(A, 0.5), (build, 0.5)], length=400, weights={1: "cluster"})
    drawn = [sample.provenance["cluster"] for sample in named if not isinstance(sample, str)]
    assert set(drawn) == {1, 2}
    assert 1.4 < Counter(drawn)[2] / Counter(drawn)[1] < 2.8
    dense = mix([(build, 1)], length=400, weights={0: "log_density"})
    found = Counter(sample.provenance["log_density"] for sample in dense)
    assert 3 < found[0.0] / found[-1.5] < 7  # exp(1.5) is 4.5
    for column, expected in (("label_confidence", "a value for every sample"), ("key", "numbers"), ("hue", "some of")):
        with pytest.raises(SpecError, match=expected) as refused:
            mix([(build, 1)], weights={0: column})
        assert refused.value.field == "weights[0]"


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
        ([(A, 1)], {"weights": {0: "label_confidence"}}, "weights[0]"),
        ([(Numbers("n", 7), 1)], {"weights": {0: np.ones(7)}, "length": 7}, "weights[0]"),
        ([(A, 1)], {"batch_size": -1}, "batch_size"),
        ([(A, 1)], {"per": "day"}, "per"),
        ([(7, 1)], {}, "shares[0]"),
        ([(Numbers("n", 7), 1)], {}, "length"),
    ],
)
def test_mixtures_that_cannot_be(shares: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        mix(shares, **options)
    assert refused.value.field == field


IMAGE = np.zeros((8, 8, 1), dtype=np.uint8)
SAMPLES = [(IMAGE, number % 3) for number in range(20)]


def test_pairs_and_pictures_of_pillow_are_mixed_with_a_build(tmp_path: Path) -> None:
    """As datasets of torchvision give them."""
    SmallBuild(counts=(12, 12)).commit(str(tmp_path))
    build = open_dataset(f"{tmp_path}/small", map_style=True, provenance=False)
    pictures = [(Image.fromarray(IMAGE[:, :, 0]), np.int64(number % 3)) for number in range(20)]
    for other in (SAMPLES, pictures, [(IMAGE, torch.tensor(1))] * 20):
        for image, label, provenance in mix([(build, 0.5), (other, 0.5)], batch_size=8):
            assert (image.shape, image.dtype, label.dtype) == ((8, 8, 8, 1), torch.uint8, torch.int64)
            assert provenance == {}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ([(np.zeros((16, 16, 1), np.uint8), 1)] * 20, r"uint8 \(16, 16, 1\)"),
        ([(np.zeros((1, 8, 8), np.uint8), 1)] * 20, r"uint8 \(1, 8, 8\)"),
        ([(IMAGE, "cat")] * 20, "label str"),
        (["text"] * 20, "a str"),
    ],
    ids=["size", "channels first", "text label", "text"],
)
def test_samples_of_several_forms_are_named(tmp_path: Path, other: Any, said: str) -> None:
    SmallBuild(counts=(12, 12)).commit(str(tmp_path))
    build = open_dataset(f"{tmp_path}/small", map_style=True, provenance=False)
    with pytest.raises(SpecError, match=f"shares: expected samples of one form.*{said}"):
        list(mix([(build, 0.5), (other, 0.5)], batch_size=8))


def test_provenance_beside_none_is_named(tmp_path: Path) -> None:
    SmallBuild(counts=(12, 12)).commit(str(tmp_path))
    build = open_dataset(f"{tmp_path}/small", map_style=True)
    with pytest.raises(SpecError, match=r"no fields of provenance.*provenance=False"):
        list(mix([(build, 0.5), (SAMPLES, 0.5)], batch_size=8))


def test_what_is_no_pair_is_named() -> None:
    with pytest.raises(SpecError, match=r"shares\[0\]: expected a dataset and its share"):
        mix([A, B])  # type: ignore[list-item]
