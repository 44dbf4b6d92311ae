"""Builds a dataset: from a recipe and a bundle to a committed build.

``build`` runs all steps in this process. A worker of the pool runs the same steps, one shard per ticket. Each can
complete a build that the other left unfinished.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from generator.models.bundle import Bundle
from generator.production.commit import BuildLocation, begin_build, find_manifest, finished_shards, fix_environment
from generator.production.commit.finish import finish_build
from generator.production.commit.segments import SegmentProgress
from generator.production.pipeline.decoders import CompileOptions, open_decoder
from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.shard_maker import OnBatch, ShardMaker, open_shard_maker
from generator.production.pipeline.upload_queue import Upload, UploadQueue
from generator.production.provenance.manifest import Manifest
from generator.spec.plan import Plan

_DEFAULT_COMPILE_OPTIONS = CompileOptions()


@dataclass(frozen=True)
class BuildProgress:
    """Progress of a build: images and shards done so far, and their totals."""

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
    """Build in this process, resuming an unfinished build. Returns the manifest of the committed dataset.

    If the build is committed already, its manifest is returned and nothing is made. Raises ``BuildConflict``,
    ``EnvironmentMismatch``, ``RejectionExhausted``, ``StoreError``.
    """
    if (manifest := find_manifest(location)) is not None:
        return manifest
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
    """Like ``build``, with a ``maker`` that is already open: a resident decoder can serve several builds."""
    location.store.check_writable()
    begin_build(location)
    fix_environment(location, maker.environment)
    _make_missing_shards(location, maker, on_progress)
    return finish_build(location, bundle.info)


def _make_missing_shards(
    location: BuildLocation, maker: ShardMaker, on_progress: Callable[[BuildProgress], None]
) -> None:
    """Make and publish the shards without a receipt; each is uploaded while the next one is made."""
    plan, finished = Plan(location.recipe), finished_shards(location)
    samples_before, samples_made, shards = sum(plan.size(number) for number in finished), 0, len(finished)

    def report(count: int) -> None:
        nonlocal samples_made
        samples_made = count
        on_progress(BuildProgress(samples_before + samples_made, location.recipe.total, shards, plan.shard_count))

    missing = (plan.shard(number) for number in range(plan.shard_count) if number not in finished)
    segments = SegmentProgress(location, finished)
    with (
        UploadQueue(location, segments.finish) as uploads,
        closing(maker.make_all(missing, location.name, report)) as timed_shards,
    ):
        for shard in timed_shards:
            uploads.submit(Upload(shard, uuid.uuid4().hex))
            shards += 1
            report(samples_made)


def produce_shard(
    location: BuildLocation, maker: ShardMaker, number: int, *, lease: str, on_batch: OnBatch
) -> RunRecord:
    """Make one shard and publish it. Returns its run record, which is stored as ``runs/<lease>.json``."""
    with closing(maker.make_all([Plan(location.recipe).shard(number)], location.name, on_batch)) as timed_shards:
        return Upload(next(timed_shards), lease).publish(location)
