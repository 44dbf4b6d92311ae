"""One batch of samples, from indices to packed samples: latent points, images, screening, encoded files.

A row depends only on its index and attempt, so batches may be made in any order, in parallel, and of any samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan

import numpy as np

from generator.errors import InvalidOutput
from generator.production.decoding import ResidentDecoder
from generator.production.images import ImageEncoder, extension
from generator.production.pipeline.filters import Screen, ScreenResult
from generator.production.pipeline.sampling import Draw, Sampler
from generator.production.pipeline.stage_times import StageTimes
from generator.production.provenance.sample_table import sample_key
from generator.production.shards import Member, PackedSample, ShardFormat
from generator.spec.canonical import canonical_json, sha256_hex
from generator.spec.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples: the draw, the screening result, and each sample that passed, packed, with its image's sha256."""

    draw: Draw
    screened: ScreenResult
    packed: dict[int, PackedSample]  # by row
    hashes: dict[int, str]  # by row, 64 hex digits


@dataclass(frozen=True, eq=False)
class Batcher:
    """Makes the batches of one recipe. Safe to use from several threads."""

    recipe: Recipe
    recipe_digest: str
    sampler: Sampler
    decoder: ResidentDecoder
    screen: Screen
    encoder: ImageEncoder
    shard_format: ShardFormat

    def make(self, indices_B: np.ndarray, attempts_B: np.ndarray, labels_B: np.ndarray, times: StageTimes) -> Batch:
        """Make the samples ``indices_B``, starting at ``attempts_B`` (all int64, at most ``recipe.batch`` rows)."""
        draw, images_BHWC, screened = self.draw_images(indices_B, attempts_B, labels_B, times)
        rows = np.flatnonzero(screened.passed_B)
        with times.measure("encode"):
            files = self.encoder.encode_many(images_BHWC if len(rows) == len(images_BHWC) else images_BHWC[rows])
        with times.measure("write"):
            return self.pack(files, indices_B, labels_B, draw, screened)

    def draw_images(
        self, indices_B: np.ndarray, attempts_B: np.ndarray, labels_B: np.ndarray, times: StageTimes
    ) -> tuple[Draw, np.ndarray, ScreenResult]:
        """Draws, decoded images (uint8 BHWC) and screening results of the same rows as in ``make``, before encoding."""
        with times.measure("latents"):
            draw = self.sampler.draw(indices_B, attempts_B, labels_B)
        with times.measure("decode"):
            images_BHWC = self.decoder.decode(draw.z_BD.astype(np.float32), labels_B)
        with times.measure("screen"):
            return draw, images_BHWC, self.screen.check(images_BHWC, labels_B)

    def pack(
        self, files: list[bytes], indices_B: np.ndarray, labels_B: np.ndarray, draw: Draw, screened: ScreenResult
    ) -> Batch:
        """The batch of ``files``, one for each row that passed: their hashes, and the packed samples."""
        rows = np.flatnonzero(screened.passed_B)
        hashes = {row: sha256_hex(file) for row, file in zip(rows.tolist(), files, strict=True)}
        facts = self._sample_json(rows, indices_B, labels_B, draw, screened)
        packed = dict(zip(hashes, self._pack_samples(files, indices_B[rows], labels_B[rows], facts), strict=True))
        return Batch(draw, screened, packed, hashes)

    def remake(self, index: int, attempt: int, label: int) -> bytes:
        """One sample's image file again, from the attempt in its row; no filter is applied."""
        labels_B = np.array([label])
        draw = self.sampler.draw_attempt(np.array([index]), np.array([attempt]), labels_B)
        return self.encoder(self.decoder.decode(draw.z_BD.astype(np.float32), labels_B)[0])

    def _pack_samples(
        self, files: list[bytes], indices_R: np.ndarray, labels_R: np.ndarray, facts: list[bytes]
    ) -> Iterator[PackedSample]:
        """The samples of R rows."""
        image, pack, labelled = extension(self.recipe.image.format), self.shard_format.pack, self.recipe.labelled
        for file, index, label, fact in zip(files, indices_R.tolist(), labels_R.tolist(), facts, strict=True):
            label_file = [Member("cls", b"%d" % label)] if labelled else []
            yield pack(sample_key(index), [Member(image, file), *label_file, Member("json", fact)])

    def _sample_json(
        self, rows: np.ndarray, indices_B: np.ndarray, labels_B: np.ndarray, draw: Draw, screened: ScreenResult
    ) -> list[bytes]:
        """The canonical JSON of each row in ``rows``, by string formatting: ``json`` takes several times as long."""
        if not np.isfinite(draw.log_density_B[rows]).all():
            raise InvalidOutput("log_density", "finite log-densities", "NaN or infinity")
        named = [canonical_json(name).decode() for name in self.recipe.classes]
        columns = zip(
            draw.attempts_B[rows].tolist(),
            draw.clusters_B[rows].tolist(),
            indices_B[rows].tolist(),
            labels_B[rows].tolist(),
            screened.confidence_B[rows].tolist(),
            screened.likely_BK.labels_NK[rows].tolist(),
            screened.likely_BK.probability_NK[rows].tolist(),
            draw.log_density_B[rows].tolist(),
            strict=True,
        )
        return [
            (
                f'{{"attempt":{attempt},"class":{named[label] if named else "null"},"cluster":{cluster},'
                f'"index":{index},"label":{label if named else "null"},'
                f'"label_confidence":{"null" if isnan(confidence) else repr(confidence)},'
                f'"likely_labels":{_json_list(likely)},"likely_probabilities":{_json_list(probabilities)},'
                f'"log_density":{density!r},"recipe":"{self.recipe_digest}","synthetic":true}}'
            ).encode()
            for attempt, cluster, index, label, confidence, likely, probabilities, density in columns
        ]


def _json_list(values: list[float]) -> str:
    return f"[{','.join(map(repr, values))}]" if values else "null"
