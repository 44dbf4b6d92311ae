"""The index of a build whose shards are MDS files, for their readers: ``shards/index.json``."""

from __future__ import annotations

from generator.production.provenance.manifest import Manifest
from generator.production.shards import ListedShard, mds_format
from generator.spec.recipe import Recipe


def index_bytes(manifest: Manifest) -> bytes:
    """The index as canonical JSON: from the receipts alone, so it grows with shards and not with samples."""
    listed = [
        ListedShard(
            name=receipt.shard.key.rpartition("/")[2],
            samples=receipt.samples,
            size=receipt.shard.size,
            sha256=receipt.shard.digest.removeprefix("sha256:"),
        )
        for receipt in manifest.shards
    ]
    return mds_format(Recipe.model_validate(manifest.recipe)).index(listed)
