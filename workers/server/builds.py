"""Datasets and committed builds of a tenant, for routes and pages: found by name, held while they are looked at."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.builds import build_store, read_manifest
from generator.errors import DatasetError
from generator.production.images import extension
from generator.production.provenance.manifest import MANIFEST_KEY, Manifest
from generator.spec.canonical import short_repr
from generator.spec.plan import Plan
from generator.spec.recipe import Recipe
from generator.store.base import Store

_HELD_BYTES = 100 * 10**6  # of the receipts of the manifests held, in all
_CHECK_SECONDS = 5.0  # after which a held build is looked for again: retention may have deleted it
_BUILD_DIGITS = set("0123456789abcdef")


@dataclass(frozen=True, eq=False)
class CommittedBuild:
    """A committed build: its store, its manifest, and the reader of its archives and tables."""

    store: Store
    manifest: Manifest
    recipe: Recipe
    reader: ArchiveReader

    def place_of(self, index: int) -> tuple[int, int]:
        """Shard and row of sample ``index``. Raises ``DatasetError`` outside the build."""
        plan = Plan(self.recipe)
        if not 0 <= index < self.recipe.total:
            raise DatasetError("index", f"0 .. {self.recipe.total - 1}", index)
        shard = plan.shard_of(index)
        return shard, index - plan.start(shard)


@final
class BuildShelf:
    """The builds that were asked for lately. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._held: OrderedDict[str, tuple[float, CommittedBuild]] = OrderedDict()

    def find(self, dataset: Store, build_id: str) -> CommittedBuild:
        """The committed build of a dataset. Raises ``DatasetError`` if there is none, ``StoreError``."""
        store = build_store(dataset, check_build_id(build_id))
        now = self._clock()
        with self._lock:
            checked_at, held = self._held.get(store.url, (float("-inf"), None))
        if held is not None and (now - checked_at < _CHECK_SECONDS or store.head(MANIFEST_KEY) is not None):
            self._hold(held, now if now - checked_at >= _CHECK_SECONDS else checked_at)
            return held
        manifest = read_manifest(store)
        reader = ArchiveReader(store, manifest, extension(manifest.image.format), None)
        found = CommittedBuild(store, manifest, Recipe.model_validate(manifest.recipe), reader)
        self._hold(found, now)
        return found

    def _hold(self, build: CommittedBuild, checked_at: float) -> None:
        with self._lock:
            self._held[build.store.url] = (checked_at, build)
            self._held.move_to_end(build.store.url)
            while (
                len(self._held) > 1 and sum(each.manifest.held_bytes for _, each in self._held.values()) > _HELD_BYTES
            ):
                self._held.popitem(last=False)


def check_build_id(text: str) -> str:
    """``text``, if it is the id of a build. Raises ``DatasetError``."""
    if len(text) != 20 or not set(text) <= _BUILD_DIGITS:
        raise DatasetError("build", "the id of a build: 20 hexadecimal digits", short_repr(text))
    return text
