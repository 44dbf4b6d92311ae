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
from generator.production.commit import BuildLocation, begin, find_manifest, finished_shards, fix_environment
from generator.production.commit.finish import finish_build
from generator.production.pipeline.decoders import CompileOptions, open_decoder
from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.shard_maker import OnBatch, ShardMaker, open_shard_maker
from generator.production.pipeline.upload_queue import Upload, UploadQueue
from generator.production.provenance.manifest import Manifest
from generator.spec.plan import Plan

_DEFAULT_COMPILE_OPTIONS = CompileOptions()


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is: images and shards done, of how many."""

    samples: int
    total: int
    shards: int
    total_shards: int


def build(
    location: BuildLocation,
    bundle: Bundle,
    *,
    device: str = "auto",
    compiling: CompileOptions = _DEFAULT_COMPILE_OPTIONS,
    on_progress: Callable[[BuildProgress], None] = lambda _: None,
) -> Manifest:
    """Build in this process, resuming what is there; the manifest of the committed dataset.

    Building again returns the manifest without work. Raises ``BuildConflict``, ``EnvironmentMismatch``,
    ``RejectionExhausted``, ``StoreError``.
    """
    if (done := find_manifest(location)) is not None:
        return done
    return build_with(
        location,
        bundle,
        open_shard_maker(location, bundle, open_decoder(location, bundle, device, compiling)),
        on_progress,
    )


def build_with(
    location: BuildLocation,
    bundle: Bundle,
    maker: ShardMaker,
    on_progress: Callable[[BuildProgress], None] = lambda _: None,
) -> Manifest:
    """As ``build``, with a ``maker`` that is open already: resident decoders serve more than one build."""
    location.store.check_writable()
    begin(location)
    fix_environment(location, maker.environment)
    _make_missing_shards(location, maker, on_progress)
    return finish_build(location, bundle.info)


def _make_missing_shards(
    location: BuildLocation, maker: ShardMaker, on_progress: Callable[[BuildProgress], None]
) -> None:
    """Make and publish the shards without a receipt; one is uploaded while the next one is made."""
    plan, ready = Plan(location.recipe), finished_shards(location)
    before, made, shards = sum(plan.size(number) for number in ready), 0, len(ready)

    def report(count: int) -> None:
        nonlocal made
        made = count
        on_progress(BuildProgress(before + made, location.recipe.total, shards, plan.shard_count))

    missing = (plan.shard(number) for number in range(plan.shard_count) if number not in ready)
    with UploadQueue(location) as uploads, closing(maker.make_all(missing, location.name, report)) as line:
        for shard in line:
            uploads.submit(Upload(shard, uuid.uuid4().hex))
            shards += 1
            report(made)


def produce_shard(
    location: BuildLocation, maker: ShardMaker, number: int, *, lease: str, on_batch: OnBatch
) -> RunRecord:
    """Make one shard and publish it; its wall-clock facts, which go to ``runs/<lease>.json``."""
    with closing(maker.make_all([Plan(location.recipe).shard(number)], location.name, on_batch)) as line:
        return Upload(next(line), lease).publish(location)
