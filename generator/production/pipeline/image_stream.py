"""Images without files: the accepted images of a recipe in any order, for readers in the same process.

Latent points, decoding and screening are those of a build (``Batcher.draw_images``), so pixels and facts are too. Every
decoded batch is filled up with samples that are wanted next, so short batches of a training do not cost whole batches
of the decoder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from generator.errors import InvalidOutput
from generator.production.decoding import build_settings
from generator.production.images import decode_image
from generator.production.pipeline.batches import Batcher
from generator.production.pipeline.filters import ScreenResult, check_attempts
from generator.production.pipeline.sampling import Draw
from generator.production.pipeline.stage_times import StageTimes
from generator.production.provenance.sample_table import sample_key

_BATCHES_AHEAD = 2  # of the decoder: samples that wait for one that is still refused


@dataclass(frozen=True, eq=False)
class StreamedImage:
    """One accepted image: ``pixels`` uint8 HWC; ``facts`` as in the JSON of a stored sample, and its ``key``."""

    pixels: np.ndarray
    label: int
    facts: dict[str, Any]


@dataclass(eq=False)
class _Wanted:
    index: int
    label: int
    attempt: int = 0
    image: StreamedImage | None = None


@final
class ImageStream:
    """The images of one batcher's recipe, decoded in the calling thread, as one lane of a build does it.

    Two batches of the decoder are held at most, whatever is asked for, and torch's settings are those of the caller
    again whenever an image is given.
    ``batcher.encoder`` is used where the format loses pixels (JPEG): the image is then the one that the file holds.
    """

    def __init__(self, batcher: Batcher) -> None:
        self._batcher, self._times = batcher, StageTimes()
        self._accepted = self._drawn = 0

    def images(self, wanted: Iterable[tuple[int, int]]) -> Iterator[StreamedImage]:
        """The images of the samples ``(index, label)``, in the order asked for; ``wanted`` is read ahead.

        Raises ``RejectionExhausted``, ``InvalidOutput``, ``DeviceExhausted``.
        """
        size, source = self._batcher.recipe.batch, iter(wanted)
        waiting, refused = deque[_Wanted](), deque[_Wanted]()
        while True:
            batch = [refused.popleft() for _ in range(min(size, len(refused)))]
            while len(batch) < size and len(waiting) < _BATCHES_AHEAD * size:
                if (fresh := next(source, None)) is None:
                    break
                batch.append(_Wanted(*fresh))
                waiting.append(batch[-1])
            if not batch:
                return
            refused.extend(self._make(batch))
            while waiting and (image := waiting[0].image) is not None:
                waiting.popleft()
                yield image

    def _make(self, batch: list[_Wanted]) -> list[_Wanted]:
        """Make one batch of the decoder. Returns the samples that were refused, at their next attempt."""
        indices_B, attempts_B, labels_B = (
            np.array([getattr(each, name) for each in batch], dtype=np.int64) for name in ("index", "attempt", "label")
        )
        with build_settings(), self._batcher.decoder.lanes() as (_, enter):
            enter()
            draw, images_BHWC, screened = self._batcher.draw_images(indices_B, attempts_B, labels_B, self._times)
        rows = np.flatnonzero(screened.passed_B).tolist()
        files = self._pixels(images_BHWC[screened.passed_B])
        for row, pixels, facts in zip(rows, files, self._facts(rows, batch, draw, screened), strict=True):
            batch[row].image = StreamedImage(pixels, batch[row].label, facts)
        self._accepted += len(rows)
        self._drawn += len(batch) + draw.refused
        return self._refuse(batch, draw)

    def _refuse(self, batch: list[_Wanted], draw: Draw) -> list[_Wanted]:
        refused = [row for row, each in enumerate(batch) if each.image is None]
        attempts_M = draw.attempts_B[refused] + 1
        limit = self._batcher.recipe.max_attempts
        check_attempts(attempts_M, limit, accepted=self._accepted, drawn=self._drawn)
        for row, attempt in zip(refused, attempts_M.tolist(), strict=True):
            batch[row].attempt = attempt
        return [batch[row] for row in refused]

    def _pixels(self, images_BHWC: np.ndarray) -> list[np.ndarray]:
        """The images as a reader of the file would get them, each with memory of its own."""
        if self._batcher.recipe.image.format == "png":
            return [image_HWC.copy() for image_HWC in images_BHWC]
        files = self._batcher.encoder.encode_many(images_BHWC)
        return [decode_image(file, field="image") for file in files]

    def _facts(
        self, rows: list[int], batch: list[_Wanted], draw: Draw, screened: ScreenResult
    ) -> Iterator[dict[str, Any]]:
        recipe, digest = self._batcher.recipe, self._batcher.recipe_digest
        if not np.isfinite(draw.log_density_B[rows]).all():
            raise InvalidOutput("log_density", "finite log-densities", "NaN or infinity")
        attempts, clusters, densities = draw.attempts_B.tolist(), draw.clusters_B.tolist(), draw.log_density_B.tolist()
        confidence, likely = screened.confidence_B.tolist(), screened.likely_BK
        for row in rows:
            index, label = batch[row].index, batch[row].label
            facts = {"key": sample_key(index), "attempt": attempts[row]}
            facts |= {"class": recipe.classes[label]} if recipe.labelled else {}
            facts |= {"cluster": clusters[row], "index": index} | ({"label": label} if recipe.labelled else {})
            if likely.labels_NK.shape[1]:
                facts |= {"label_confidence": confidence[row], "likely_labels": likely.labels_NK[row].tolist()}
                facts["likely_probabilities"] = likely.probability_NK[row].tolist()
            yield facts | {"log_density": densities[row], "recipe": digest, "synthetic": True}
