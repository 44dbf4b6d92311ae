"""The sample slots of one shard: which are drawn next, and the table rows of those that are done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from generator.models.latents.code_map import CodeMap
from generator.models.screening.soft_labels import MAX_LABELS, SoftLabels
from generator.production.pipeline.filters import ScreenResult, check_attempts
from generator.production.pipeline.sampling import Draw
from generator.production.provenance.sample_table import SampleRows, latent_type
from generator.production.shards import FinishedArchive
from generator.spec.plan import ShardPlan
from generator.spec.recipe import Recipe


@final
class SampleSlots:
    """The sample slots 0 .. N - 1 of one shard; each is drawn until its image is accepted.

    ``rows`` is complete when all slots are done. ``hashes``: sha256 of the image files written so far, in order.
    ``code_map``: gives the coordinates in the table; without it they are absent.
    """

    def __init__(self, recipe: Recipe, shard: ShardPlan, dims: int, code_map: CodeMap | None) -> None:
        count, number_type = len(shard), latent_type(recipe, dims)
        self.rows = SampleRows(
            indices_N=shard.indices_N,
            attempts_N=np.zeros(count, dtype=np.int64),
            labels_N=shard.labels_N,
            clusters_N=np.zeros(count, dtype=np.int32),
            log_density_N=np.zeros(count),
            confidence_N=np.full(count, np.nan, dtype=np.float32),
            likely_NK=SoftLabels.empty(
                count, min(MAX_LABELS, len(recipe.classes)) if recipe.class_floors is not None else 0
            ),
            latents_ND=None if number_type is None else np.zeros((count, dims), dtype=number_type),
            offsets_N=np.zeros(count, dtype=np.int64),
            sizes_N=np.zeros(count, dtype=np.int64),
            map_N2=np.full((count, 2), np.nan, dtype=np.float32),
        )
        self._code_map = code_map
        self.hashes, self.refused = list[str](), 0
        self._recipe, self._next_new = recipe, 0
        self._retry_M, self._accepted_N = np.empty(0, dtype=np.int64), np.zeros(count, dtype=bool)

    @property
    def accepted(self) -> int:
        """Number of slots with an accepted image."""
        return int(self._accepted_N.sum())

    @property
    def available(self) -> int:
        """Number of slots that can be drawn now."""
        return len(self._retry_M) + len(self._accepted_N) - self._next_new

    def next_slots(self) -> np.ndarray:
        """The slots of the next batch, int64: refused ones first, then new ones. Empty when none can be drawn."""
        retry_B = self._retry_M[: self._recipe.batch]
        end = min(self._next_new + self._recipe.batch - len(retry_B), len(self._accepted_N))
        slots_B = np.concatenate([retry_B, np.arange(self._next_new, end)])
        self._retry_M, self._next_new = self._retry_M[len(retry_B) :], end
        return slots_B

    def record_batch(self, slots_B: np.ndarray, draw: Draw, screened: ScreenResult) -> None:
        """Record the result of a batch: slots that passed are done, the others go to their next attempt.

        Raises ``RejectionExhausted`` if a slot has no attempt left.
        """
        self.rows.attempts_N[slots_B] = draw.attempts_B
        self.rows.clusters_N[slots_B] = draw.clusters_B
        self.rows.log_density_N[slots_B] = draw.log_density_B
        self.rows.confidence_N[slots_B] = screened.confidence_B
        self.rows.likely_NK.labels_NK[slots_B] = screened.likely_BK.labels_NK
        self.rows.likely_NK.probability_NK[slots_B] = screened.likely_BK.probability_NK
        if self.rows.latents_ND is not None:
            self.rows.latents_ND[slots_B] = _limit_to_range(draw.z_BD, self.rows.latents_ND.dtype)
        if self._code_map is not None:
            self.rows.map_N2[slots_B] = self._code_map.coordinates(draw.z_BD)
        self._accepted_N[slots_B[screened.passed_B]] = True
        refused_M = slots_B[~screened.passed_B]
        self.refused += draw.refused + len(refused_M)
        self.rows.attempts_N[refused_M] += 1
        check_attempts(
            self.rows.attempts_N[refused_M],
            self._recipe.max_attempts,
            accepted=self.accepted,
            drawn=self.accepted + self.refused,
        )
        self._retry_M = np.concatenate([self._retry_M, refused_M])

    def writable_slots(self) -> Iterator[int]:
        """The slots that can be written now: done, like all slots before them.

        The caller must call ``record_hash`` for each slot before it asks for the next one.
        """
        while len(self.hashes) < len(self._accepted_N) and self._accepted_N[len(self.hashes)]:
            yield len(self.hashes)

    def record_hash(self, image_hash: str) -> None:
        """Record that the next slot was written: the sha256 of its image file."""
        self.hashes.append(image_hash)

    def record_places(self, archive: FinishedArchive) -> None:
        """Record where in the finished shard the image files lie."""
        self.rows.offsets_N[:], self.rows.sizes_N[:] = archive.offsets_N, archive.sizes_N


def _limit_to_range(z_BD: np.ndarray, dtype: np.dtype[np.floating]) -> np.ndarray:
    """``z_BD``, with numbers outside the range of ``float16`` replaced by the nearest one inside."""
    limit = float(np.finfo(dtype).max)
    return np.clip(z_BD, -limit, limit) if dtype == np.float16 else z_BD
