"""Orphans: objects left by crashes and abandoned builds. They are found first, and removed only on request.

Never touched: objects of a committed, open or paused build, lock files, complete bundles, and every object that
latentmill does not know. A build is abandoned if its marker says ``cancelled`` or ``failed``, or it has no marker, and
no object of it is newer than the requested age. Memory is bounded: listings are read object by object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

from generator.production.provenance.manifest import CODES_PREFIX, MANIFEST_KEY, RECIPE_KEY, SEGMENTS_PREFIX
from generator.store.base import Store
from generator.store.partial_writes import HasPartialWrites, prune_directories

OrphanKind = Literal["temporary", "upload", "bundle", "build"]
Intents = Callable[[str], str | None]  # maps a build id to the intent in its marker; ``None`` without a marker

_BUILD_ID = re.compile(r"[0-9a-f]{20}")
_BUNDLE_DIGEST = re.compile(r"[0-9a-f]{64}")
_PROBE_KEY = re.compile(r"doctor/[0-9a-f]{16}-[a-z0-9-]+")
_ABANDONED = {
    "cancelled": "a build that was cancelled",
    "failed": "a build that failed",
    None: "a build without a marker",
}
_CHECK_EVERY = 100  # objects of a build that are removed between two checks of its marker
# Receipts first, after the segments that copy them: if the build is resumed meanwhile, it makes those shards again and
# adopts the objects still there.
_DELETE_ORDER = (SEGMENTS_PREFIX, "receipts/", "shards/", "samples/", "")


@dataclass(frozen=True)
class Orphan:
    """Objects that nobody will read. ``remove`` deletes them and returns the number of objects (files, uploads)."""

    kind: OrphanKind
    where: str
    why: str
    objects: int
    bytes: int  # 0 for uploads, whose size is unknown
    modified: datetime  # of the newest object
    remove: Callable[[], int] = field(repr=False, compare=False)


def find_orphans(store: Store, before: datetime, intents: Intents) -> Iterator[Orphan]:
    """Find the orphans at or below ``store`` that were last modified before ``before``.

    ``store`` is a store root, a destination, a dataset, a build, or a directory of bundles. Raises ``StoreError``, and
    whatever ``intents`` raises.
    """
    yield from _unfinished_writes(store, before)
    yield from _doctor_probes(store, before)
    for name in store.children("bundles/"):
        if _BUNDLE_DIGEST.fullmatch(name) and store.head(f"bundles/{name}/bundle.json") is None:
            yield from _if_older(_as_orphan(store.at(f"bundles/{name}"), "bundle", "an unfinished push"), before)
    for build_id, build in _builds(store):
        yield from _abandoned_build(build, build_id, before, intents)


def _unfinished_writes(store: Store, before: datetime) -> Iterator[Orphan]:
    for found in store.partial_writes() if isinstance(store, HasPartialWrites) else ():
        if found.modified < before:
            why = "an upload that was never completed" if found.kind == "upload" else "an unfinished write"
            yield Orphan(
                found.kind, found.where, why, 1, found.bytes, found.modified, partial(_remove_one, found.remove)
            )


def _doctor_probes(store: Store, before: datetime) -> Iterator[Orphan]:
    for info in store.list("doctor/"):
        if _PROBE_KEY.fullmatch(info.key) and info.modified < before:
            remove = partial(_remove_one, partial(store.delete, info.key))
            where = f"{store.url}/{info.key}"
            yield Orphan("temporary", where, "an unfinished check", 1, info.size, info.modified, remove)


def _builds(store: Store) -> Iterator[tuple[str, Store]]:
    """The build at ``store``, or the builds below it if it is a dataset or a destination."""
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
    if all(_describes_build(info.key) for info in build.list()) and (intent is not None or not found.objects):
        return  # a build with a marker keeps its recipe, so it can be resumed
    remove = partial(_remove_build, build, build_id, before, intents)
    yield from _if_older(
        Orphan("build", build.url, found.why, found.objects, found.bytes, found.modified, remove), before
    )


def _remove_build(build: Store, build_id: str, before: datetime, intents: Intents) -> int:
    """Delete object by object; stop as soon as the build is no longer abandoned or is committed."""
    removed = 0
    for folder in _DELETE_ORDER:
        for info in build.list(folder):
            if removed % _CHECK_EVERY == 0 and not _is_abandoned(build, build_id, intents):
                return removed
            if not _describes_build(info.key) and info.modified < before:
                build.delete(info.key)
                removed += 1
    left = [info.key for info in build.list()]
    if intents(build_id) is None and build.head(MANIFEST_KEY) is None and all(map(_describes_build, left)):
        for key in sorted(left, key=lambda key: key == RECIPE_KEY):  # the recipe last
            build.delete(key)
            removed += 1
    prune_directories(build)
    return removed


def _describes_build(key: str) -> bool:
    """Whether a build can only be resumed with this object: its recipe, or a code that the recipe names."""
    return key == RECIPE_KEY or key.startswith(CODES_PREFIX)


def _is_abandoned(build: Store, build_id: str, intents: Intents) -> bool:
    return intents(build_id) in _ABANDONED and build.head(MANIFEST_KEY) is None


def _as_orphan(store: Store, kind: OrphanKind, why: str) -> Orphan:
    """All objects at ``store`` as one orphan."""
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
