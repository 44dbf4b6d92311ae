"""A shard on its way: which samples come next, and the archive that grows, in the order of the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np

from generator.production.pipeline.batches import Batch
from generator.production.pipeline.slots import SampleSlots
from generator.production.pipeline.stage_times import StageTimes
from generator.production.shards import TarWriter
from generator.spec.plan import ShardPlan
from generator.spec.recipe import Recipe


@final
class ShardAssembly:
    """One shard while it is made, ``begun`` at a moment of its lanes.

    Used by one thread; the batches that it asks for may be made by any other.
    """

    def __init__(self, recipe: Recipe, shard: ShardPlan, dims: int, begun: tuple[float, float]) -> None:
        self.started = begun
        self.shard, self.times, self.writer = shard, StageTimes(), TarWriter()
        self.slots = SampleSlots(recipe, shard, dims)
        self._screens = recipe.label_floor is not None or recipe.novelty_floor is not None
        self._batch, self._in_flight = recipe.batch, 0
        self._pending_blocks: dict[int, tuple[bytes, str]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether every sample is in the archive."""
        return self.slots.accepted == len(self.shard)

    def next_slots(self) -> np.ndarray:
        """Places of the next batch, int64; empty when none can be begun now.

        A batch that is not full waits for those under way where images may be refused, as these would fill it.
        """
        if self.slots.available < self._batch and self._in_flight and self._screens:
            return np.empty(0, dtype=np.int64)
        places_B = self.slots.next_slots()
        self._in_flight += len(places_B) > 0
        return places_B

    def prepare_batch(self, make: Callable[..., Batch], places_B: np.ndarray) -> Callable[[], Batch]:
        """What makes the batch of ``places_B``."""
        indices_B, labels_B = self.shard.indices_N[places_B], self.shard.labels_N[places_B]
        attempts_B = self.slots.rows.attempts_N[places_B]
        return lambda: make(indices_B, attempts_B, labels_B, self.times)

    def add_batch(self, places_B: np.ndarray, batch: Batch) -> None:
        """A batch is made: what passed goes into the archive as soon as all before it is there.

        Raises ``RejectionExhausted``.
        """
        self._in_flight -= 1
        self.slots.record_batch(places_B, batch.draw, batch.screened)
        with self.times.measure("write"):
            for row, block in batch.blocks.items():
                self._pending_blocks[int(places_B[row])] = block, batch.hashes[row]
            for place in self.slots.writable_slots():
                block, image_hash = self._pending_blocks.pop(place)
                self.writer.append_block(block)
                self.slots.hashes.append(image_hash)
