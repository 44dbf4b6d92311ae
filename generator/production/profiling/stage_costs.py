"""What each stage of the pipeline costs when it runs by itself, in processor seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.production.commit import FinishedShard, locate_build, publish_shard
from generator.production.pipeline.batches import Batch
from generator.production.pipeline.filters import ScreenResult
from generator.production.pipeline.sampling import Draw
from generator.production.pipeline.shard_maker import ShardMaker
from generator.production.pipeline.stage_times import Stage
from generator.spec.plan import Plan, ShardPlan
from generator.spec.recipe import JobSpec, Order

_PIXEL_BYTES = 2**23  # of the batches that take turns: more than the caches of a core hold


@dataclass(frozen=True, eq=False)
class _StageInputs:
    """What the stages take of one batch."""

    indices_B: np.ndarray
    labels_B: np.ndarray
    draw: Draw
    z_BD: np.ndarray
    images_BHWC: np.ndarray
    screened: ScreenResult
    passed_BHWC: np.ndarray
    files: list[bytes]


def measure_stages(maker: ShardMaker, destination: str, seconds: float) -> dict[Stage, float]:
    """Processor seconds per image of each stage, measured for at least ``seconds``, on several batches in turns.

    On a GPU, decoding counts the processor time of the calling thread.
    """
    batcher, shard = maker.batcher, Plan(maker.recipe).shard(0)
    inputs = _stage_inputs(maker, shard)
    drawn, encoded = (sum(len(getattr(each, name)) for each in inputs) for name in ("z_BD", "files"))
    with maker.decoder.lanes() as (_, enter), ThreadPoolExecutor(1, initializer=enter) as lane:

        def cost(run: Callable[[], Any], images: int) -> float:
            return lane.submit(_min_processor_seconds, run, seconds).result() / images

        def cost_of_all(run: Callable[[_StageInputs], Any], images: int) -> float:
            def run_all() -> None:
                for each in inputs:
                    run(each)

            return cost(run_all, images)

        costs: dict[Stage, float] = {
            "latents": cost_of_all(
                lambda of: batcher.sampler.draw(of.indices_B, np.zeros_like(of.indices_B), of.labels_B), drawn
            ),
            "decode": cost_of_all(lambda of: batcher.decoder.decode(of.z_BD, of.labels_B), drawn),
            "screen": cost_of_all(lambda of: batcher.screen.check(of.images_BHWC, of.labels_B), drawn),
            "encode": cost_of_all(lambda of: batcher.encoder.encode_many(of.passed_BHWC), encoded),
            "write": cost_of_all(
                lambda of: batcher.pack(of.files, of.indices_B, of.labels_B, of.draw, of.screened), encoded
            ),
        }
        batches = _shard_batches(maker, shard)
        costs["write"] += cost(lambda: _assemble(maker, shard, batches), len(shard))
    costs["upload"] = _upload_seconds(maker, _assemble(maker, shard, batches), destination, seconds / 4) / len(shard)
    return costs


def _stage_inputs(maker: ShardMaker, shard: ShardPlan) -> list[_StageInputs]:
    """The first batches of a shard, as many as fill the caches."""
    batcher, batch, found = maker.batcher, maker.recipe.batch, list[_StageInputs]()
    for begin in range(0, len(shard), batch):
        indices_B, labels_B = shard.indices_N[begin : begin + batch], shard.labels_N[begin : begin + batch]
        draw = batcher.sampler.draw(indices_B, np.zeros_like(indices_B), labels_B)
        z_BD = draw.z_BD.astype(np.float32)
        images_BHWC = batcher.decoder.decode(z_BD, labels_B)
        screened = batcher.screen.check(images_BHWC, labels_B)
        passed_BHWC = images_BHWC[screened.passed_B]
        files = batcher.encoder.encode_many(passed_BHWC)
        found.append(_StageInputs(indices_B, labels_B, draw, z_BD, images_BHWC, screened, passed_BHWC, files))
        if sum(each.images_BHWC.nbytes for each in found) >= _PIXEL_BYTES:
            break
    return found


def _shard_batches(maker: ShardMaker, shard: ShardPlan) -> list[Batch]:
    """The batches of a shard, in the order in which one lane makes them."""
    assembly, batches = maker.open_assembly(shard, (0.0, 0.0)), list[Batch]()
    while not assembly.is_complete:
        slots_B = assembly.next_slots()
        batches.append(assembly.prepare_batch(maker.batcher.make, slots_B)())
        assembly.add_batch(slots_B, batches[-1])
    return batches


def _assemble(maker: ShardMaker, shard: ShardPlan, batches: list[Batch]) -> FinishedShard:
    """Archive, table and receipt of a shard whose batches are given."""
    assembly = maker.open_assembly(shard, (0.0, 0.0))
    for batch in batches:
        assembly.add_batch(assembly.next_slots(), batch)
    return maker.finish(assembly, "bench")


def _upload_seconds(maker: ShardMaker, finished: FinishedShard, destination: str, seconds: float) -> float:
    """Processor seconds of publishing a shard, the mean of several."""
    clock, number = time.process_time(), 0
    while number < 2 or time.process_time() - clock < seconds:
        order = Order(destination=f"{destination}-{number}", name="bench")
        publish_shard(locate_build(JobSpec(recipe=maker.recipe, order=order)), finished)
        number += 1
    return (time.process_time() - clock) / number


def _min_processor_seconds(run: Callable[[], Any], seconds: float) -> float:
    """The minimum processor seconds of several runs, at least ``seconds``: other processes can only add to them."""
    costs, end = list[float](), time.perf_counter() + seconds
    run()
    while len(costs) < 3 or time.perf_counter() < end:
        clock = time.process_time()
        run()
        costs.append(time.process_time() - clock)
    return min(costs)
