"""A build of a million samples for measuring pages: real tables and receipts, and one real archive under many names.

``python -m benchmarks.page_build DESTINATION [--samples N] [--archives N]``

The archive of shard 0 is stored again as the archive of the first ``--archives`` shards (all of them in a local
directory, where it costs nothing: links). Rows are drawn from a distribution of ten classes with three clusters each.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from generator.models.screening.soft_labels import SoftLabels
from generator.production.commit import BuildLocation, begin_build, fix_environment, locate_build
from generator.production.commit.publish import commit
from generator.production.images import extension, image_encoder
from generator.production.provenance.croissant import croissant_bytes
from generator.production.provenance.dataset_card import card_bytes
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import (
    ImageFacts,
    ListedManifest,
    Manifest,
    Provenance,
    Receipt,
    StoredFile,
    receipt_key,
    shard_key,
    table_key,
)
from generator.production.provenance.preview import preview_bytes
from generator.production.provenance.sample_table import SampleRows, sample_key, table_bytes
from generator.production.shards import Member, shard_format
from generator.spec.canonical import canonical_json, digest_of, sha256_hex
from generator.spec.plan import Plan, ShardPlan
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import S3Settings

CLASSES = tuple(f"class {number}" for number in range(10))
_CLUSTERS, _DIMS, _SIDE = 3, 64, 32
_ENVIRONMENT = Environment(device="cpu/benchmark", dtype="float32", libraries={})


def make_build(
    destination: str,
    name: str,
    samples: int,
    archives: int,
    *,
    shard_size: int = 1000,
    seed: int = 0,
    s3: S3Settings | None = None,
) -> str:
    """Write the build and return its URL."""
    counts = tuple(samples // len(CLASSES) + (label < samples % len(CLASSES)) for label in range(len(CLASSES)))
    recipe = Recipe(
        bundle=digest_of(b"benchmark"),
        classes=CLASSES,
        counts=counts,
        seed=seed,
        shard_size=shard_size,
        published="2026-01-01",
    )
    location = locate_build(JobSpec(recipe=recipe, order=Order(destination=destination, name=name)), s3)
    begin_build(location)
    fix_environment(location, _ENVIRONMENT)
    plan, receipts = Plan(recipe), list[Receipt]()
    archive, places, hashes = _archive(location, plan.shard(0))
    for shard in plan:
        rows = _rows(shard, places, seed)
        table = table_bytes(rows, hashes[: len(shard)], recipe.classes, recipe.recipe_version)
        receipts.append(
            _publish(
                *(location, shard, archive, table, int(rows.attempts_N.sum())), with_archive=shard.number < archives
            )
        )
    manifest = _manifest(location, tuple(receipts))
    pictures = [(_image(row), int(label)) for row, label in enumerate(plan.shard(0).labels_N[:100])]
    extras = {
        "README.md": card_bytes(manifest),
        "croissant.json": croissant_bytes(manifest),
        "preview.jpg": preview_bytes(pictures, recipe.classes, recipe.recipe_version, location.marked_build),
    }
    commit(location, manifest, extras)
    return location.url


def _archive(location: BuildLocation, shard: ShardPlan) -> tuple[bytes, np.ndarray, list[str]]:
    """An archive, the offset and size of each image in it (int64, N x 2), and the digest of each image."""
    recipe, form = location.recipe, shard_format(location.recipe)
    writer = form.writer()
    encoder, suffix = image_encoder(recipe.image, recipe.recipe_version, location.marked_build), ""
    suffix, hashes = extension(recipe.image.format), list[str]()
    for index, label in zip(shard.indices_N.tolist(), shard.labels_N.tolist(), strict=True):
        file = encoder(_image(index))
        facts = canonical_json({"index": index, "label": label, "synthetic": True})
        members = [Member(suffix, file), Member("cls", b"%d" % label), Member("json", facts)]
        writer.append(form.pack(sample_key(index), members))
        hashes.append(sha256_hex(file))
    archive = writer.finish()
    return archive.data, np.stack([archive.offsets_N, archive.sizes_N], axis=1), hashes


def _image(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    phases = rng.uniform(0, 6.3, 3)
    waves = [np.sin(6 * (x * np.cos(phase) + y * np.sin(phase)) + phase) for phase in phases]
    return (127.5 + 127.5 * np.stack(waves, axis=2)).astype(np.uint8)


def _rows(shard: ShardPlan, places: np.ndarray, seed: int) -> SampleRows:
    rng, count = np.random.default_rng((seed, shard.number)), len(shard)
    clusters_N = rng.integers(0, _CLUSTERS, count).astype(np.int32)
    angle_N = 2 * np.pi * (shard.labels_N / len(CLASSES)) + 0.15 * (clusters_N - 1)
    centre_N2 = (6.0 + clusters_N[:, None]) * np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)
    map_N2 = (centre_N2 + rng.normal(size=(count, 2))).astype(np.float32)
    confidence_N = rng.beta(8.0, 1.0, count).astype(np.float32)
    rest_NC = rng.dirichlet(np.ones(len(CLASSES)), count)
    rest_NC[np.arange(count), shard.labels_N] += 9.0
    return SampleRows(
        indices_N=shard.indices_N,
        attempts_N=rng.geometric(0.8, count) - 1,
        labels_N=shard.labels_N,
        clusters_N=clusters_N,
        log_density_N=rng.normal(-90.0, 8.0, count),
        confidence_N=confidence_N,
        likely_NK=SoftLabels.from_probabilities((rest_NC / 10.0).astype(np.float32)),
        latents_ND=rng.normal(size=(count, _DIMS)).astype(np.float32),
        offsets_N=places[:count, 0],
        sizes_N=places[:count, 1],
        map_N2=map_N2,
    )


def _publish(
    location: BuildLocation, shard: ShardPlan, archive: bytes, table: bytes, refused: int, *, with_archive: bool
) -> Receipt:
    recipe, name, number = location.recipe, location.name, shard.number
    receipt = Receipt(
        recipe=location.recipe_digest,
        environment=_ENVIRONMENT.digest,
        number=number,
        samples=len(shard),
        counts=tuple(np.bincount(shard.labels_N, minlength=len(recipe.counts)).tolist()),
        refused=refused,
        shard=StoredFile(key=shard_key(name, number), digest=digest_of(archive), size=len(archive)),
        table=StoredFile(key=table_key(name, number), digest=digest_of(table), size=len(table)),
    )
    if not location.url.startswith("file://"):
        if with_archive:
            location.store.put(receipt.shard.key, archive)
    elif number == 0:
        location.store.put(receipt.shard.key, archive)
    elif not (link := Path(location.url.removeprefix("file://")) / receipt.shard.key).exists():
        os.link(link.with_name(Path(shard_key(name, 0)).name), link)
    location.store.put(receipt.table.key, table)
    location.store.put(receipt_key(number), receipt.canonical())
    return receipt


def _manifest(location: BuildLocation, receipts: tuple[Receipt, ...]) -> Manifest:
    recipe = location.recipe
    return ListedManifest(
        name=location.name,
        build_id=location.build_id,
        recipe_digest=location.recipe_digest,
        recipe=recipe.model_dump(mode="json"),
        environments={_ENVIRONMENT.digest: _ENVIRONMENT.model_dump(mode="json")},
        provenance=Provenance(
            bundle=recipe.bundle,
            model="vae",
            sampler="mixture",
            source="benchmark",
            source_fingerprint=digest_of(b"source"),
        ),
        image=ImageFacts(height=_SIDE, width=_SIDE, channels=3, format="png"),
        classes=recipe.classes,
        counts=recipe.counts,
        samples=recipe.total,
        bytes=sum(receipt.shard.size + receipt.table.size for receipt in receipts),
        refused=sum(receipt.refused for receipt in receipts),
        shards=receipts,
        extras=(),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("destination")
    parser.add_argument("--name", default="million")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--archives", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    print(make_build(chosen.destination, chosen.name, chosen.samples, chosen.archives, seed=chosen.seed))
