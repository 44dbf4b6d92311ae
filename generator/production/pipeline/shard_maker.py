"""Shards: batches side by side, put together in the order of the plan; archive, table and receipt."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from generator.errors import SpecError
from generator.models.bundle import Bundle
from generator.production.commit import BuildPlace, MadeShard
from generator.production.decoding import ResidentDecoder
from generator.production.images import image_encoder
from generator.production.pipeline.assembly import Assembly
from generator.production.pipeline.batches import Batcher
from generator.production.pipeline.filters import Screen, open_screen
from generator.production.pipeline.lane_pool import Lanes
from generator.production.pipeline.sampling import Sampler
from generator.production.pipeline.stage_times import StageTimes
from generator.production.provenance.environment import Environment
from generator.production.provenance.local_environment import environment_here
from generator.production.provenance.manifest import Receipt, StoredFile, shard_key, table_key
from generator.production.provenance.sample_table import table_bytes
from generator.spec.canonical import digest_of
from generator.spec.plan import ShardPlan
from generator.spec.recipe import Recipe

OnBatch = Callable[[int], None]  # called with the number of images made so far; may raise to stop the work


@dataclass(frozen=True, eq=False)
class Timed:
    """A shard in memory, and what making it took, since ``begun`` (as ``time.perf_counter`` counts).

    ``lanes`` worked side by side, on a device that had ``peak_bytes`` of its memory taken by a batch.
    """

    made: MadeShard
    times: StageTimes
    begun: float
    lanes: int
    environment: Environment
    peak_bytes: int


@dataclass(frozen=True, eq=False)
class Maker:
    """All that is resident for one recipe in one process; a shard is a pure function of its number."""

    batcher: Batcher
    environment: Environment

    def make(self, shard: ShardPlan, name: str, on_batch: OnBatch = lambda _: None) -> MadeShard:
        """The shard's bytes, table and receipt, under the dataset ``name``."""
        with closing(self.make_all([shard], name, on_batch)) as made:
            return next(made).made

    def make_all(self, shards: Iterable[ShardPlan], name: str, on_batch: OnBatch = lambda _: None) -> Generator[Timed]:
        """``shards`` one after the other; while one is taken the next ones are made.

        Samples whose image was refused come first in the next batch, at their next attempt, so that batches are full.
        """
        dims, made = self.sampler.latents.dims, 0

        def settled(count: int) -> None:
            nonlocal made
            made += count
            on_batch(made)

        with self.decoder.lanes() as (count, enter):
            lanes = Lanes(self.batcher.make, count, enter)
            opened = (Assembly(self.recipe, shard, dims, lanes.now()) for shard in shards)
            with closing(lanes.run(opened, settled)) as assemblies:
                for assembly in assemblies:
                    yield self._finished(assembly, name, lanes)

    def remake(self, index: int, attempt: int, label: int) -> bytes:
        """One sample's image file again, from the attempt in its row: nothing is decided anew."""
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

    def _finished(self, assembly: Assembly, name: str, lanes: Lanes) -> Timed:
        made = self._receipted(assembly, name)
        assembly.times.add("wait", lanes.idle_since(assembly.begun))
        begun, _ = assembly.begun
        return Timed(made, assembly.times, begun, lanes.count, self.environment, self.decoder.peak_bytes)

    def _receipted(self, assembly: Assembly, name: str) -> MadeShard:
        shard, filling = assembly.shard, assembly.filling
        with assembly.times.of("write"):
            archive = assembly.writer.finish()
            table = table_bytes(filling.rows, filling.hashes, self.recipe.classes)
        receipt = Receipt(
            recipe=self.batcher.recipe_digest,
            environment=self.environment.digest,
            number=shard.number,
            samples=len(shard),
            counts=tuple(np.bincount(shard.labels_N, minlength=len(self.recipe.counts)).tolist()),
            refused=filling.refused,
            shard=StoredFile(
                key=shard_key(name, shard.number), digest=f"sha256:{assembly.writer.sha256}", size=len(archive)
            ),
            table=StoredFile(key=table_key(name, shard.number), digest=digest_of(table), size=len(table)),
        )
        return MadeShard(archive, table, receipt)


def open_maker(place: BuildPlace, bundle: Bundle, decoder: ResidentDecoder) -> Maker:
    """Everything resident for the recipe of ``place``. Raises ``SpecError`` where bundle and recipe do not fit."""
    recipe = place.recipe
    if bundle.digest != recipe.bundle:
        raise SpecError("bundle", f"the bundle {recipe.bundle}", bundle.digest)
    if bundle.info.classes != recipe.classes:
        raise SpecError("classes", f"the bundle's classes {bundle.info.classes}", recipe.classes)
    batcher = Batcher(
        recipe,
        place.recipe_digest,
        Sampler(recipe, bundle.latents),
        decoder,
        open_screen(recipe, bundle, decoder),
        image_encoder(recipe.image, recipe.recipe_version),
    )
    return Maker(batcher, environment_here(str(decoder.device), recipe.dtype, decoder.execution))
