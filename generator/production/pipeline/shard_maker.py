"""Makes shards: archive, table and receipt, from batches that are made in parallel and put in plan order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from generator.errors import SpecError
from generator.models.bundle import Bundle
from generator.models.latents.code_map import CodeMap
from generator.production.commit import BuildLocation, FinishedShard
from generator.production.decoding import ResidentDecoder
from generator.production.images import image_encoder
from generator.production.pipeline.assembly import ShardAssembly
from generator.production.pipeline.batches import Batcher
from generator.production.pipeline.draw_codes import read_draw_codes
from generator.production.pipeline.filters import Screen, open_screen
from generator.production.pipeline.lane_pool import LanePool
from generator.production.pipeline.sampling import Sampler
from generator.production.pipeline.stage_times import StageTimes
from generator.production.provenance.environment import Environment
from generator.production.provenance.local_environment import local_environment
from generator.production.provenance.manifest import Receipt, StoredFile, shard_key, sidecar_keys, table_key
from generator.production.provenance.sample_table import table_bytes
from generator.production.shards import shard_format, sidecar_bytes
from generator.spec.canonical import digest_of
from generator.spec.plan import ShardPlan
from generator.spec.recipe import Recipe

OnBatch = Callable[[int], None]  # called with the number of images made so far; may raise to stop the work


@dataclass(frozen=True, eq=False)
class TimedShard:
    """A finished shard in memory, with its stage times. ``started``: its start, as ``time.perf_counter`` counts.

    ``lanes``: number of threads that made it. ``peak_bytes``: device memory of one batch.
    """

    finished: FinishedShard
    times: StageTimes
    started: float
    lanes: int
    environment: Environment
    peak_bytes: int


@dataclass(frozen=True, eq=False)
class ShardMaker:
    """Everything resident for one recipe in one process; a shard is a pure function of its number."""

    batcher: Batcher
    environment: Environment
    code_map: CodeMap | None = None

    def make(self, shard: ShardPlan, name: str, on_batch: OnBatch = lambda _: None) -> FinishedShard:
        """The shard's bytes, table and receipt, under the dataset ``name``."""
        with closing(self.make_all([shard], name, on_batch)) as made:
            return next(made).finished

    def make_all(
        self, shards: Iterable[ShardPlan], name: str, on_batch: OnBatch = lambda _: None
    ) -> Generator[TimedShard]:
        """Make ``shards`` in order; while the caller uses one, the next ones are made.

        Samples whose image was refused come first in the next batch, at their next attempt, so batches stay full.
        """
        total = 0

        def on_accepted(count: int) -> None:
            nonlocal total
            total += count
            on_batch(total)

        with self.decoder.lanes() as (count, enter):
            lanes = LanePool(self.batcher.make, count, enter)
            opened = (self.open_assembly(shard, lanes.snapshot()) for shard in shards)
            with closing(lanes.run(opened, on_accepted)) as assemblies:
                for assembly in assemblies:
                    yield self._finish_timed(assembly, name, lanes)

    def open_assembly(self, shard: ShardPlan, started: tuple[float, float]) -> ShardAssembly:
        """An assembly of ``shard`` without samples; ``started``: a ``snapshot`` of the lane pool."""
        form, dims = self.batcher.shard_format, self.sampler.latents.dims
        return ShardAssembly(self.recipe, shard, form, dims, self.code_map, started)

    def finish(self, assembly: ShardAssembly, name: str) -> FinishedShard:
        """Archive, table and receipt of a complete shard, under the dataset ``name``."""
        shard, slots, recipe = assembly.shard, assembly.slots, self.recipe
        with assembly.times.measure("write"):
            archive = assembly.writer.finish()
            slots.record_places(archive)
            keys = sidecar_keys(name, shard.number, recipe.sidecars)
            sidecars = {key: sidecar_bytes(kind, archive.data, field=key) for kind, key in keys.items()}
            table = table_bytes(slots.rows, slots.hashes, recipe.classes, recipe.recipe_version)
        receipt = Receipt(
            recipe=self.batcher.recipe_digest,
            environment=self.environment.digest,
            number=shard.number,
            samples=len(shard),
            counts=tuple(np.bincount(shard.labels_N, minlength=len(recipe.counts)).tolist()),
            refused=slots.refused,
            shard=StoredFile(
                key=shard_key(name, shard.number, recipe.format),
                digest=f"sha256:{archive.sha256}",
                size=len(archive.data),
            ),
            table=_stored(table_key(name, shard.number), table),
            sidecars=tuple(_stored(key, data) for key, data in sidecars.items()),
        )
        return FinishedShard(archive.data, table, receipt, sidecars)

    def remake(self, index: int, attempt: int, label: int) -> bytes:
        """One sample's image file again, from the attempt in its row; no filter is applied."""
        return self.batcher.remake(index, attempt, label)

    @property
    def recipe(self) -> Recipe:
        return self.batcher.recipe

    @property
    def sampler(self) -> Sampler:
        return self.batcher.sampler

    @property
    def decoder(self) -> ResidentDecoder:
        return self.batcher.decoder

    @property
    def screen(self) -> Screen:
        return self.batcher.screen

    def _finish_timed(self, assembly: ShardAssembly, name: str, lanes: LanePool) -> TimedShard:
        finished = self.finish(assembly, name)
        assembly.times.add("wait", lanes.idle_since(assembly.started))
        started, _ = assembly.started
        return TimedShard(finished, assembly.times, started, lanes.count, self.environment, self.decoder.peak_bytes)


def _stored(key: str, data: bytes) -> StoredFile:
    return StoredFile(key=key, digest=digest_of(data), size=len(data))


def open_shard_maker(location: BuildLocation, bundle: Bundle, decoder: ResidentDecoder) -> ShardMaker:
    """The shard maker for the recipe of ``location``.

    Raises ``SpecError`` if bundle and recipe do not match, and what ``read_draw_codes`` raises.
    """
    recipe = location.recipe
    if bundle.digest != recipe.bundle:
        raise SpecError("bundle", f"the bundle {recipe.bundle}", bundle.digest)
    if bundle.info.classes != recipe.classes:
        raise SpecError("classes", f"the bundle's classes {bundle.info.classes}", recipe.classes)
    batcher = Batcher(
        recipe,
        location.recipe_digest,
        Sampler(recipe, bundle.latents, read_draw_codes(location, bundle)),
        decoder,
        open_screen(recipe, bundle, decoder),
        image_encoder(recipe.image, recipe.recipe_version, location.marked_build),
        shard_format(recipe),
    )
    environment = local_environment(str(decoder.device), recipe.dtype, decoder.execution)
    return ShardMaker(batcher, environment, bundle.code_map)
