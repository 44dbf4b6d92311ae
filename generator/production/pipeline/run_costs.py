"""What shards took, added up: where the time of a build went, and how fast it was made. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.run_records import read_run_records
from generator.production.pipeline.stage_times import STAGES, Stage
from generator.spec.canonical import FrozenModel
from generator.store.base import Store

_QUICK_READ, _QUICK_LISTED = 200, 1000  # runs that are looked at while somebody waits, of so many
_MAX_SLOWEST, _MAX_DEVICES = 5, 10
_MIN_SECONDS = 1e-6  # seconds; shorter than that no clock tells


class Pace(FrozenModel):
    """``shards`` shards together: images a second of one worker process, seconds of decoding for an image that was
    accepted, and the share of the time that each stage took, in percent."""

    shards: int
    images_per_second: float
    device_seconds_per_image: float
    share: dict[Stage, float]


class StageCost(FrozenModel):
    """One stage: seconds of the clock, lanes added up; their share in percent; seconds of processor time."""

    seconds: float
    share: float
    processor_seconds: float


class SlowShard(FrozenModel):
    """A shard that took long: seconds from its first batch to its receipt, and the stage that took most of them."""

    shard: int
    seconds: float
    stage: Stage


class RunCosts(FrozenModel):
    """What ``runs`` runs took together.

    A shard is made again where its first worker was lost or late: its images count once among ``samples``, and again
    among those ``made``; its seconds count again. So do ``shards`` and ``bytes`` count once, ``refused`` again.
    ``began`` to ``ended`` is the clock on the wall, pauses included. ``process_seconds`` are those in which worker
    processes had a shard to make: the time that is paid for. ``images_per_second`` are those that one process made in
    that time; ``device_seconds_per_image`` are of those that count. ``processes``: how many took part (0: not told).
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
        """Seconds of the clock from the first batch to the last receipt."""
        if self.began is None or self.ended is None:
            return None
        return (self.ended - self.began).total_seconds()

    def price_per_million(self, per_hour: float) -> float:
        """What a million accepted images cost, where an hour of one worker process costs ``per_hour``."""
        return 1e6 * per_hour * self.process_seconds / 3600.0 / self.samples


def sum_costs(runs: Sequence[RunRecord]) -> RunCosts | None:
    """The sum of ``runs``; ``None`` without any."""
    if not runs:
        return None
    kept = {run.shard: run for run in runs}.values()
    samples, made, process_seconds = (
        sum(run.samples for run in kept),
        sum(run.samples for run in runs),
        _process_seconds(runs),
    )
    ends = [(run.ended.timestamp() - run.elapsed_seconds, run.ended.timestamp()) for run in runs if run.ended]
    kinds = dict.fromkeys(printable(f"{run.device} {run.execution}".strip()) for run in runs if run.device)
    slowest = sorted(runs, key=lambda run: (-run.elapsed_seconds, run.shard))[:_MAX_SLOWEST]
    return RunCosts(
        runs=len(runs),
        shards=len(kept),
        samples=samples,
        made=made,
        refused=sum(run.refused for run in runs),
        bytes=sum(run.bytes for run in kept),
        began=_clamped_datetime(min(begin for begin, _ in ends)) if ends else None,
        ended=_clamped_datetime(max(end for _, end in ends)) if ends else None,
        process_seconds=round(process_seconds, 3),
        processes=len({run.process for run in runs if run.process}),
        images_per_second=round(made / process_seconds, 1),
        device_seconds_per_image=round(sum(run.device_seconds for run in runs) / samples, 7),
        peak_device_bytes=max(run.peak_device_bytes for run in runs),
        devices=tuple(kinds)[:_MAX_DEVICES],
        stages=_stage_costs(runs),
        slowest=tuple(_slow_shard(run) for run in slowest),
    )


def pace(build: Store) -> Pace | None:
    """The pace of the build whose prefix ``build`` is seen from; of a large one that of some shards. ``None`` where
    nothing is known."""
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
    """Seconds in which processes had a shard in the making. One process may make two at once: the next is begun while
    this one is uploaded; such seconds count once. Runs that name no process, or no end, are taken one by one."""
    alone, spans = 0.0, defaultdict[str, list[tuple[float, float]]](list)
    for run in runs:
        if run.ended is None or not run.process:
            alone += run.elapsed_seconds
        else:
            end = run.ended.timestamp()
            spans[run.process].append((end - run.elapsed_seconds, end))
    return max(_MIN_SECONDS, alone + sum(_covered_seconds(sorted(found)) for found in spans.values()))


def _covered_seconds(spans: Iterable[tuple[float, float]]) -> float:
    """How much of a line is covered by ``spans``, which are sorted."""
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
    """``text`` that anybody may have written, without what would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _clamped_datetime(seconds: float) -> datetime:
    """Whoever wrote them: what lies outside of the calendar is its end."""
    return datetime.fromtimestamp(min(max(seconds, -6e10), 2.5e11), UTC)
