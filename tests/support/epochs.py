"""Helpers for tests of epochs: environments, a worker of an environment, a store that runs a callback at one write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from generator.production.commit import BuildLocation, FinishedShard, publish_shard, read_receipt
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import Receipt, StoredFile
from generator.spec.canonical import digest_of
from generator.spec.plan import Plan
from generator.store.base import MAX_OBJECT_BYTES, ObjectInfo, Store
from tests.support.small_builds import SmallBuild

OLD, NEW, OTHER = (
    Environment(device=device, dtype="float32", libraries={"pillow": "any"}) for device in ("cpu/old", "cuda/new", "x")
)
SMALL = SmallBuild()

on_every_store = pytest.mark.parametrize("kind", ["memory", "local", "s3"])


@dataclass(frozen=True)
class EpochWorker:
    """A worker of one environment, step by step. ``mark`` stands for its effect on the bytes of a shard."""

    location: BuildLocation
    environment: Environment
    mark: bytes = b""
    build: SmallBuild = SMALL

    def make_shard(self, number: int) -> FinishedShard:
        """The shard as this environment makes it: one block of zeros follows the archive for each byte of ``mark``."""
        shard = self.build.shard(self.location, Plan(self.location.recipe).shard(number))
        data = shard.archive + bytes(512 * len(self.mark))
        file = StoredFile(key=shard.receipt.shard.key, digest=digest_of(data), size=len(data))
        receipt = shard.receipt.model_copy(update={"environment": self.environment.digest, "shard": file})
        sidecars = {key: sidecar + self.mark for key, sidecar in shard.sidecars.items()}
        files = tuple(StoredFile(key=key, digest=digest_of(each), size=len(each)) for key, each in sidecars.items())
        return FinishedShard(data, shard.table, receipt.model_copy(update={"sidecars": files}), sidecars)

    def publish(self, number: int) -> Receipt:
        return publish_shard(self.location, self.make_shard(number))

    def write_without_receipt(self, number: int) -> None:
        """Store the archive only, as a worker that is killed before the receipt."""
        shard = self.make_shard(number)
        self.location.store.create(shard.receipt.shard.key, shard.archive)


def is_whole(location: BuildLocation, number: int) -> bool:
    """Whether the receipt's digests are those of the stored bytes."""
    receipt = read_receipt(location, number)
    return all(digest_of(location.store.get(file.key)) == file.digest for file in receipt.files)


class InterruptedStore(Store):
    """A store that calls ``event`` right before its ``n``-th write, counted from 1."""

    def __init__(self, store: Store, n: int, event: Callable[[], None]) -> None:
        self._store, self.url, self._left, self._event = store, store.url, n, event

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._event()

    def create(self, key: str, data: bytes) -> str:
        self._count()
        return self._store.create(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        self._count()
        return self._store.replace(key, data, etag)

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        return self._store.get(key, limit)

    def head(self, key: str) -> ObjectInfo | None:
        return self._store.head(key)

    def list(self, prefix: str = "") -> Any:
        return self._store.list(prefix)

    read = put = delete = children = check_writable = at = None  # type: ignore[assignment]
