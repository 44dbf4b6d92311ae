"""Sums of run records: the time and the speed of a build, by stage. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.run_records import read_run_records
from generator.production.pipeline.stage_times import STAGES, Stage
from generator.spec.canonical import FrozenModel
from generator.store.base import Store

_QUICK_READ, _QUICK_LISTED = 200, 1000  # interactive callers read at most so many run records of the first so many
_MAX_SLOWEST, _MAX_DEVICES = 5, 10
_MIN_SECONDS = 1e-6  # seconds; avoids division by zero


class Pace(FrozenModel):
    """The speed of ``shards`` shards: images per second of one worker process, seconds of decoding per accepted image,
    and each stage's share of the time in percent."""

    shards: int
    images_per_second: float
    device_seconds_per_image: float
    share: dict[Stage, float]


class StageCost(FrozenModel):
    """One stage: wall-clock seconds, summed over lanes; their share in percent; processor seconds."""

    seconds: float
    share: float
    processor_seconds: float


class SlowShard(FrozenModel):
    """A slow shard: seconds from its first batch to its receipt, and the stage that took most of them."""

    shard: int
    seconds: float
    stage: Stage


class RunCosts(FrozenModel):
    """The sum of ``runs`` run records.

    A shard has several records if its first worker was lost or late. ``samples``, ``shards`` and ``bytes`` count each
    shard once; ``made`` (images), ``refused`` and all seconds count every record. ``began`` to ``ended`` is wall-clock
    time, pauses included. ``process_seconds``: time in which worker processes worked on a shard, which is the time that
    is paid for. ``images_per_second``: ``made`` per process second. ``device_seconds_per_image``: seconds of decoding
    per image of ``samples``. ``processes``: number of worker processes (0: unknown).
    """

    runs: int
    shards: int
    samples: int
    made: int
    refused: int
    bytes: int
    began: datetime | None
    ended: datetime | None
    process_seconds: float
    processes: int
    images_per_second: float
    device_seconds_per_image: float
    peak_device_bytes: int
    devices: tuple[str, ...]
    stages: dict[Stage, StageCost]
    slowest: tuple[SlowShard, ...]

    @property
    def wall_seconds(self) -> float | None:
        """Wall-clock seconds from the first batch to the last receipt; ``None`` if unknown."""
        if self.began is None or self.ended is None:
            return None
        return (self.ended - self.began).total_seconds()

    def price_per_million(self, per_hour: float) -> float:
        """The price of a million accepted images if an hour of one worker process costs ``per_hour``."""
        return 1e6 * per_hour * self.process_seconds / 3600.0 / self.samples


def sum_costs(runs: Sequence[RunRecord]) -> RunCosts | None:
    """The sum of ``runs``; ``None`` if there are none."""
    if not runs:
        return None
    one_per_shard = {run.shard: run for run in runs}.values()
    samples, made, process_seconds = (
        sum(run.samples for run in one_per_shard),
        sum(run.samples for run in runs),
        _process_seconds(runs),
    )
    ends = [(run.ended.timestamp() - run.elapsed_seconds, run.ended.timestamp()) for run in runs if run.ended]
    devices = dict.fromkeys(printable(f"{run.device} {run.execution}".strip()) for run in runs if run.device)
    slowest = sorted(runs, key=lambda run: (-run.elapsed_seconds, run.shard))[:_MAX_SLOWEST]
    return RunCosts(
        runs=len(runs),
        shards=len(one_per_shard),
        samples=samples,
        made=made,
        refused=sum(run.refused for run in runs),
        bytes=sum(run.bytes for run in one_per_shard),
        began=_clamped_datetime(min(begin for begin, _ in ends)) if ends else None,
        ended=_clamped_datetime(max(end for _, end in ends)) if ends else None,
        process_seconds=round(process_seconds, 3),
        processes=len({run.process for run in runs if run.process}),
        images_per_second=round(made / process_seconds, 1),
        device_seconds_per_image=round(sum(run.device_seconds for run in runs) / samples, 7),
        peak_device_bytes=max(run.peak_device_bytes for run in runs),
        devices=tuple(devices)[:_MAX_DEVICES],
        stages=_stage_costs(runs),
        slowest=tuple(_slow_shard(run) for run in slowest),
    )


def pace(build: Store) -> Pace | None:
    """The pace of the build at the store ``build``; for a large build, that of a part of its shards. ``None`` if there
    are no run records."""
    cost = sum_costs(read_run_records(build, most=_QUICK_READ, listed=_QUICK_LISTED).records)
    if cost is None:
        return None
    return Pace(
        shards=cost.runs,
        images_per_second=cost.images_per_second,
        device_seconds_per_image=cost.device_seconds_per_image,
        share={stage: round(spent.share, 1) for stage, spent in cost.stages.items()},
    )


def _process_seconds(runs: Iterable[RunRecord]) -> float:
    """Seconds during which a process worked on at least one shard, summed over processes.

    A process may work on two shards at once, as it starts the next one during an upload; such seconds count once. The
    seconds of records without a process or an end are simply added.
    """
    alone, spans = 0.0, defaultdict[str, list[tuple[float, float]]](list)
    for run in runs:
        if run.ended is None or not run.process:
            alone += run.elapsed_seconds
        else:
            end = run.ended.timestamp()
            spans[run.process].append((end - run.elapsed_seconds, end))
    return max(_MIN_SECONDS, alone + sum(_covered_seconds(sorted(found)) for found in spans.values()))


def _covered_seconds(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of ``spans``, which are sorted."""
    covered, until = 0.0, float("-inf")
    for begin, end in spans:
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered


def _stage_costs(runs: Sequence[RunRecord]) -> dict[Stage, StageCost]:
    clock = {stage: sum(run.seconds.get(stage, 0.0) for run in runs) for stage in STAGES}
    whole = sum(clock.values())
    return {
        stage: StageCost(
            seconds=round(taken, 3),
            share=round(100.0 * taken / whole, 2) if whole else 0.0,
            processor_seconds=round(sum(run.processor_seconds.get(stage, 0.0) for run in runs), 3),
        )
        for stage, taken in clock.items()
    }


def _slow_shard(run: RunRecord) -> SlowShard:
    stage = max(STAGES, key=lambda each: run.seconds.get(each, 0.0))
    return SlowShard(shard=run.shard, seconds=round(run.elapsed_seconds, 3), stage=stage)


def printable(text: str) -> str:
    """Untrusted ``text`` with unprintable characters, such as terminal escapes, replaced by ``?``."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _clamped_datetime(seconds: float) -> datetime:
    """Run records are untrusted: times outside the range of ``datetime`` are clamped to it."""
    return datetime.fromtimestamp(min(max(seconds, -6e10), 2.5e11), UTC)
