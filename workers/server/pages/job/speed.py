"""The speed and the cost of a job in words: rate, time that is left, where the time goes, what was paid for."""

from __future__ import annotations

from dataclasses import dataclass

from generator.production.pipeline.stage_times import Stage
from workers.server.job_costs import JobCosts
from workers.server.jobs import JobView

STAGE_WORDS: dict[Stage, str] = {
    "latents": "drawing latent points",
    "decode": "decoding images",
    "screen": "checking labels and copies",
    "encode": "encoding image files",
    "write": "packing shards",
    "upload": "storing",
    "wait": "waiting for other stages",
}


@dataclass(frozen=True)
class StageRow:
    """A stage: what it does, its share in percent, its seconds."""

    words: str
    share: float
    seconds: float


@dataclass(frozen=True)
class Speed:
    """``rate``: images per second now, ``None`` unless the job runs; ``left``: time that is left, in words.

    ``worker_seconds``: that processes worked on shards; ``per_second``: images of one worker second; ``refused``: share
    of draws; ``size``: bytes of the finished shards. Of a large job they are extrapolated (``is_partial``).
    """

    rate: float | None
    left: str
    stages: tuple[StageRow, ...]
    worker_seconds: str
    per_second: float | None
    refused: float | None
    size: str
    processes: int
    devices: tuple[str, ...]
    slowest: tuple[tuple[int, str, str], ...]
    is_partial: bool


def make_speed(view: JobView, costs: JobCosts, measured: float | None) -> Speed:
    """The speed of a job. ``measured``: images per second by what was seen of it lately."""
    sums, rate = costs.sums, None
    if view.state == "running":
        estimate = sums.images_per_second * view.shards_running if sums and view.shards_running else None
        rate = estimate if measured is None else measured
    left = span_text((view.samples - view.samples_done) / rate) if rate else ""
    if sums is None:
        return Speed(rate, left, (), "", None, None, "", 0, (), (), is_partial=False)
    grown = max(1.0, view.shards_done / sums.shards) if costs.is_partial else 1.0
    attempts = sums.made + sums.refused
    return Speed(
        rate=rate,
        left=left,
        stages=tuple(
            StageRow(STAGE_WORDS[stage], cost.share, grown * cost.seconds)
            for stage, cost in sorted(sums.stages.items(), key=lambda each: -each[1].share)
            if cost.share >= 0.05
        ),
        worker_seconds=span_text(grown * sums.process_seconds),
        per_second=sums.images_per_second,
        refused=sums.refused / attempts if attempts else None,
        size=size_text(round(grown * sums.bytes)),
        processes=sums.processes,
        devices=sums.devices,
        slowest=tuple((each.shard, span_text(each.seconds), STAGE_WORDS[each.stage]) for each in sums.slowest[:3]),
        is_partial=costs.is_partial,
    )


def span_text(seconds: float) -> str:
    """``0.8 s``, ``42 s``, ``12 min``, ``3 h 20 min``, ``4 d 6 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440:,} d {minutes % 1440 // 60} h"


def size_text(size: int) -> str:
    """``812 bytes``, ``3.4 MB``."""
    if size < 1000:
        return f"{size} bytes"
    value, unit = float(size), 0
    while value >= 1000 and unit < 5:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {('', 'kB', 'MB', 'GB', 'TB', 'PB')[unit]}"
