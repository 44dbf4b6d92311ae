"""Small committed builds with arbitrary pixels, written through the real plan, writers and commit protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.errors import DatasetError
from generator.models.screening.soft_labels import SoftLabels
from generator.production.commit import (
    BuildLocation,
    FinishedShard,
    begin_build,
    fix_environment,
    locate_build,
    publish_shard,
)
from generator.production.commit.publish import commit
from generator.production.commit.segments import complete_segments
from generator.production.commit.shard_index import index_bytes
from generator.production.images import extension, image_encoder
from generator.production.provenance.croissant import croissant_bytes
from generator.production.provenance.dataset_card import card_bytes
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import (
    INDEX_KEY,
    ImageFacts,
    ListedManifest,
    Manifest,
    Provenance,
    Receipt,
    SegmentedManifest,
    StoredFile,
    shard_key,
    sidecar_keys,
    table_key,
)
from generator.production.provenance.preview import preview_bytes
from generator.production.provenance.sample_table import SampleRows, sample_key, table_bytes
from generator.production.shards import Member, shard_format, sidecar_bytes
from generator.spec.canonical import canonical_json, digest_of, read_json, sha256_hex
from generator.spec.plan import Plan, ShardPlan
from generator.spec.publication import Creator
from generator.spec.recipe import (
    RECIPE_VERSION,
    ImageSettings,
    JobSpec,
    Order,
    PngSettings,
    Recipe,
    RecipeVersion,
    ShardFormatName,
    Sidecar,
)

BUNDLE = digest_of(b"a bundle")
PNG = PngSettings()
ENVIRONMENT = Environment(device="cpu/test", dtype="float32", libraries={"pillow": "any"})


@dataclass(frozen=True)
class SmallBuild:
    """A small build of ``counts`` samples per class (one count without classes), ``shard_size`` per shard."""

    name: str = "small"
    classes: tuple[str, ...] = ("round", "square")
    counts: tuple[int, ...] = (7, 6)
    shard_size: int = 5
    image: ImageSettings = PNG
    size: int = 8
    channels: int = 1
    seed: int = 0
    recipe_version: RecipeVersion = RECIPE_VERSION
    published: str | None = None
    license: str | None = None
    creator: Creator | None = None
    citation: str | None = None
    format: ShardFormatName = "webdataset"
    sidecars: tuple[Sidecar, ...] = ()

    def spec(self, destination: str) -> JobSpec:
        recipe = Recipe(
            recipe_version=self.recipe_version,
            bundle=BUNDLE,
            classes=self.classes,
            counts=self.counts,
            seed=self.seed,
            image=self.image,
            shard_size=self.shard_size,
            published=self.published,
            license=self.license,
            creator=self.creator,
            citation=self.citation,
            format=self.format,
            sidecars=self.sidecars,
        )
        return JobSpec(recipe=recipe, order=Order(destination=destination, name=self.name))

    def pixels(self, index: int) -> np.ndarray:
        """The image of one sample, uint8 HWC: random pixels of four levels, so that no two images are equal."""
        rng = np.random.default_rng([self.seed, index])
        return rng.integers(0, 4, (self.size, self.size, self.channels), dtype=np.uint8) * 80

    def begin(self, destination: str) -> BuildLocation:
        """Publish all shards and fix the environment, without the commit."""
        location = locate_build(self.spec(destination))
        begin_build(location)
        fix_environment(location, ENVIRONMENT)
        for number in range(Plan(location.recipe).shard_count):
            publish_shard(location, self.shard(location, Plan(location.recipe).shard(number)))
        return location

    def commit(self, destination: str) -> tuple[BuildLocation, Manifest]:
        location = self.begin(destination)
        plan = Plan(location.recipe)
        receipts = tuple(self.shard(location, plan.shard(number)).receipt for number in range(plan.shard_count))
        draft = self.draft(location, receipts)
        labels = plan.shard(0).labels_N.tolist()
        shown = [(self.pixels(i), label if self.classes else None) for i, label in enumerate(labels)]
        extras = {
            "README.md": card_bytes(draft),
            "croissant.json": croissant_bytes(draft),
            "preview.jpg": preview_bytes(shown, self.classes, location.recipe.recipe_version, location.marked_build),
        }
        extras |= {INDEX_KEY: index_bytes(draft)} if self.format == "mds" else {}
        return location, commit(location, draft, extras)

    def draft(self, location: BuildLocation, receipts: tuple[Receipt, ...]) -> Manifest:
        """The manifest without extras: in segments where the plan says so, which are written."""
        facts: dict[str, Any] = {
            "name": self.name,
            "build_id": location.build_id,
            "recipe_digest": location.recipe_digest,
            "recipe": read_json(location.recipe_bytes, field="recipe.json", error=DatasetError),
            "environments": {ENVIRONMENT.digest: ENVIRONMENT.model_dump(mode="json")},
            "provenance": Provenance(
                bundle=BUNDLE,
                model="vae",
                sampler="gaussian-mixture",
                source="digits",
                source_fingerprint=digest_of(b"a source"),
            ),
            "image": ImageFacts(
                height=self.size, width=self.size, channels=self.channels, format=location.recipe.image.format
            ),
            "classes": self.classes,
            "counts": self.counts,
            "samples": sum(receipt.samples for receipt in receipts),
            "bytes": sum(receipt.bytes for receipt in receipts),
            "refused": sum(receipt.refused for receipt in receipts),
            "extras": (),
        }
        if Plan(location.recipe).segment_size:
            segments, _ = complete_segments(location)
            return SegmentedManifest(**facts, segments=segments).bound_to(location.store)
        return ListedManifest(**facts, shards=receipts)

    def shard(self, location: BuildLocation, plan: ShardPlan) -> FinishedShard:
        form = shard_format(location.recipe)
        writer, hashes, encode = (
            form.writer(),
            list[str](),
            image_encoder(self.image, location.recipe.recipe_version, location.marked_build),
        )
        rows = self.rows(plan)
        for row, (index, label) in enumerate(zip(plan.indices_N.tolist(), plan.labels_N.tolist(), strict=True)):
            data = encode(self.pixels(index))
            hashes.append(sha256_hex(data))
            facts = {
                "index": index,
                "attempt": int(rows.attempts_N[row]),
                "label": label if self.classes else None,
                "class": self.classes[label] if self.classes else None,
                "cluster": int(rows.clusters_N[row]),
                "log_density": float(rows.log_density_N[row]),
                "recipe": location.recipe_digest,
                "label_confidence": None,
                "likely_labels": None,
                "likely_probabilities": None,
                "synthetic": True,
            }
            members = [Member(extension(self.image.format), data)]
            members += [Member("cls", str(label).encode())] if self.classes else []
            writer.append(form.pack(sample_key(index), [*members, Member("json", canonical_json(facts))]))
        finished = writer.finish()
        archive, rows.offsets_N[:], rows.sizes_N[:] = finished.data, finished.offsets_N, finished.sizes_N
        keys = sidecar_keys(self.name, plan.number, self.sidecars)
        sidecars = {key: sidecar_bytes(kind, archive, field=key) for kind, key in keys.items()}
        table = table_bytes(rows, hashes, self.classes, location.recipe.recipe_version)
        receipt = Receipt(
            recipe=location.recipe_digest,
            environment=ENVIRONMENT.digest,
            number=plan.number,
            samples=len(plan),
            counts=tuple(np.bincount(plan.labels_N, minlength=len(self.counts)).tolist()),
            refused=plan.number,
            shard=_stored(shard_key(self.name, plan.number, self.format), archive),
            table=_stored(table_key(self.name, plan.number), table),
            sidecars=tuple(_stored(key, data) for key, data in sidecars.items()),
        )
        return FinishedShard(archive, table, receipt, sidecars)

    def rows(self, plan: ShardPlan) -> SampleRows:
        count = len(plan)
        return SampleRows(
            indices_N=plan.indices_N,
            attempts_N=plan.indices_N % 2,
            labels_N=plan.labels_N,
            clusters_N=(plan.indices_N % 3).astype(np.int32),
            log_density_N=-1.5 * np.arange(count),
            confidence_N=np.full(count, np.nan, dtype=np.float32),
            likely_NK=SoftLabels.empty(count),
            latents_ND=np.linspace(-1, 1, 4 * count, dtype=np.float32).reshape(count, 4),
            offsets_N=np.zeros(count, dtype=np.int64),
            sizes_N=np.zeros(count, dtype=np.int64),
            map_N2=np.linspace(-2, 2, 2 * count, dtype=np.float32).reshape(count, 2),
        )


def _stored(key: str, data: bytes) -> StoredFile:
    return StoredFile(key=key, digest=digest_of(data), size=len(data))
