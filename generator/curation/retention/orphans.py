"""What crashes and given-up builds leave behind: found first, removed only on request.

Never touched: anything of a committed build, anything of a build that is open or paused, lock files, bundles that are
whole, and whatever latentmill does not know. A build counts as given up when its marker says ``cancelled`` or
``failed``, or when it has none, and nothing in it is newer than the age that was asked for. Memory is bounded:
listings are gone through object by object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

from generator.production.provenance.manifest import MANIFEST_KEY, RECIPE_KEY
from generator.store.base import Store
from generator.store.partial_writes import HasPartialWrites, prune_directories

OrphanKind = Literal["temporary", "upload", "bundle", "build"]
Intents = Callable[[str], str | None]  # what the marker of a build id says; ``None`` without one

_BUILD_ID = re.compile(r"[0-9a-f]{20}")
_BUNDLE_DIGEST = re.compile(r"[0-9a-f]{64}")
_PROBE_KEY = re.compile(r"doctor/[0-9a-f]{16}-[a-z0-9-]+")
_ABANDONED = {
    "cancelled": "a build that was cancelled",
    "failed": "a build that failed",
    None: "a build without a marker",
}
_CHECK_EVERY = 100  # objects of a build that are removed between two looks at its marker
# Receipts first: a build that is taken up again meanwhile makes those shards anew, and adopts what is still there.
_DELETE_ORDER = ("receipts/", "shards/", "samples/", "")


@dataclass(frozen=True)
class Orphan:
    """Something that nobody will read. ``remove`` takes it away; how many objects (files, uploads) that were."""

    kind: OrphanKind
    where: str
    why: str
    objects: int
    bytes: int  # of uploads nobody knows: 0
    modified: datetime  # of the newest part
    remove: Callable[[], int] = field(repr=False, compare=False)


def find_orphans(store: Store, before: datetime, intents: Intents) -> Iterator[Orphan]:
    """What was left at or below ``store``, untouched since ``before``.

    ``store`` is a store root, a destination, a dataset, a build, or a directory of bundles. Raises ``StoreError``, and
    whatever ``intents`` raises.
    """
    yield from _unfinished_writes(store, before)
    yield from _doctor_probes(store, before)
    for name in store.children("bundles/"):
        if _BUNDLE_DIGEST.fullmatch(name) and store.head(f"bundles/{name}/bundle.json") is None:
            yield from _if_older(_as_orphan(store.at(f"bundles/{name}"), "bundle", "a push that did not end"), before)
    for build_id, build in _builds(store):
        yield from _abandoned_build(build, build_id, before, intents)


def _unfinished_writes(store: Store, before: datetime) -> Iterator[Orphan]:
    for found in store.partial_writes() if isinstance(store, HasPartialWrites) else ():
        if found.modified < before:
            why = "an upload that was never completed" if found.kind == "upload" else "a write that did not end"
            yield Orphan(
                found.kind, found.where, why, 1, found.bytes, found.modified, partial(_remove_one, found.remove)
            )


def _doctor_probes(store: Store, before: datetime) -> Iterator[Orphan]:
    for info in store.list("doctor/"):
        if _PROBE_KEY.fullmatch(info.key) and info.modified < before:
            remove = partial(_remove_one, partial(store.delete, info.key))
            where = f"{store.url}/{info.key}"
            yield Orphan("temporary", where, "a check that did not end", 1, info.size, info.modified, remove)


def _builds(store: Store) -> Iterator[tuple[str, Store]]:
    """The builds at ``store``, or below it where it is a dataset or a destination."""
    own = store.url.rpartition("/builds/")[2]
    if _BUILD_ID.fullmatch(own) and store.head(RECIPE_KEY) is not None:
        yield own, store
        return
    for prefix in ("", *(f"{name}/" for name in store.children())):
        for build_id in store.children(f"{prefix}builds/"):
            if _BUILD_ID.fullmatch(build_id):
                yield build_id, store.at(f"{prefix}builds/{build_id}")


def _abandoned_build(build: Store, build_id: str, before: datetime, intents: Intents) -> Iterator[Orphan]:
    intent = intents(build_id)
    if build.head(MANIFEST_KEY) is not None or intent not in _ABANDONED:
        return
    found = _as_orphan(build, "build", _ABANDONED[intent])
    if found.objects - (intent is not None) <= 0:  # of one with a marker the recipe stays: it may be resumed, from zero
        return
    remove = partial(_remove_build, build, build_id, before, intents)
    yield from _if_older(
        Orphan("build", build.url, found.why, found.objects, found.bytes, found.modified, remove), before
    )


def _remove_build(build: Store, build_id: str, before: datetime, intents: Intents) -> int:
    """Object by object, and not one more once the build is wanted again or committed."""
    removed, last = 0, RECIPE_KEY
    for folder in _DELETE_ORDER:
        for info in build.list(folder):
            if removed % _CHECK_EVERY == 0 and not _is_abandoned(build, build_id, intents):
                return removed
            if info.key != last and info.modified < before:
                build.delete(info.key)
                removed += 1
    if intents(build_id) is None and build.head(MANIFEST_KEY) is None and sum(1 for _ in build.list()) == 1:
        build.delete(last)
        removed += 1
    prune_directories(build)
    return removed


def _is_abandoned(build: Store, build_id: str, intents: Intents) -> bool:
    return intents(build_id) in _ABANDONED and build.head(MANIFEST_KEY) is None


def _as_orphan(store: Store, kind: OrphanKind, why: str) -> Orphan:
    """Everything at ``store`` as one leftover."""
    objects, size, newest = 0, 0, datetime.min
    for info in store.list():
        objects, size = objects + 1, size + info.size
        newest = info.modified if objects == 1 else max(newest, info.modified)
    return Orphan(kind, store.url, why, objects, size, newest, partial(_remove_all, store))


def _if_older(found: Orphan, before: datetime) -> Iterator[Orphan]:
    if found.objects and found.modified < before:
        yield found


def _remove_all(store: Store) -> int:
    removed = 0
    for info in store.list():
        store.delete(info.key)
        removed += 1
    prune_directories(store)
    return removed


def _remove_one(remove: Callable[[], object]) -> int:
    remove()
    return 1
