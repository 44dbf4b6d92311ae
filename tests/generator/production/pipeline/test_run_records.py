"""Run records: their sums, and objects below ``runs/`` that are not run records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from generator.production.pipeline.run_costs import pace
from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.stage_times import STAGES
from generator.store import open_store
from generator.store.base import Store


def run(**changes: object) -> bytes:
    seconds = dict.fromkeys(STAGES, 0.0) | {"decode": 1.5, "encode": 0.5}
    return json.dumps(
        {"shard": 0, "samples": 100, "refused": 0, "elapsed_seconds": 2.0, "seconds": seconds} | changes
    ).encode()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "build"))


def test_nothing_is_known_before_the_first_shard(store: Store) -> None:
    assert pace(store) is None


def test_shards_are_added_up(store: Store) -> None:
    store.put("runs/a.json", run())
    store.put("runs/b.json", run(shard=1, samples=300, elapsed_seconds=3.0))
    found = pace(store)
    assert found is not None
    assert found.shards == 2
    assert found.images_per_second == 80.0
    assert found.device_seconds_per_image == pytest.approx(3.0 / 400)
    assert found.share["decode"] == 75.0
    assert sum(found.share.values()) == pytest.approx(100.0)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", run(samples=0), run(elapsed_seconds=-1.0), run(seconds={"lunch": 1.0})]
)
def test_what_does_not_parse_is_skipped(store: Store, data: bytes) -> None:
    store.put("runs/a.json", run())
    before = pace(store)
    store.put("runs/odd.json", data)
    assert pace(store) == before
    assert before is not None
    assert before.shards == 1


def test_fields_that_later_releases_add_are_ignored() -> None:
    assert RunRecord.model_validate_json(run(gpu="H200")).shard == 0
