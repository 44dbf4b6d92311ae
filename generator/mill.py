"""The story: a recipe and a bundle become a committed dataset.

``build`` runs it in this process. A worker of the pool runs the same steps, one shard a ticket; what one of them
leaves unfinished, the other completes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from generator.bundle import Bundle
from generator.decoding import ResidentDecoder
from generator.errors import StoreError
from generator.finishing import finish
from generator.making import Maker, OnBatch, open_maker
from generator.plan import Plan
from generator.provenance.manifest import Manifest
from generator.publish import (
    BuildPlace,
    begin,
    committed,
    finished_numbers,
    fix_environment,
    publish_shard,
    record_run,
)


@dataclass(frozen=True)
class Progress:
    """How far a build is: images and shards done, of how many."""

    samples: int
    total: int
    shards: int
    total_shards: int


def build(
    place: BuildPlace, bundle: Bundle, *, device: str = "auto", on_progress: Callable[[Progress], None] = lambda _: None
) -> Manifest:
    """Build in this process, resuming what is there; the manifest of the committed dataset.

    Building again returns the manifest without work. Raises ``BuildConflict``, ``EnvironmentMismatch``,
    ``RejectionExhausted``, ``StoreError``.
    """
    if (done := committed(place)) is not None:
        return done
    decoder = ResidentDecoder(bundle, batch=place.recipe.batch, dtype=place.recipe.dtype, device=device)
    maker, plan = open_maker(place, bundle, decoder), Plan(place.recipe)
    place.store.check_writable()
    begin(place)
    fix_environment(place, maker.environment)
    ready = finished_numbers(place)
    samples, shards = sum(plan.size(number) for number in ready), len(ready)
    for shard in (plan.shard(number) for number in range(plan.shards) if number not in ready):
        before, finished = samples, shards

        def report(made: int, before: int = before, finished: int = finished) -> None:
            on_progress(Progress(before + made, place.recipe.total, finished, plan.shards))

        produce_shard(place, maker, shard.number, lease=uuid.uuid4().hex, on_batch=report)
        samples, shards = samples + len(shard), shards + 1
        on_progress(Progress(samples, place.recipe.total, shards, plan.shards))
    return finish(place, bundle.info)


def produce_shard(place: BuildPlace, maker: Maker, number: int, *, lease: str, on_batch: OnBatch) -> None:
    """Make one shard and publish it; its wall-clock facts go to ``runs/<lease>.json``."""
    started, clock = datetime.now(UTC), time.perf_counter()
    made = maker.make(Plan(place.recipe).shard(number), place.name, on_batch)
    generated = time.perf_counter() - clock
    publish_shard(place, made)
    facts = {
        "shard": number,
        "samples": made.receipt.samples,
        "started": started.isoformat(timespec="milliseconds"),
        "generate_seconds": round(generated, 4),
        "publish_seconds": round(time.perf_counter() - clock - generated, 4),
        "peak_device_bytes": maker.decoder.peak_bytes,
    }
    with suppress(StoreError):  # the shard is done; nobody makes it again for want of its times
        record_run(place, lease, facts)
