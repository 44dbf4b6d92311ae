"""Options of readers that cannot be: typed errors before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.datasets.mix import mix
from generator.datasets.torch_dataset import open_dataset
from generator.errors import SpecError
from tests.support.small_builds import SmallBuild

NUMBERS = list(range(30))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 13 samples in 3 shards of some kilobytes."""
    home = tmp_path_factory.mktemp("out")
    SmallBuild(counts=(7, 6), shard_size=5).commit(str(home))
    return home / "small"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": "8"}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"rank": "a", "world_size": 2}, "rank"),
        ({"rank": 0, "world_size": 2.0}, "world_size"),
        ({"rank": 0}, "rank"),
        ({"seed": -1}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"uneven": "round"}, "uneven"),
        ({"where": 5}, "where"),
        ({"transform": "resize"}, "transform"),
        ({"shuffle": "no"}, "shuffle"),
        ({"map_style": 1}, "map_style"),
        ({"soft_labels": "yes"}, "soft_labels"),
        ({"provenance": None}, "provenance"),
        ({"cache": 5}, "cache"),
        ({"cache_bytes": 0}, "cache_bytes"),
        ({"cache_bytes": "1 GB"}, "cache_bytes"),
        ({"s3": "https://example.org"}, "s3"),
        ({"device": 0}, "device"),
        ({"map_style": True, "shuffle": True}, "shuffle"),
        ({"map_style": True, "batch_size": 4}, "batch_size"),
        ({"map_style": True, "rank": 0, "world_size": 1}, "rank"),
    ],
)
def test_an_option_of_another_kind_is_named(build: Path, options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        open_dataset(str(build), **options)
    assert refused.value.field == field


@pytest.mark.parametrize("url", [5, b"out/small", None])
def test_a_url_of_another_kind_is_named(url: Any) -> None:
    with pytest.raises(SpecError) as refused:
        open_dataset(url)
    assert refused.value.field in ("url", "recipe")


def test_paths_and_integers_of_numpy_are_accepted(build: Path, tmp_path: Path) -> None:
    dataset = open_dataset(build, batch_size=np.int64(4), seed=np.uint8(3), shuffle=True, cache=str(tmp_path))
    assert [len(labels) for _, labels, _ in dataset] == [4, 4, 4]
    assert open_dataset(build).url == open_dataset(str(build)).url


def test_batches_of_which_an_epoch_has_none_are_refused(build: Path) -> None:
    with pytest.raises(SpecError, match=r"batch_size: expected at most 13 of 13 samples.*uneven='pad'"):
        open_dataset(build, batch_size=14)
    with pytest.raises(SpecError, match="batch_size: expected at most 6 of 13 samples for each of 2 ranks"):
        open_dataset(build, batch_size=7, rank=0, world_size=2)
    with pytest.raises(SpecError, match="batch_size"):
        mix([(NUMBERS, 1)], batch_size=31)
    for uneven, lengths in (("pad", [14]), ("keep", [13])):
        assert [len(labels) for _, labels, _ in open_dataset(build, batch_size=14, uneven=uneven)] == lengths


def test_a_rest_without_a_whole_batch_ends_an_epoch_that_is_gone_on_from(build: Path) -> None:
    dataset = open_dataset(build, batch_size=8)
    state = dataset.state_dict(consumed=8)
    dataset.load_state_dict(state)
    assert list(dataset) == []
    assert len(list(dataset)) == 1


def test_a_cache_without_room_for_a_shard_is_refused(build: Path, tmp_path: Path) -> None:
    size = open_dataset(build).manifest.shards[0].shard.size
    with pytest.raises(SpecError, match=f"cache_bytes: expected at least {size}"):
        open_dataset(build, cache=tmp_path, cache_bytes=size - 1)
    assert len(list(open_dataset(build, cache=tmp_path, cache_bytes=size))) == 13


def test_a_world_without_a_rank_is_refused(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match="rank: expected RANK beside WORLD_SIZE"):
        open_dataset(build)
    monkeypatch.setenv("RANK", "1")
    assert len(open_dataset(build)) == 7
    monkeypatch.delenv("RANK")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert len(open_dataset(build)) == 13


@pytest.mark.parametrize("missing", ["epoch", "position"])
def test_a_state_without_its_place_is_refused(build: Path, missing: str) -> None:
    dataset = open_dataset(build)
    state = dataset.state_dict(consumed=3)
    del state[missing]
    with pytest.raises(SpecError) as refused:
        dataset.load_state_dict(state)
    assert refused.value.field == f"state.{missing}"


@pytest.mark.parametrize("root", [None, 5, ["a"]])
def test_a_root_of_another_kind_is_named(root: Any) -> None:
    with pytest.raises(SpecError) as refused:
        open_dataset(recipe={"bundle": "sha256:" + "0" * 64, "count": 3}, root=root)
    assert refused.value.field == "root"


@pytest.mark.parametrize(
    ("shares", "options", "field"),
    [
        ("ab", {}, "shares"),
        (7, {}, "shares"),
        ([(NUMBERS, 1)], {"seed": 1.5}, "seed"),
        ([(NUMBERS, 1)], {"length": 2.5}, "length"),
        ([(NUMBERS, 1)], {"length": True}, "length"),
        ([(NUMBERS, 1)], {"weights": [np.ones(30)]}, "weights"),
        ([(NUMBERS, 1)], {"weights": {"a": np.ones(30)}}, "weights"),
        ([(NUMBERS, 1)], {"weights": {0: "x" * 3}}, "weights[0]"),
        ([(NUMBERS, 1)], {"weights": {0: [["a"]]}}, "weights[0]"),
    ],
)
def test_options_of_mixtures_of_another_kind_are_named(shares: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        mix(shares, **options)
    assert refused.value.field == field


def test_a_state_of_a_mixture_with_other_weights_is_refused() -> None:
    weights = np.arange(1.0, 31.0)
    state = mix([(NUMBERS, 1)], weights={0: weights}).state_dict(consumed=3)
    mix([(NUMBERS, 1)], weights={0: weights}).load_state_dict(state)
    for other in ({0: weights[::-1]}, {}):
        with pytest.raises(SpecError, match=r"state\.parts"):
            mix([(NUMBERS, 1)], weights=other).load_state_dict(state)
