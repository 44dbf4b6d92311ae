"""One shard being assembled: its next batch, and the archive, written in the order of the plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np

from generator.models.latents.code_map import CodeMap
from generator.production.pipeline.batches import Batch
from generator.production.pipeline.slots import SampleSlots
from generator.production.pipeline.stage_times import StageTimes
from generator.production.shards import PackedSample, ShardFormat
from generator.spec.plan import ShardPlan
from generator.spec.recipe import Recipe


@final
class ShardAssembly:
    """One shard being assembled. ``started``: the lane pool's ``snapshot`` at its start.

    Used by one thread; its batches may be made by other threads.
    """

    def __init__(
        self,
        recipe: Recipe,
        shard: ShardPlan,
        shard_format: ShardFormat,
        dims: int,
        code_map: CodeMap | None,
        started: tuple[float, float],
    ) -> None:
        self.started = started
        self.shard, self.times, self.writer = shard, StageTimes(), shard_format.writer()
        self.slots = SampleSlots(recipe, shard, dims, code_map)
        self._screens = recipe.class_floors is not None or recipe.novelty_floor is not None
        self._batch, self._in_flight = recipe.batch, 0
        self._pending: dict[int, tuple[PackedSample, str]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether every sample is in the archive."""
        return self.slots.accepted == len(self.shard)

    def next_slots(self) -> np.ndarray:
        """The slots of the next batch, int64; empty if none can be started now.

        If images may be refused, a partial batch waits for the batches in flight, whose refused samples may fill it.
        """
        if self.slots.available < self._batch and self._in_flight and self._screens:
            return np.empty(0, dtype=np.int64)
        slots_B = self.slots.next_slots()
        self._in_flight += len(slots_B) > 0
        return slots_B

    def prepare_batch(self, make: Callable[..., Batch], slots_B: np.ndarray) -> Callable[[], Batch]:
        """A function that makes the batch of ``slots_B``."""
        indices_B, labels_B = self.shard.indices_N[slots_B], self.shard.labels_N[slots_B]
        attempts_B = self.slots.rows.attempts_N[slots_B]
        return lambda: make(indices_B, attempts_B, labels_B, self.times)

    def add_batch(self, slots_B: np.ndarray, batch: Batch) -> None:
        """Add a finished batch. A sample that passed is written once all samples before it are in the archive.

        Raises ``RejectionExhausted``.
        """
        self._in_flight -= 1
        self.slots.record_batch(slots_B, batch.draw, batch.screened)
        with self.times.measure("write"):
            slots = slots_B.tolist()
            for row, sample in batch.packed.items():
                self._pending[slots[row]] = sample, batch.hashes[row]
            for slot in self.slots.writable_slots():
                sample, image_hash = self._pending.pop(slot)
                self.writer.append(sample)
                self.slots.record_hash(image_hash)
