"""Measures each stage alone, decoding alone, and the whole pipeline, and compares throughput with the limit.

The limit is min(images per second of the decoder alone, cores / processor seconds per image of all necessary stages,
each measured alone). The whole pipeline reaches only a share of it: the rest is lost to waiting, to handing over
between threads, and to memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

from generator.models.bundle import Bundle
from generator.production.commit import (
    BuildLocation,
    begin_build,
    fix_environment,
    locate_build,
)
from generator.production.pipeline.decoders import CompileOptions, open_decoder
from generator.production.pipeline.shard_maker import ShardMaker, open_shard_maker
from generator.production.pipeline.stage_times import STAGES, Stage
from generator.production.pipeline.upload_queue import Upload, UploadQueue
from generator.production.profiling.stage_costs import measure_stages
from generator.production.profiling.suggestion import WorkerSuggestion, suggest_worker
from generator.spec.canonical import FrozenModel
from generator.spec.machine import usable_cores
from generator.spec.plan import Plan
from generator.spec.recipe import Execution, JobSpec, Order, Recipe


class Profile(FrozenModel):
    """Measurements of one machine. Rates are images per second. ``alone``: processor seconds per image of each stage,
    measured by itself. ``share``: each stage's share of the time of the whole pipeline, in percent."""

    device: str
    execution: Execution
    cores: int
    lanes: int
    image: str
    batch: int
    images: int
    alone: dict[Stage, float]
    decode_rate: float
    encode_rate: float
    limit: float
    whole_rate: float
    share_of_limit: float
    share_of_decoding: float
    cores_busy: float
    share: dict[Stage, float]
    suggestion: WorkerSuggestion
    cost_per_million: float | None = None


def profile(
    recipe: Recipe,
    bundle: Bundle,
    scratch: Path,
    *,
    device: str = "auto",
    compiling: CompileOptions | None = None,
    price_per_hour: float | None = None,
    stage_seconds: float = 1.0,
) -> Profile:
    """Measure ``recipe`` on this machine, each stage for at least ``stage_seconds`` seconds.

    Shards are written below ``scratch``. Raises the errors of ``build``.
    """
    spec = JobSpec(recipe=recipe, order=Order(destination=str(scratch / "whole"), name="bench"))
    location, compiling = locate_build(spec), compiling or CompileOptions()
    decoder = open_decoder(location, bundle, device, compiling)
    maker, cores = open_shard_maker(location, bundle, decoder), usable_cores()
    alone = measure_stages(maker, str(scratch / "alone"), stage_seconds)
    begin_build(location)
    fix_environment(location, maker.environment)
    with decoder.lanes() as (lanes, enter):
        before = _measure_decode_rate(maker, lanes, enter, stage_seconds)
    times, rate, busy = _measure_build(maker, location)
    with decoder.lanes() as (lanes, enter):
        # Other processes can only slow decoding down, so the faster measurement counts.
        decode_rate = max(before, _measure_decode_rate(maker, lanes, enter, stage_seconds))
    limit = min(decode_rate, cores / sum(alone.values()))
    cuda = decoder.device.type == "cuda"
    feeding = decode_rate * (sum(alone.values()) - alone["decode"])
    return Profile(
        device=maker.environment.device,
        execution=decoder.execution,
        cores=cores,
        lanes=lanes,
        image=f"{bundle.info.image.height} x {bundle.info.image.width} x {bundle.info.image.channels}, "
        f"{recipe.image.format}",
        batch=recipe.batch,
        images=recipe.total,
        alone={stage: round(seconds, 9) for stage, seconds in alone.items()},
        decode_rate=round(decode_rate, 1),
        encode_rate=round(cores / alone["encode"], 1),
        limit=round(limit, 1),
        whole_rate=round(rate, 1),
        share_of_limit=round(rate / limit, 3),
        share_of_decoding=round(rate / decode_rate, 3),
        cores_busy=round(busy, 2),
        share=_stage_shares(times),
        suggestion=suggest_worker(cuda=cuda, cores=cores, feeding=feeding),
        cost_per_million=None if price_per_hour is None else round(price_per_hour / 3600 * 1e6 / rate, 4),
    )


def _measure_decode_rate(maker: ShardMaker, lanes: int, enter: Callable[[], None], stage_seconds: float) -> float:
    """Images per second of the decoder alone, with all lanes."""
    z_BD = np.zeros((maker.recipe.batch, maker.decoder.dims), dtype=np.float32)
    with ThreadPoolExecutor(lanes, initializer=enter) as pool:
        list(pool.map(maker.decoder.decode, [z_BD] * lanes))
        clock, batches = time.perf_counter(), 0
        while batches < 2 * lanes or time.perf_counter() - clock < 2 * stage_seconds:
            list(pool.map(maker.decoder.decode, [z_BD] * lanes * 2))
            batches += 2 * lanes
        return batches * maker.recipe.batch / (time.perf_counter() - clock)


def _measure_build(maker: ShardMaker, location: BuildLocation) -> tuple[dict[Stage, float], float, float]:
    """Build the whole recipe at ``location``. Returns seconds by stage, images per second, mean busy cores."""
    seconds = dict.fromkeys(STAGES, 0.0)
    clock, processor, shard_times = time.perf_counter(), time.process_time(), []
    with UploadQueue(location) as uploads, closing(maker.make_all(Plan(maker.recipe), location.name)) as timed_shards:
        for number, shard in enumerate(timed_shards):
            uploads.submit(Upload(shard, f"bench-{number}"))
            shard_times.append(shard.times)
    elapsed, used = time.perf_counter() - clock, time.process_time() - processor
    for times in shard_times:
        for stage, taken in times.clock.items():
            seconds[stage] += taken
    return seconds, maker.recipe.total / elapsed, used / elapsed


def _stage_shares(seconds: dict[Stage, float]) -> dict[Stage, float]:
    whole = sum(seconds.values())
    return {stage: round(100.0 * taken / whole, 1) for stage, taken in seconds.items()}
