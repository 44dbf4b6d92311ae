"""What uses a bundle: channels, schedules, unfinished jobs and builds of a tenant. Look-ups are bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from pydantic import BaseModel

from generator.datasets.builds import build_store, list_builds
from generator.errors import DatasetError, LatentmillError
from generator.production.provenance.manifest import MAX_RECIPE_BYTES, RECIPE_KEY
from generator.spec.canonical import read_json
from generator.spec.recipe import Digest
from generator.store import open_store
from generator.store.base import Store
from workers.jobs.markers import read_markers
from workers.server.bundles import tenant_channels
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.listing import find_datasets
from workers.server.schedules import tenant_schedules

_MAX_READ = 300  # recipes that one request reads; the next request goes on
_HELD_RECIPES = 100_000  # builds whose bundle is remembered: a recipe never changes
_SHOWN_BUILDS = 200  # of one bundle


class BuildUse(BaseModel):
    """A build of a tenant's dataset (``place/name``)."""

    dataset: str
    build: str


class BundleUses(BaseModel):
    """What uses one bundle. ``channels``: those that point to it; ``earlier``: those that did before. ``jobs``: the
    unfinished ones. ``builds``: at most 200 of ``build_count``. ``unknown``: what could not be looked up; empty if the
    lists are complete."""

    channels: list[str] = []
    earlier: list[str] = []
    schedules: list[str] = []
    jobs: list[str] = []
    builds: list[BuildUse] = []
    build_count: int = 0
    unknown: list[str] = []


@dataclass
class _Found:
    """What was found so far, by digest."""

    uses: defaultdict[Digest, BundleUses] = field(default_factory=lambda: defaultdict(BundleUses))
    unknown: list[str] = field(default_factory=list)
    left: int = field(default_factory=lambda: _MAX_READ)


def find_uses(context: ServerContext, caller: Caller) -> dict[Digest, BundleUses]:
    """What uses each bundle, as far as the caller's tenant sees it; a digest that nothing uses has no entry, and
    ``""`` has what could not be looked up. Raises ``StoreError`` if the root does not answer."""
    found = _Found()
    targets = _add_channels(context, caller, found)
    for stored in tenant_schedules(context, caller):
        job = stored.schedule.job
        digest = targets.get(str(job.get("channel")), str(job.get("bundle", "")))
        if digest.startswith("sha256:"):
            found.uses[digest].schedules.append(stored.schedule.name)
    _add_jobs(context, caller, found)
    _add_builds(context, caller, found)
    for uses in (*found.uses.values(), found.uses[""]):
        uses.unknown = list(dict.fromkeys(found.unknown))
    return dict(found.uses)


def uses_of(context: ServerContext, caller: Caller, digest: Digest) -> BundleUses:
    """What uses one bundle. Raises ``StoreError`` if the root does not answer."""
    found = find_uses(context, caller)
    return found.get(digest, BundleUses(unknown=found[""].unknown))


def _add_channels(context: ServerContext, caller: Caller, found: _Found) -> dict[str, Digest]:
    """The bundle of each channel."""
    targets = {}
    for channel in tenant_channels(context, caller.tenant):
        targets[channel.line] = channel.bundle
        found.uses[channel.bundle].channels.append(channel.line)
        for digest in {move.bundle for move in channel.previous} - {channel.bundle}:
            found.uses[digest].earlier.append(channel.line)
    return targets


def _add_jobs(context: ServerContext, caller: Caller, found: _Found) -> None:
    for marker in read_markers(context.root):
        if marker.tenant != caller.tenant:
            continue
        dataset = open_store(marker.destination, context.settings.s3).at(marker.name)
        if digest := _bundle_of(dataset, marker.build_id, found, "jobs"):
            found.uses[digest].jobs.append(marker.job)


def _add_builds(context: ServerContext, caller: Caller, found: _Found) -> None:
    for dataset, store in _datasets(context, caller, found):
        try:
            builds = list_builds(store)
        except LatentmillError:
            found.unknown.append(f"builds of {dataset}")
            continue
        for build in builds:
            if digest := _bundle_of(store, build, found, f"builds of {dataset}"):
                uses = found.uses[digest]
                uses.build_count += 1
                if len(uses.builds) < _SHOWN_BUILDS:
                    uses.builds.append(BuildUse(dataset=dataset, build=build))


def _datasets(context: ServerContext, caller: Caller, found: _Found) -> Iterator[tuple[str, Store]]:
    for place in sorted(context.places.places(caller.tenant)):
        try:
            for dataset in find_datasets(context, caller.tenant, place):
                yield dataset, context.dataset(caller.tenant, dataset)
        except LatentmillError:
            found.unknown.append(f"builds at {place}")


def _bundle_of(dataset: Store, build: str, found: _Found, where: str) -> Digest | None:
    """The bundle of a build; ``None``, and a word in ``found``, if it is not known or its recipe cannot be read."""
    store = build_store(dataset, build)
    if (held := _recipes.get(store.url)) is not None:
        return held
    if found.left <= 0:
        found.unknown.append(f"more {where}; ask again")
        return None
    found.left -= 1
    try:
        document = read_json(store.get(RECIPE_KEY, MAX_RECIPE_BYTES), field=RECIPE_KEY, error=DatasetError)
        digest = str(document["bundle"])
    except (LatentmillError, KeyError, TypeError):
        return None  # it is being deleted, or is no build of ours
    _recipes.add(store.url, digest)
    return digest


@final
class _RecipeShelf:
    """The bundle of each build whose recipe was read. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), OrderedDict[str, Digest]()

    def get(self, url: str) -> Digest | None:
        with self._lock:
            return self._held.get(url)

    def add(self, url: str, digest: Digest) -> None:
        with self._lock:
            self._held[url] = digest
            while len(self._held) > _HELD_RECIPES:
                self._held.popitem(last=False)


_recipes = _RecipeShelf()
