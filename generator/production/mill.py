"""The story: a recipe and a bundle become a committed dataset.

``build`` runs it in this process. A worker of the pool runs the same steps, one shard a ticket; what one of them
leaves unfinished, the other completes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from generator.models.bundle import Bundle
from generator.production.commit import BuildPlace, begin, committed, finished_numbers, fix_environment
from generator.production.commit.finish import finish
from generator.production.pipeline.decoders import Compiling, open_decoder
from generator.production.pipeline.run_record import Run
from generator.production.pipeline.shard_maker import Maker, OnBatch, open_maker
from generator.production.pipeline.upload_queue import Upload, Uploads
from generator.production.provenance.manifest import Manifest
from generator.spec.plan import Plan

_AS_IT_PAYS = Compiling()


@dataclass(frozen=True)
class Progress:
    """How far a build is: images and shards done, of how many."""

    samples: int
    total: int
    shards: int
    total_shards: int


def build(
    place: BuildPlace,
    bundle: Bundle,
    *,
    device: str = "auto",
    compiling: Compiling = _AS_IT_PAYS,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Build in this process, resuming what is there; the manifest of the committed dataset.

    Building again returns the manifest without work. Raises ``BuildConflict``, ``EnvironmentMismatch``,
    ``RejectionExhausted``, ``StoreError``.
    """
    if (done := committed(place)) is not None:
        return done
    return build_with(
        place, bundle, open_maker(place, bundle, open_decoder(place, bundle, device, compiling)), on_progress
    )


def build_with(
    place: BuildPlace, bundle: Bundle, maker: Maker, on_progress: Callable[[Progress], None] = lambda _: None
) -> Manifest:
    """As ``build``, with a ``maker`` that is open already: resident decoders serve more than one build."""
    place.store.check_writable()
    begin(place)
    fix_environment(place, maker.environment)
    _make_missing(place, maker, on_progress)
    return finish(place, bundle.info)


def _make_missing(place: BuildPlace, maker: Maker, on_progress: Callable[[Progress], None]) -> None:
    """Make and publish the shards without a receipt; one is uploaded while the next one is made."""
    plan, ready = Plan(place.recipe), finished_numbers(place)
    before, made, shards = sum(plan.size(number) for number in ready), 0, len(ready)

    def report(count: int) -> None:
        nonlocal made
        made = count
        on_progress(Progress(before + made, place.recipe.total, shards, plan.shards))

    missing = (plan.shard(number) for number in range(plan.shards) if number not in ready)
    with Uploads(place) as uploads, closing(maker.make_all(missing, place.name, report)) as line:
        for shard in line:
            uploads.hand(Upload(shard, uuid.uuid4().hex))
            shards += 1
            report(made)


def produce_shard(place: BuildPlace, maker: Maker, number: int, *, lease: str, on_batch: OnBatch) -> Run:
    """Make one shard and publish it; its wall-clock facts, which go to ``runs/<lease>.json``."""
    with closing(maker.make_all([Plan(place.recipe).shard(number)], place.name, on_batch)) as line:
        return Upload(next(line), lease).run(place)
