"""Parallel batches: the same bytes for any number of lanes, bounded memory, and no error of a stage is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from generator.errors import InvalidOutput, StoreUnavailable
from generator.models.bundle import Bundle, load_bundle
from generator.production.commit import BuildLocation, begin_build, fix_environment, locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.resident import LaneLayout
from generator.production.mill import build
from generator.production.pipeline.batches import Batch
from generator.production.pipeline.shard_maker import ShardMaker, open_shard_maker
from generator.production.pipeline.stage_times import STAGES, StageTimes
from generator.production.pipeline.upload_queue import Upload, UploadQueue
from generator.production.shards import read_samples
from generator.spec.canonical import canonical_json, sha256_hex
from generator.spec.plan import Plan, ShardPlan
from generator.spec.recipe import JobSpec, JpegSettings, Order, Recipe
from generator.store import open_store
from tests.support.bundles import screened_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(screened_bundle(tmp_path_factory.mktemp("b") / "screened", size=16, channels=3))))


def recipe_for(bundle: Bundle, **changes: object) -> Recipe:
    fields = {"classes": bundle.info.classes, "counts": (50, 40, 39), "shard_size": 30, "batch": 8, "seed": 5}
    return Recipe.model_validate({"bundle": bundle.digest, **fields, **changes})


def screened(bundle: Bundle) -> Recipe:
    return recipe_for(bundle, label_floor=0.334, novelty_floor=0.1, image=JpegSettings())


def location_for(recipe: Recipe, name: str) -> BuildLocation:
    return locate_build(JobSpec(recipe=recipe, order=Order(destination=f"memory://{name}", name="lines")))


def maker_for(bundle: Bundle, recipe: Recipe, lanes: int = 2) -> ShardMaker:
    decoder = ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device="cpu")
    decoder._lane_layout = LaneLayout(lanes, 1)
    return open_shard_maker(location_for(recipe, "maker"), bundle, decoder)


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_shards_are_the_same_at_any_number_of_lanes_and_shards(bundle: Bundle, lanes: int) -> None:
    recipe = screened(bundle)
    plan = Plan(recipe)
    alone = [maker_for(bundle, recipe, 1).make(shard, "lines") for shard in plan]
    together = [timed.finished for timed in maker_for(bundle, recipe, lanes).make_all(plan, "lines")]
    assert [(made.archive, made.table, made.receipt) for made in together] == [
        (made.archive, made.table, made.receipt) for made in alone
    ]
    assert sum(made.receipt.refused for made in alone) > recipe.total / 4


def test_facts_of_a_sample_are_canonical_and_those_of_its_row(bundle: Bundle) -> None:
    for recipe in (screened(bundle), recipe_for(bundle)):
        made = maker_for(bundle, recipe).make(Plan(recipe).shard(0), "lines")
        for key, files in read_samples(made.archive, field="shard"):
            facts = json.loads(files["json"])
            assert files["json"] == canonical_json(facts)
            assert key == f"{facts['index']:09d}"
            assert files["cls"] == str(facts["label"]).encode()
            assert facts["class"] == recipe.classes[facts["label"]]
            assert (facts["label_confidence"] is None) == (recipe.label_floor is None)
        assert made.receipt.shard.digest == f"sha256:{sha256_hex(made.archive)}"


class Broken(Exception):
    pass


def test_a_batch_that_fails_stops_the_pipeline_and_its_threads(bundle: Bundle) -> None:
    recipe = recipe_for(bundle)
    maker = maker_for(bundle, recipe, 3)
    decode, count = maker.decoder.decode, iter(range(100))

    def failing(z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        if next(count) == 6:
            raise InvalidOutput("decoder", "finite pixel values", "NaN or infinity")
        return decode(z_BD, labels_B)

    maker.decoder.decode = failing  # type: ignore[method-assign]
    with pytest.raises(InvalidOutput):
        list(maker.make_all(Plan(recipe), "lines"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]
    assert next(count) < 6 + 2 * 3 + 2, "no further batch is started"


def test_the_progress_callback_can_stop_the_work(bundle: Bundle) -> None:
    recipe, seen = recipe_for(bundle), list[int]()

    def stop_at_24(made: int) -> None:
        seen.append(made)
        if made >= 24:
            raise Broken

    with pytest.raises(Broken):
        maker_for(bundle, recipe).make(Plan(recipe).shard(0), "lines", stop_at_24)
    assert seen == [8, 16, 24]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]


def test_at_most_two_shards_are_open_while_none_is_taken(bundle: Bundle) -> None:
    recipe = recipe_for(bundle)
    opened = list[int]()

    def shards() -> Iterator[ShardPlan]:
        for shard in Plan(recipe):
            opened.append(shard.number)
            yield shard

    made = maker_for(bundle, recipe, 5).make_all(shards(), "lines")
    next(made)
    assert opened == [0, 1]
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]


def test_times_are_recorded_by_stage_and_stay_out_of_the_commit(bundle: Bundle) -> None:
    location = location_for(screened(bundle), "times")
    manifest = build(location, bundle, device="cpu")
    runs = [json.loads(location.store.get(info.key)) for info in location.store.list("runs/")]
    assert sorted(run["shard"] for run in runs) == list(range(len(manifest.shards)))
    for run in runs:
        receipt = manifest.shards[run["shard"]]
        assert (run["samples"], run["refused"]) == (receipt.samples, receipt.refused)
        assert tuple(run["seconds"]) == tuple(sorted(STAGES))
        worked = [run["seconds"][stage] for stage in ("latents", "decode", "screen", "encode", "write", "upload")]
        assert all(seconds > 0.0 for seconds in worked)
        assert sum(worked) <= run["lanes"] * run["elapsed_seconds"] + run["seconds"]["write"] + 1.0
        assert run["images_per_second"] == pytest.approx(run["samples"] / run["elapsed_seconds"], rel=0.01)
        assert run["device_seconds_per_image"] == pytest.approx(run["seconds"]["decode"] / run["samples"], rel=0.01)
        assert run["execution"] == "eager"
    assert not [extra.key for extra in manifest.extras if extra.key.startswith("runs/")]


def test_stage_times_add_up_from_all_threads() -> None:
    times = StageTimes()
    threads = [threading.Thread(target=lambda: [times.add("encode", 1.0, 0.5) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times.clock["encode"] == 2000.0
    assert times.processor["encode"] == 1000.0


def test_uploads_run_in_parallel_and_a_slow_upload_delays_production(bundle: Bundle) -> None:
    recipe, location = recipe_for(bundle), location_for(recipe_for(bundle), "slow")
    maker = maker_for(bundle, recipe)
    begin_build(location)
    fix_environment(location, maker.environment)
    shards = list(maker.make_all(Plan(recipe), "lines"))
    gate, started, submitted = threading.Event(), threading.Event(), list[int]()
    create = location.store.create

    def slow(key: str, data: bytes) -> object:
        started.set()
        assert gate.wait(60)
        return create(key, data)

    location.store.create = slow  # type: ignore[method-assign]

    def submit_all() -> None:
        with UploadQueue(location) as uploads:
            for number, shard in enumerate(shards):
                uploads.submit(Upload(shard, f"lease-{number}"))
                submitted.append(number)

    thread = threading.Thread(target=submit_all)
    thread.start()
    assert started.wait(60)
    thread.join(0.2)
    assert submitted == [0, 1], "one is uploaded, one waits, the third is held back"
    gate.set()
    thread.join(60)
    assert submitted == list(range(len(shards)))
    assert len(list(location.store.list("receipts/"))) == len(shards)


def test_an_upload_that_fails_ends_the_build(bundle: Bundle) -> None:
    recipe = recipe_for(bundle)
    location, create = location_for(recipe, "failing"), location_for(recipe, "failing").store.create

    def failing(key: str, data: bytes) -> object:
        if key.startswith("receipts/"):
            raise StoreUnavailable(key, "an answer", "none")
        return create(key, data)

    location.store.create = failing  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="receipts"):
        build(location, bundle, device="cpu")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("lane", "upload"))]


def test_lanes_leave_room_in_memory(bundle: Bundle) -> None:
    decoder = ResidentDecoder(bundle, batch=8, dtype="float32", device="cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert decoder._choose_lanes(1) == LaneLayout(3, 1)
        assert decoder._choose_lanes(2**40) == LaneLayout(1, 3)
    finally:
        torch.set_num_threads(before)


def test_a_batch_keeps_what_passed_and_only_that(bundle: Bundle) -> None:
    recipe = screened(bundle)
    maker, times = maker_for(bundle, recipe), StageTimes()
    batch: Batch = maker.batcher.make(np.arange(8), np.zeros(8, dtype=np.int64), np.arange(8) % 3, times)
    passed = np.flatnonzero(batch.screened.passed_B).tolist()
    assert 0 < len(passed) < 8
    assert list(batch.packed) == list(batch.hashes) == passed
    for row in passed:
        draw = batch.draw
        again = maker.remake(row, int(draw.attempts_B[row]), row % 3)
        assert sha256_hex(again) == batch.hashes[row]
