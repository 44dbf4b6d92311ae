"""Builds of any number of shards whose receipts are real and whose files are one byte: for ``simulation.py``.

The first shard is real, as the preview shows its images.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from generator.production.commit import BuildLocation, fix_environment, publish_shard  # noqa: E402
from generator.production.provenance.manifest import (  # noqa: E402
    ListedSegment,
    Receipt,
    Segment,
    StoredFile,
    receipt_key,
    segment_key,
    shard_key,
    table_key,
)
from generator.spec.canonical import digest_of  # noqa: E402
from generator.spec.plan import Plan  # noqa: E402
from generator.store import Store  # noqa: E402
from tests.support.small_builds import ENVIRONMENT, SmallBuild  # noqa: E402

CLASSES = tuple(f"class {number}" for number in range(10))
SHARD_SIZE = 1000
_BYTE = digest_of(b".")
_EXAMPLE = 123_456  # the shard whose receipt is the pattern of the others


@dataclass(frozen=True)
class SimulatedBuild:
    """A build of ``shards`` shards of 1,000 samples, 100 of each class."""

    name: str
    shards: int

    @cached_property
    def small(self) -> SmallBuild:
        return SmallBuild(
            name=self.name,
            classes=CLASSES,
            counts=(SHARD_SIZE // len(CLASSES) * self.shards,) * len(CLASSES),
            shard_size=SHARD_SIZE,
            published="2026-11-30",
        )

    def location(self, store: Store) -> BuildLocation:
        """The location of this build at ``store``, which is rooted at the build's prefix."""
        recipe = self.small.spec("memory://simulated").recipe
        return BuildLocation(store, self.name, recipe, recipe.canonical())

    def begin(self, location: BuildLocation) -> None:
        """Fix the environment and publish the first shard."""
        fix_environment(location, ENVIRONMENT)
        publish_shard(location, self.small.shard(location, Plan(location.recipe).shard(0)))

    def receipt(self, location: BuildLocation, number: int) -> Receipt:
        """The receipt of a shard of one-byte files."""
        keys = shard_key(self.name, number), table_key(self.name, number)
        return Receipt(
            recipe=location.recipe_digest,
            environment=ENVIRONMENT.digest,
            number=number,
            samples=SHARD_SIZE,
            counts=(SHARD_SIZE // len(CLASSES),) * len(CLASSES),
            refused=0,
            shard=StoredFile(key=keys[0], digest=_BYTE, size=1),
            table=StoredFile(key=keys[1], digest=_BYTE, size=1),
        )

    def publish(self, location: BuildLocation, number: int) -> None:
        """Write a shard of one-byte files, in the order of the commit protocol."""
        receipt = self.receipt(location, number)
        for file in receipt.files:
            location.store.create(file.key, b".")
        location.store.create(receipt_key(number), receipt.canonical())

    def segment(self, location: BuildLocation, shards: range) -> tuple[ListedSegment, bytes]:
        """A segment of one-byte files: as the manifest lists it, and its bytes."""
        example = Segment(recipe=location.recipe_digest, receipts=(self.receipt(location, _EXAMPLE),))
        receipt = example.receipts[0].canonical().decode()
        before, after = example.canonical().decode().split(receipt)
        parts = receipt.replace(f'"number":{_EXAMPLE}', '"number":%d').replace(f"{_EXAMPLE}", "%06d")
        texts = [parts % ((number,) * parts.count("%")) for number in shards]
        data = (before + ",".join(texts) + after).encode()
        samples, size = SHARD_SIZE * len(shards), example.receipts[0].bytes * len(shards)
        facts = {"first": shards.start, "shards": len(shards), "samples": samples, "bytes": size, "refused": 0}
        return ListedSegment(key=segment_key(shards.start), digest=digest_of(data), size=len(data), **facts), data
