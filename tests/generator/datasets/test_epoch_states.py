"""Batches for ranks and workers, and states: nothing is lost or repeated, whatever their numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from generator.datasets.epoch_order import BatchPlan
from generator.datasets.shard_cache import ShardCache
from generator.datasets.torch_dataset import Dataset, open_dataset
from generator.errors import IntegrityError, ObjectMissing, SettingsError, SpecError
from generator.store.local import LocalStore
from tests.support.small_builds import SmallBuild

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata calls it
]

TOTAL = 53
UNEVEN = st.sampled_from(["drop", "pad", "keep"])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("out")
    SmallBuild(counts=(30, 23), shard_size=10).commit(str(path))
    return f"{path}/small"


def shuffled(url: str, **options: Any) -> Dataset:
    return open_dataset(url, shuffle=True, seed=5, **options)


def indices(batches: Any) -> list[list[int]]:
    return [batch.provenance["index"].tolist() for batch in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


@given(
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from(["drop", "pad", "keep"]),
    st.integers(0, 60),
)
def test_a_plan_deals_every_position_once(size: int, world: int, workers: int, uneven: Any, start: int) -> None:
    total = 60
    dealt: list[int] = []
    counts = []
    for rank in range(world):
        plan = BatchPlan(size, rank, world, uneven)
        streams = [list(plan.spans(start, total, worker, workers)) for worker in range(workers)]
        counts.append(sum(map(len, streams)))
        assert counts[-1] == plan.count(total - start)
        dealt += [p for stream in streams for spans in stream for begin, end in spans for p in range(begin, end)]
    found, wanted = Counter(dealt), set(range(start, total))
    if uneven == "keep":
        assert found == Counter(wanted)
        assert max(counts) - min(counts) <= 1
        return
    assert len(set(counts)) == 1
    if uneven == "drop":
        assert max(found.values(), default=0) <= 1
        assert set(found) <= wanted
        assert len(wanted) - len(found) < size * world
    else:
        assert wanted <= set(found) or not wanted
        assert len(dealt) - len(wanted) < size * world


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_len_is_exact_and_ranks_are_equal(url: str, workers: int) -> None:
    found = []
    for rank in range(2):
        dataset = shuffled(url, batch_size=4, rank=rank, world_size=2)
        loader = DataLoader(dataset, batch_size=None, num_workers=workers)
        batches = indices(loader)
        assert len(batches) == len(loader) == len(dataset) == 6
        assert {len(batch) for batch in batches} == {4}
        found += flat(batches)
    assert len(set(found)) == 48
    whole = flat(indices(DataLoader(shuffled(url, batch_size=5, uneven="keep"), batch_size=None, num_workers=workers)))
    assert sorted(whole) == list(range(TOTAL))
    padded = DataLoader(shuffled(url, batch_size=5, uneven="pad"), batch_size=None, num_workers=workers)
    assert [len(batch) for batch in indices(padded)] == [5] * 11


@pytest.mark.server
def test_the_order_does_not_depend_on_ranks_and_workers(url: str) -> None:
    alone = flat(indices(shuffled(url, batch_size=3, uneven="keep")))
    for world in (2, 3):
        for workers in (0, 2):
            ranks = [
                indices(
                    DataLoader(
                        shuffled(url, batch_size=3, uneven="keep", rank=rank, world_size=world),
                        batch_size=None,
                        num_workers=workers,
                    )
                )
                for rank in range(world)
            ]
            steps = max(map(len, ranks))
            together = [
                index for step in range(steps) for rank in ranks for index in (rank[step] if step < len(rank) else [])
            ]
            assert together == alone


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_going_on_with_other_ranks_and_workers(url: str, workers: int, persistent: bool) -> None:
    if persistent and not workers:
        pytest.skip("persistent workers need workers")
    first = [shuffled(url, batch_size=4, rank=rank, world_size=3) for rank in range(3)]
    for dataset in first:
        dataset.set_epoch(2)
    streams = [iter(dataset) for dataset in first]
    seen = flat([next(stream).provenance["index"].tolist() for _ in range(2) for stream in streams])
    state = json.loads(json.dumps(first[0].state_dict(consumed=24)))
    assert len(json.dumps(state)) < 1000
    later: list[int] = []
    for rank in range(2):
        dataset = shuffled(url, batch_size=7, uneven="keep", rank=rank, world_size=2)
        dataset.load_state_dict(state)
        dataset.set_epoch(2)
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=persistent)
        batches = indices(loader)
        later += flat(batches)
        dataset.set_epoch(3)
        whole = indices(loader)
        assert len(whole) == len(dataset) == [4, 4][rank]
        assert len(flat(indices(loader))) == len(flat(whole))
    assert sorted(seen + later) == list(range(TOTAL))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_epoch_after_a_resumed_one_is_whole(url: str, workers: int) -> None:
    """Also without ``set_epoch``: a known trap of readers that keep the position."""
    for persistent in {False, workers > 0}:
        dataset = open_dataset(url, batch_size=4, uneven="keep")
        dataset.load_state_dict(open_dataset(url, batch_size=9).state_dict(consumed=40))
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=persistent)
        assert [len(flat(indices(loader))) for _ in range(3)] == [13, TOTAL, TOTAL]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batched", [False, True])
def test_stateful_data_loaders(url: str, workers: int, batched: bool) -> None:
    def loader() -> StatefulDataLoader:
        dataset = shuffled(url, batch_size=4, uneven="keep") if batched else shuffled(url)
        return StatefulDataLoader(
            dataset, batch_size=None if batched else 4, num_workers=workers, persistent_workers=workers > 0
        )

    whole = flat(indices(loader()))
    assert sorted(whole) == list(range(TOTAL))
    interrupted = loader()
    stream = iter(interrupted)
    seen = flat([next(stream).provenance["index"].tolist() for _ in range(5)])
    state = interrupted.state_dict()
    again = loader()
    again.load_state_dict(state)
    assert seen + flat(indices(again)) == whole
    assert flat(indices(again)) == whole  # the next epoch is not shortened


def test_a_plain_loader_with_workers_must_say_what_was_consumed(url: str) -> None:
    dataset = shuffled(url, batch_size=4)
    next(iter(DataLoader(dataset, batch_size=None, num_workers=2)))
    with pytest.raises(SpecError, match="consumed"):
        dataset.state_dict()
    assert dataset.state_dict(consumed=4)["position"] == 4


@pytest.mark.parametrize("consumed", [4, np.int64(4), torch.tensor(4)], ids=["int", "numpy", "torch"])
def test_any_whole_number_is_consumed(url: str, consumed: Any) -> None:
    state = shuffled(url, batch_size=4).state_dict(consumed=consumed)
    assert type(state["position"]) is int
    shuffled(url, batch_size=4).load_state_dict(json.loads(json.dumps(state)))


@pytest.mark.parametrize("consumed", [4.0, True, "4", -1, 10**6], ids=str)
def test_what_is_no_number_of_samples_is_refused_when_it_is_saved(url: str, consumed: Any) -> None:
    with pytest.raises(SpecError, match="consumed: expected"):
        shuffled(url, batch_size=4).state_dict(consumed=consumed)


@pytest.mark.parametrize("uneven", ["pad", "keep"])
def test_the_last_steps_of_an_epoch_end_it(url: str, uneven: Any) -> None:
    """Batches times ranks may be more than there are samples."""
    dataset = shuffled(url, batch_size=4, uneven=uneven, rank=0, world_size=3)
    state = dataset.state_dict(consumed=len(dataset) * 4 * 3)
    assert state["position"] == dataset.samples


def test_a_state_of_this_process_alone(url: str) -> None:
    dataset = shuffled(url)
    stream = iter(dataset)
    seen = [next(stream).provenance["index"] for _ in range(17)]
    other = shuffled(url)
    other.load_state_dict(dataset.state_dict())
    rest = [sample.provenance["index"] for sample in other]
    assert sorted(seen + rest) == list(range(TOTAL))
    assert len(list(other)) == TOTAL


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"build": "0" * 20}, "state.build"),
        ({"state": 2}, "state.state"),
        ({"seed": 6}, "state.seed"),
        ({"where": "label == 1"}, "state.where"),
        ({"position": -1}, "state.position"),
        ({"position": 54}, "state.position"),
        ({"epoch": "1"}, "state.epoch"),
        ({"reader": [1, 4, 0, 1]}, "state.reader"),
    ],
)
def test_states_of_something_else(url: str, change: dict[str, Any], field: str) -> None:
    dataset = shuffled(url)
    with pytest.raises(SpecError) as refused:
        dataset.load_state_dict({**dataset.state_dict(consumed=3), **change})
    assert refused.value.field == field
    with pytest.raises(SpecError, match="what state_dict gave"):
        dataset.load_state_dict(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"uneven": "guess"}, "uneven"),
        ({"rank": 1}, "rank"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"world_size": 0, "rank": 0}, "rank"),
    ],
)
def test_options_that_cannot_be(url: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        open_dataset(url, **options)
    assert refused.value.field == field


def test_rank_and_world_size_of_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(open_dataset(url, batch_size=4)) == 6
    assert len(open_dataset(url, batch_size=4, rank=0, world_size=1)) == 13
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(SpecError, match="RANK"):
        open_dataset(url)


_TRAINING = """
import sys
from torch import distributed
from torch.utils.data import DataLoader
from generator import open_dataset
distributed.init_process_group("gloo")
dataset = open_dataset(sys.argv[1], shuffle=True, seed=5, batch_size=4, provenance=False)
loader = DataLoader(dataset, batch_size=None, num_workers=1)
counts = []
for batch in loader:
    assert batch.provenance == {}
    distributed.barrier()
    counts.append(len(batch.label))
