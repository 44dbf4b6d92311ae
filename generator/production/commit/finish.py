"""Finishes a build: from all receipts to the manifest, with card, Croissant file, preview and page, which it lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from generator.errors import DatasetError, IntegrityError
from generator.models.bundle import BundleInfo
from generator.production.commit.epochs import read_environments
from generator.production.commit.publish import BuildLocation, commit
from generator.production.commit.receipts import MAX_READERS, check_stored, first_shards, read_planned
from generator.production.commit.segments import complete_segments
from generator.production.commit.shard_index import index_bytes
from generator.production.images import decode_image, extension
from generator.production.provenance.croissant import croissant_bytes
from generator.production.provenance.dataset_card import card_bytes
from generator.production.provenance.manifest import (
    CARD_KEY,
    CODES_PREFIX,
    CROISSANT_KEY,
    INDEX_KEY,
    PAGE_KEY,
    PREVIEW_KEY,
    ImageFacts,
    ListedManifest,
    Manifest,
    Provenance,
    Receipt,
    SegmentedManifest,
    extra_keys,
    receipt_key,
)
from generator.production.provenance.page import choose_samples, page_bytes
from generator.production.provenance.preview import preview_bytes
from generator.production.provenance.sample_table import latent_type, read_rows
from generator.production.shards import shard_format
from generator.spec.canonical import read_json
from generator.spec.plan import Plan
from generator.spec.recipe import MAX_CODE_OBJECT_BYTES

_PAGE_COLUMNS = ("label", "log_density", "label_confidence", "map_x", "map_y")
PREVIEW_SAMPLES = 1000  # at most so many images of the first shard are decoded for the preview and the page


def finish_build(
    location: BuildLocation, info: BundleInfo, *, before_commit: Callable[[], None] = lambda: None
) -> Manifest:
    """Commit a build whose shards all have receipts. Raises ``IntegrityError`` if receipts and plan disagree.

    Reading the receipts of a large build takes minutes, unless its segments were written while its shards were made
    (``segments``). ``before_commit`` is called after that; if it raises, nothing is committed.
    """
    manifest = _segmented(location, info) if Plan(location.recipe).segment_size else _listed(location, info)
    has_latents = latent_type(location.recipe, info.latent_dim) is not None
    extras = {
        CARD_KEY: card_bytes(manifest, has_latents=has_latents),
        CROISSANT_KEY: croissant_bytes(manifest, has_latents=has_latents),
        **_make_pictures(location, manifest),
    }
    for key in extra_keys(location.recipe):
        if key.startswith(CODES_PREFIX):
            extras[key] = location.store.get(key, MAX_CODE_OBJECT_BYTES)
    if INDEX_KEY in extra_keys(location.recipe):
        extras[INDEX_KEY] = index_bytes(manifest)
    before_commit()
    return commit(location, manifest, extras)


def _listed(location: BuildLocation, info: BundleInfo) -> ListedManifest:
    """The manifest of a build that is small enough to list every shard, without extras."""
    sizes = {info.key: info.size for folder in ("shards/", "samples/") for info in location.store.list(folder)}
    plan = Plan(location.recipe)

    def read(number: int) -> Receipt:
        receipt = read_planned(location, plan, number)
        check_stored(location, receipt, sizes)
        return receipt

    with ThreadPoolExecutor(MAX_READERS) as pool:  # reading receipts one by one takes too long on a remote store
        receipts = tuple(pool.map(read, range(plan.shard_count)))
    return ListedManifest(
        environments=used_environments(location, receipts),
        **_facts(location, info),
        samples=sum(receipt.samples for receipt in receipts),
        bytes=sum(receipt.bytes for receipt in receipts),
        refused=sum(receipt.refused for receipt in receipts),
        shards=receipts,
    )


def _segmented(location: BuildLocation, info: BundleInfo) -> SegmentedManifest:
    """The manifest of a large build, without extras."""
    segments, environments = complete_segments(location)
    return SegmentedManifest(
        environments=_describe_environments(location, environments),
        **_facts(location, info),
        samples=sum(each.samples for each in segments),
        bytes=sum(each.bytes for each in segments),
        refused=sum(each.refused for each in segments),
        segments=segments,
    ).bound_to(location.store)


def _facts(location: BuildLocation, info: BundleInfo) -> dict[str, Any]:
    """What a manifest holds that does not follow from receipts."""
    recipe = location.recipe
    return {
        "name": location.name,
        "build_id": location.build_id,
        "recipe_digest": location.recipe_digest,
        "recipe": read_json(location.recipe_bytes, field="recipe.json", error=DatasetError),
        "provenance": Provenance(
            bundle=recipe.bundle,
            model=info.autoencoder.family,
            sampler=str(info.latents["family"]),
            source=info.source.name,
            source_fingerprint=info.source.fingerprint,
        ),
        "image": ImageFacts(
            height=info.image.height,
            width=info.image.width,
            channels=info.image.channels,
            format=recipe.image.format,
        ),
        "classes": recipe.classes,
        "counts": recipe.counts,
        "extras": (),
    }


def used_environments(location: BuildLocation, receipts: Iterable[Receipt]) -> dict[str, Any]:
    """The environments that wrote shards, by digest; epochs without a shard are left out."""
    return _describe_environments(location, first_shards(receipts))


def _describe_environments(location: BuildLocation, used: Mapping[str, int]) -> dict[str, Any]:
    """The environments whose digests are in ``used``, each with the first shard that it wrote."""
    epochs = read_environments(location.store)
    for digest, number in used.items():
        if digest not in epochs:
            expected = f"an environment of this build ({', '.join(epochs) or 'none fixed'})"
            raise IntegrityError(receipt_key(number), expected, digest)
    return {digest: environment.model_dump(mode="json") for digest, environment in epochs.items() if digest in used}


def _make_pictures(location: BuildLocation, manifest: Manifest) -> dict[str, bytes]:
    """The preview and, if the recipe asks for it, the page; both show samples of the first shard."""
    receipt = manifest.shards[0]
    archive = location.store.get(receipt.shard.key, receipt.shard.size)
    read = shard_format(location.recipe).read_samples(archive, field=receipt.shard.key)
    samples = list(islice(read, PREVIEW_SAMPLES))
    pictures = {PREVIEW_KEY: _make_preview(location, samples)}
    if location.recipe.page:
        pictures[PAGE_KEY] = _make_page(location, manifest, samples)
    return pictures


def _make_preview(location: BuildLocation, samples: list[tuple[str, dict[str, bytes]]]) -> bytes:
    recipe, suffix = location.recipe, extension(location.recipe.image.format)
    decoded = (
        (decode_image(files[suffix], field=key), int(files["cls"]) if "cls" in files else None)
        for key, files in samples
    )
    return preview_bytes(decoded, recipe.classes, recipe.recipe_version, location.marked_build)


def _make_page(location: BuildLocation, manifest: Manifest, samples: list[tuple[str, dict[str, bytes]]]) -> bytes:
    table = manifest.shards[0].table
    rows = read_rows(location.store.get(table.key, table.size), field=table.key, columns=list(_PAGE_COLUMNS))
    return page_bytes(manifest, choose_samples(samples, location.recipe, location.marked_build), rows)
