"""One shard: seeding, latent point, density floor, decoder, screen, encoder, archive, table, receipt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan

import numpy as np

from generator.bundle import Bundle
from generator.canonical import canonical_json, digest_of, sha256_hex
from generator.decoding import ResidentDecoder
from generator.errors import SpecError
from generator.filling import Filling
from generator.filters import Screen, open_screen
from generator.images import ImageEncoder, extension, image_encoder
from generator.plan import ShardPlan
from generator.provenance.environment import Environment
from generator.provenance.here import environment_here
from generator.provenance.manifest import Receipt, StoredFile, shard_key, table_key
from generator.provenance.samples import SampleRows, sample_key, table_bytes
from generator.publish import BuildPlace, MadeShard
from generator.sampling import Sampler
from generator.shards import Member, TarWriter
from generator.spec import Recipe

OnBatch = Callable[[int], None]  # called with the number of images made so far; may raise to stop the shard


@dataclass(frozen=True)
class Maker:
    """All that is resident for one recipe in one process; ``make`` is a pure function of the shard's number."""

    recipe: Recipe
    recipe_digest: str
    environment: Environment
    sampler: Sampler
    decoder: ResidentDecoder
    screen: Screen
    encode: ImageEncoder

    def make(self, shard: ShardPlan, name: str, on_batch: OnBatch = lambda _: None) -> MadeShard:
        """The shard's bytes, table and receipt, under the dataset ``name``.

        Samples whose image was refused come first in the next batch, at their next attempt, so that batches are full.
        """
        filling, files, writer = Filling(self.recipe, shard, self.sampler.latents.dims), dict[int, bytes](), TarWriter()
        while len(places_B := filling.next()):
            labels_B = shard.labels_N[places_B]
            draw = self.sampler.draw(shard.indices_N[places_B], filling.rows.attempts_N[places_B], labels_B)
            images_BHWC = self.decoder.decode(draw.z_BD.astype(np.float32))
            looked = self.screen.look(images_BHWC, labels_B)
            filling.settle(places_B, draw, looked)
            for row in np.flatnonzero(looked.passed_B):
                files[int(places_B[row])] = self.encode(images_BHWC[row])
            for place in filling.in_order():
                self._write(writer, filling.rows, place, files.pop(place), filling.hashes)
            on_batch(filling.done)
        table = table_bytes(filling.rows, filling.hashes, self.recipe.classes)
        return self._receipted(shard, name, writer.finish(), table, filling.refused)

    def remake(self, index: int, attempt: int, label: int) -> bytes:
        """One sample's image file again, from the attempt in its row: nothing is decided anew."""
        draw = self.sampler.once(np.array([index]), np.array([attempt]), np.array([label]))
        return self.encode(self.decoder.decode(draw.z_BD.astype(np.float32))[0])

    def _write(self, writer: TarWriter, rows: SampleRows, place: int, data: bytes, hashes: list[str]) -> None:
        key, label = sample_key(int(rows.indices_N[place])), int(rows.labels_N[place])
        confidence, likely = float(rows.confidence_N[place]), rows.likely_NK
        facts = {
            "index": int(rows.indices_N[place]),
            "attempt": int(rows.attempts_N[place]),
            "label": label if self.recipe.labelled else None,
            "class": self.recipe.classes[label] if self.recipe.labelled else None,
            "cluster": int(rows.clusters_N[place]),
            "log_density": float(rows.log_density_N[place]),
            "label_confidence": None if isnan(confidence) else confidence,
            "likely_labels": likely.labels_NK[place].tolist() or None,
            "likely_probabilities": likely.probability_NK[place].tolist() or None,
            "recipe": self.recipe_digest,
            "synthetic": True,
        }
        members = [Member(extension(self.recipe.image.format), data)]
        members += [Member("cls", str(label).encode())] if self.recipe.labelled else []
        writer.add(key, [*members, Member("json", canonical_json(facts))])
        hashes.append(sha256_hex(data))

    def _receipted(self, shard: ShardPlan, name: str, archive: bytes, table: bytes, refused: int) -> MadeShard:
        receipt = Receipt(
            recipe=self.recipe_digest,
            environment=self.environment.digest,
            number=shard.number,
            samples=len(shard),
            counts=tuple(np.bincount(shard.labels_N, minlength=len(self.recipe.counts)).tolist()),
            refused=refused,
            shard=stored_file(shard_key(name, shard.number), archive),
            table=stored_file(table_key(name, shard.number), table),
        )
        return MadeShard(archive, table, receipt)


def open_maker(place: BuildPlace, bundle: Bundle, decoder: ResidentDecoder) -> Maker:
    """Everything resident for the recipe of ``place``. Raises ``SpecError`` where bundle and recipe do not fit."""
    recipe = place.recipe
    if bundle.digest != recipe.bundle:
        raise SpecError("bundle", f"the bundle {recipe.bundle}", bundle.digest)
    if bundle.info.classes != recipe.classes:
        raise SpecError("classes", f"the bundle's classes {bundle.info.classes}", recipe.classes)
    return Maker(
        recipe,
        place.recipe_digest,
        environment_here(str(decoder.device), recipe.dtype),
        Sampler(recipe, bundle.latents),
        decoder,
        open_screen(recipe, bundle, decoder),
        image_encoder(recipe.image, recipe.recipe_version),
    )


def stored_file(key: str, data: bytes) -> StoredFile:
    """What receipts and manifests say of an object."""
    return StoredFile(key=key, digest=digest_of(data), size=len(data))