sys.stdout.write(f"batches {distributed.get_rank()} {len(loader)} {counts}\\n")  # one write: ranks share a pipe
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_under_torchrun(url: str, tmp_path: Path) -> None:
    script = tmp_path / "training.py"
    script.write_text(_TRAINING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), url]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("batches"))
    assert lines == [f"batches {rank} 6 [4, 4, 4, 4, 4, 4]" for rank in range(2)]


def test_the_second_epoch_reads_nothing(tmp_path: Path) -> None:
    """It goes on when the shards are gone; a damaged copy is fetched again."""
    SmallBuild(counts=(30, 23), shard_size=10).commit(str(tmp_path))
    dataset = shuffled(f"{tmp_path}/small", cache=tmp_path / "cache")
    assert len(list(dataset)) == TOTAL
    shards = Path(dataset.url.removeprefix("file://")) / "shards"
    shards.rename(tmp_path / "away")
    dataset.set_epoch(1)
    assert len(list(dataset)) == TOTAL
    (first, *_) = sorted((tmp_path / "cache" / "shards").iterdir())
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    with pytest.raises(ObjectMissing):
        list(dataset)
    (tmp_path / "away").rename(shards)
    assert len(list(dataset)) == TOTAL


def test_a_small_cache_and_one_that_cannot_be(url: str, tmp_path: Path) -> None:
    dataset = shuffled(url, cache=tmp_path / "cache", cache_bytes=70_000)
    for _ in range(2):
        assert len(list(dataset)) == TOTAL
    kept = list((tmp_path / "cache" / "shards").iterdir())
    assert 0 < sum(path.stat().st_size for path in kept) <= 70_000
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cache"):
        list(shuffled(url, cache=tmp_path / "file"))


def test_a_shard_that_changed_is_not_cached(url: str, tmp_path: Path) -> None:
    file = shuffled(url).manifest.shards[0].shard
    changed = LocalStore(tmp_path / "changed")
    changed.put(file.key, b"other bytes")
    with pytest.raises(IntegrityError):
        ShardCache(tmp_path / "cache", 10**9).whole(changed, file)
    assert list((tmp_path / "cache" / "shards").iterdir()) == []
