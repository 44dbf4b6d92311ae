"""One shard: seeding, latent point, density floor, decoder, validity, encoder, archive, table, receipt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from generator.bundle import Bundle
from generator.canonical import canonical_json, digest_of, sha256_hex
from generator.decoding import ResidentDecoder
from generator.errors import SpecError
from generator.filters import check_attempts, valid_images
from generator.images import extension, image_encoder
from generator.images.codec import Encode
from generator.plan import ShardPlan
from generator.provenance.environment import Environment
from generator.provenance.here import environment_here
from generator.provenance.manifest import Receipt, StoredFile, shard_key, table_key
from generator.provenance.samples import SampleRows, join_rows, sample_key, table_bytes
from generator.publish import BuildPlace, MadeShard
from generator.sampling import Draw, Sampler, patched
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
    encode: Encode

    def make(self, shard: ShardPlan, name: str, on_batch: OnBatch = lambda _: None) -> MadeShard:
        """The shard's bytes, table and receipt, under the dataset ``name``."""
        writer, rows, hashes, refused = TarWriter(), list[SampleRows](), list[str](), 0
        for start in range(0, len(shard), self.recipe.batch):
            part = slice(start, start + self.recipe.batch)
            images_BHWC, draw = self._images(shard.indices_N[part], shard.labels_N[part])
            batch = _rows(shard.indices_N[part], shard.labels_N[part], draw)
            hashes += [self._write(writer, batch, row, image) for row, image in enumerate(images_BHWC)]
            rows.append(batch)
            refused += draw.refused
            on_batch(len(hashes))
        table = table_bytes(join_rows(rows), hashes, self.recipe.classes)
        return self._receipted(shard, name, writer.finish(), table, refused)

    def remake(self, index: int, attempt: int, label: int) -> bytes:
        """One sample's image file again, from the attempt in its row: nothing is decided anew."""
        draw = self.sampler.once(np.array([index]), np.array([attempt]), np.array([label]))
        return self.encode(self.decoder.decode(draw.z_BD.astype(np.float32))[0])

    def _images(self, indices_B: np.ndarray, labels_B: np.ndarray) -> tuple[np.ndarray, Draw]:
        draw = self.sampler.draw(indices_B, np.zeros_like(indices_B), labels_B)
        images_BHWC = self.decoder.decode(draw.z_BD.astype(np.float32))
        while len(bad := np.flatnonzero(~valid_images(images_BHWC))):
            attempts = draw.attempts_B[bad] + 1
            drawn = len(indices_B) + draw.refused + len(bad)
            check_attempts(attempts, self.recipe.max_attempts, accepted=len(indices_B) - len(bad), drawn=drawn)
            again = self.sampler.draw(indices_B[bad], attempts, labels_B[bad])
            images_BHWC[bad] = self.decoder.decode(again.z_BD.astype(np.float32))
            draw = patched(draw, bad, again)
        return images_BHWC, draw

    def _write(self, writer: TarWriter, rows: SampleRows, row: int, image_HWC: np.ndarray) -> str:
        data = self.encode(image_HWC)
        key, label = sample_key(int(rows.indices_N[row])), int(rows.labels_N[row])
        facts = {
            "index": int(rows.indices_N[row]),
            "attempt": int(rows.attempts_N[row]),
            "label": label if self.recipe.labelled else None,
            "class": self.recipe.classes[label] if self.recipe.labelled else None,
            "cluster": int(rows.clusters_N[row]),
            "log_density": float(rows.log_density_N[row]),
            "recipe": self.recipe_digest,
            "synthetic": True,
        }
        members = [Member(extension(self.recipe.image.format), data)]
        members += [Member("cls", str(label).encode())] if self.recipe.labelled else []
        writer.add(key, [*members, Member("json", canonical_json(facts))])
        return sha256_hex(data)

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
        image_encoder(recipe.image, recipe.recipe_version),
    )


def stored_file(key: str, data: bytes) -> StoredFile:
    """What receipts and manifests say of an object."""
    return StoredFile(key=key, digest=digest_of(data), size=len(data))


def _rows(indices_B: np.ndarray, labels_B: np.ndarray, draw: Draw) -> SampleRows:
    latents_BD = draw.z_BD.astype(np.float32)
    return SampleRows(indices_B, draw.attempts_B, labels_B, draw.clusters_B, draw.log_density_B, latents_BD)
