"""A shard on its way: which samples come next, and the archive that grows, in the order of the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np

from generator.production.pipeline.batches import Batch
from generator.production.pipeline.slots import Filling
from generator.production.pipeline.stage_times import StageTimes
from generator.production.shards import TarWriter
from generator.spec.plan import ShardPlan
from generator.spec.recipe import Recipe


@final
class Assembly:
    """One shard while it is made, ``begun`` at a moment of its lanes.

    Used by one thread; the batches that it asks for may be made by any other.
    """

    def __init__(self, recipe: Recipe, shard: ShardPlan, dims: int, begun: tuple[float, float]) -> None:
        self.begun = begun
        self.shard, self.times, self.writer = shard, StageTimes(), TarWriter()
        self.filling = Filling(recipe, shard, dims)
        self._refuses = recipe.label_floor is not None or recipe.novelty_floor is not None
        self._batch, self._flying = recipe.batch, 0
        self._waiting: dict[int, tuple[bytes, str]] = {}

    @property
    def whole(self) -> bool:
        """Whether every sample is in the archive."""
        return self.filling.done == len(self.shard)

    def next(self) -> np.ndarray:
        """Places of the next batch, int64; empty when none can be begun now.

        A batch that is not full waits for those under way where images may be refused, as these would fill it.
        """
        if self.filling.ready < self._batch and self._flying and self._refuses:
            return np.empty(0, dtype=np.int64)
        places_B = self.filling.next()
        self._flying += len(places_B) > 0
        return places_B

    def work(self, make: Callable[..., Batch], places_B: np.ndarray) -> Callable[[], Batch]:
        """What makes the batch of ``places_B``."""
        indices_B, labels_B = self.shard.indices_N[places_B], self.shard.labels_N[places_B]
        attempts_B = self.filling.rows.attempts_N[places_B]
        return lambda: make(indices_B, attempts_B, labels_B, self.times)

    def settle(self, places_B: np.ndarray, batch: Batch) -> None:
        """A batch is made: what passed goes into the archive as soon as all before it is there.

        Raises ``RejectionExhausted``.
        """
        self._flying -= 1
        self.filling.settle(places_B, batch.draw, batch.looked)
        with self.times.of("write"):
            for row, block in batch.blocks.items():
                self._waiting[int(places_B[row])] = block, batch.hashes[row]
            for place in self.filling.in_order():
                block, image_hash = self._waiting.pop(place)
                self.writer.append(block)
                self.filling.hashes.append(image_hash)
