"""Costs of a build: sums, partial reads of many run records, and untrusted run records and reports."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from generator.curation.costs import report_of
from generator.production.pipeline.run_costs import sum_costs
from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.run_records import read_run_records
from generator.production.pipeline.stage_times import STAGES
from generator.store import open_store
from tests.support.small_builds import SmallBuild

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def run(number: int, begin: float, end: float, *, process: str = "a", **changes: object) -> RunRecord:
    """A record of 100 images in 10,000 bytes; begin and end in seconds after midnight; half of the time is decoding."""
    seconds = dict.fromkeys(STAGES, 0.0) | {"decode": (end - begin) / 2, "encode": (end - begin) / 2}
    facts = {
        "shard": number,
        "samples": 100,
        "refused": 25,
        "bytes": 10_000,
        "ended": MIDNIGHT + timedelta(seconds=end),
        "elapsed_seconds": end - begin,
        "process": process,
        "device": "cpu/x86_64/AVX2",
        "execution": "eager",
        "peak_device_bytes": 1000 + number,
        "seconds": seconds,
        "processor_seconds": seconds,
    }
    return RunRecord.model_validate(facts | changes)


def test_nothing_costs_nothing() -> None:
    assert sum_costs([]) is None


def test_two_processes_side_by_side() -> None:
    cost = sum_costs([run(0, 0, 4), run(1, 0, 6, process="b"), run(2, 6, 10)])
    assert cost is not None
    assert (cost.runs, cost.shards, cost.samples, cost.made, cost.refused, cost.bytes) == (3, 3, 300, 300, 75, 30_000)
    assert (cost.began, cost.ended, cost.wall_seconds) == (MIDNIGHT, MIDNIGHT + timedelta(seconds=10), 10.0)
    assert (cost.processes, cost.process_seconds) == (2, 14.0)
    assert cost.images_per_second == round(300 / 14, 1)
    assert cost.device_seconds_per_image == round(7 / 300, 7)
    assert cost.price_per_million(3.6) == pytest.approx(1e6 / 300 * 14 * 0.001)
    assert (cost.stages["decode"].share, cost.stages["encode"].processor_seconds) == (50.0, 7.0)
    assert [slow.shard for slow in cost.slowest] == [1, 0, 2]
    assert cost.peak_device_bytes == 1002
    assert cost.devices == ("cpu/x86_64/AVX2 eager",)


def test_a_shard_that_is_begun_while_another_is_uploaded_is_paid_for_once() -> None:
    cost = sum_costs([run(0, 0, 4), run(1, 2, 6), run(2, 3, 5), run(3, 10, 11)])
    assert cost is not None
    assert cost.process_seconds == 7.0


def test_a_shard_that_is_made_again_costs_again_and_counts_once() -> None:
    once, twice = sum_costs([run(0, 0, 4)]), sum_costs([run(0, 0, 4), run(0, 4, 8, process="b")])
    assert once is not None
    assert twice is not None
    assert (twice.shards, twice.samples, twice.made, twice.bytes) == (1, 100, 200, 10_000)
    assert twice.price_per_million(1.0) == pytest.approx(2 * once.price_per_million(1.0))
    assert twice.device_seconds_per_image == pytest.approx(2 * once.device_seconds_per_image)
    assert twice.images_per_second == once.images_per_second


def test_runs_of_an_earlier_release_are_taken_one_by_one() -> None:
    cost = sum_costs([run(number, 0, 4, process="", ended=None) for number in range(3)])
    assert cost is not None
    assert (cost.process_seconds, cost.processes, cost.wall_seconds) == (12.0, 0, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"ended": "0001-01-01T00:00:00Z", "elapsed_seconds": 1e9},
        {"ended": "9999-12-31T23:59:59Z"},
        {"elapsed_seconds": 1e-9},
        {"seconds": {}},
        {"seconds": {"decode": 1e9}, "samples": 1, "elapsed_seconds": 1e9},
        {"device": "\x1b[2J\r\n", "process": "\0"},
    ],
)
def test_whatever_is_believed_can_be_summed_and_shown(changes: dict[str, object]) -> None:
    for runs in ([run(0, 0, 1, **changes)], [run(0, 0, 1, **changes), run(1, 0, 1)]):
        cost = sum_costs(runs)
        assert cost is not None
        text = json.dumps(cost.model_dump(mode="json"), allow_nan=False)
        assert "\\u001b" not in text
        assert cost.price_per_million(1.0) >= 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 10**10},
        {"bytes": 10**16},
        {"elapsed_seconds": 1e300},
        {"refused": -1},
        {"seconds": {"decode": -1.0}},
        {"seconds": {"decode": 1e300}},
        {"shard": 10**7},
        {"ended": "yesterday"},
        {"device": "x" * 1000},
    ],
)
def test_what_no_shard_took_is_not_believed(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        run(0, 0, 1, **changes)


def test_of_many_runs_some_are_read_evenly_and_the_first_and_last(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "build"))
    for number in range(100):
        store.put(f"runs/{number:03d}.json", json.dumps(run(number, number, number + 1).facts()).encode())
    runs = read_run_records(store, most=12, listed=1000)
    shards = [found.shard for found in runs.records]
    assert runs.is_partial
    assert (runs.found, runs.looked_at) == (100, len(shards))
    assert len(shards) <= 12
    assert {0, 99, 10, 50, 90} <= set(shards)
    short = read_run_records(store, most=12, listed=20)
    assert (short.found, short.truncated, short.is_partial) == (20, True, True)
    whole = read_run_records(store, most=100, listed=100)
    assert (len(whole.records), whole.truncated, whole.is_partial) == (100, False, False)


def test_an_unfinished_build_is_told_from_what_is_there(tmp_path: Path) -> None:
    place = SmallBuild().begin(str(tmp_path))
    store = place.store
    assert report_of(store).cost is None
    for number in range(3):
        facts = run(number, number, number + 1, samples=(5, 5, 3)[number], refused=1).facts()
        store.put(f"runs/{number}.json", json.dumps(facts).encode())
    store.put("runs/odd.json", b"\xff{")
    store.put("runs/large.json", b" " * 100_000)
    store.put("reports/verdict.json", b"no verdict")
    store.put("reports/mine.json", b"{}")
    found = report_of(store)
    assert (found.state, found.samples, found.samples_done, found.shards, found.shards_done) == (
        "unfinished",
        13,
        13,
        3,
        3,
    )
    assert (found.refused, found.refused_share, found.bytes) == (3, round(3 / 16, 6), 30_000)
    assert found.images_per_second == round(13 / 3, 1)
    assert found.reports["mine"] == ""
    assert found.reports["verdict"].startswith("cannot be read")


def test_a_committed_build_is_told_from_its_manifest(tmp_path: Path) -> None:
    place, manifest = SmallBuild().commit(str(tmp_path))
    found = report_of(place.store)
    assert (found.state, found.samples_done, found.shards_done) == ("committed", 13, 3)
    assert (found.refused, found.bytes) == (manifest.refused, manifest.bytes)
    assert (found.cost, found.images_per_second) == (None, None)
