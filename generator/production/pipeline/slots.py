"""Which samples of a shard are drawn next, and what is known of those that are done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from generator.models.screening.soft_labels import MAX_LABELS, SoftLabels
from generator.production.pipeline.filters import ScreenResult, check_attempts
from generator.production.pipeline.sampling import Draw
from generator.production.provenance.sample_table import SampleRows
from generator.spec.plan import ShardPlan
from generator.spec.recipe import Recipe


@final
class SampleSlots:
    """A shard on its way: places 0 .. N - 1 of its samples, each drawn again until its image is accepted.

    ``rows`` is whole once all are done; ``hashes`` are those of the image files written so far, in order.
    """

    def __init__(self, recipe: Recipe, shard: ShardPlan, dims: int) -> None:
        count = len(shard)
        self.rows = SampleRows(
            indices_N=shard.indices_N,
            attempts_N=np.zeros(count, dtype=np.int64),
            labels_N=shard.labels_N,
            clusters_N=np.zeros(count, dtype=np.int32),
            log_density_N=np.zeros(count),
            confidence_N=np.full(count, np.nan, dtype=np.float32),
            likely_NK=SoftLabels.empty(
                count, min(MAX_LABELS, len(recipe.classes)) if recipe.label_floor is not None else 0
            ),
            latents_ND=np.zeros((count, dims), dtype=np.float32),
        )
        self.hashes, self.refused = list[str](), 0
        self._recipe, self._next_new = recipe, 0
        self._retry_M, self._accepted_N = np.empty(0, dtype=np.int64), np.zeros(count, dtype=bool)

    @property
    def accepted(self) -> int:
        """Samples with an accepted image."""
        return int(self._accepted_N.sum())

    @property
    def available(self) -> int:
        """Samples that may be drawn now."""
        return len(self._retry_M) + len(self._accepted_N) - self._next_new

    def next_slots(self) -> np.ndarray:
        """Places of the next batch, int64: refused ones first, then new ones. Empty when all are drawn."""
        again_B = self._retry_M[: self._recipe.batch]
        end = min(self._next_new + self._recipe.batch - len(again_B), len(self._accepted_N))
        places_B = np.concatenate([again_B, np.arange(self._next_new, end)])
        self._retry_M, self._next_new = self._retry_M[len(again_B) :], end
        return places_B

    def record_batch(self, places_B: np.ndarray, draw: Draw, looked: ScreenResult) -> None:
        """Note what was drawn for a batch: what passed is done, the rest goes to its next attempt.

        Raises ``RejectionExhausted`` for a sample that has none left.
        """
        self.rows.attempts_N[places_B] = draw.attempts_B
        self.rows.clusters_N[places_B] = draw.clusters_B
        self.rows.log_density_N[places_B] = draw.log_density_B
        self.rows.confidence_N[places_B] = looked.confidence_B
        self.rows.likely_NK.labels_NK[places_B] = looked.likely_BK.labels_NK
        self.rows.likely_NK.probability_NK[places_B] = looked.likely_BK.probability_NK
        self.rows.latents_ND[places_B] = draw.z_BD
        self._accepted_N[places_B[looked.passed_B]] = True
        again_M = places_B[~looked.passed_B]
        self.refused += draw.refused + len(again_M)
        self.rows.attempts_N[again_M] += 1
        check_attempts(
            self.rows.attempts_N[again_M],
            self._recipe.max_attempts,
            accepted=self.accepted,
            drawn=self.accepted + self.refused,
        )
        self._retry_M = np.concatenate([self._retry_M, again_M])

    def writable_slots(self) -> Iterator[int]:
        """Places that can be written now: done, and all before them as well. Each must be written before the next."""
        while len(self.hashes) < len(self._accepted_N) and self._accepted_N[len(self.hashes)]:
            yield len(self.hashes)
