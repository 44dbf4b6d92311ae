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
from generator.store.partial_writes import HasLeftovers, tidy

Kind = Literal["temporary", "upload", "bundle", "build"]
Intents = Callable[[str], str | None]  # what the marker of a build id says; ``None`` without one

_BUILD = re.compile(r"[0-9a-f]{20}")
_BUNDLE = re.compile(r"[0-9a-f]{64}")
_PROBE = re.compile(r"doctor/[0-9a-f]{16}-[a-z0-9-]+")
_GIVEN_UP = {
    "cancelled": "a build that was cancelled",
    "failed": "a build that failed",
    None: "a build without a marker",
}
_EACH = 100  # objects of a build that are removed between two looks at its marker
# Receipts first: a build that is taken up again meanwhile makes those shards anew, and adopts what is still there.
_FOLDERS = ("receipts/", "shards/", "samples/", "")


@dataclass(frozen=True)
class Leftover:
    """Something that nobody will read. ``remove`` takes it away; how many objects (files, uploads) that were."""

    kind: Kind
    where: str
    why: str
    objects: int
    bytes: int  # of uploads nobody knows: 0
    modified: datetime  # of the newest part
    remove: Callable[[], int] = field(repr=False, compare=False)


def leftovers(store: Store, before: datetime, intents: Intents) -> Iterator[Leftover]:
    """What was left at or below ``store``, untouched since ``before``.

    ``store`` is a store root, a destination, a dataset, a build, or a directory of bundles. Raises ``StoreError``, and
    whatever ``intents`` raises.
    """
    yield from _hidden(store, before)
    yield from _probes(store, before)
    for name in store.children("bundles/"):
        if _BUNDLE.fullmatch(name) and store.head(f"bundles/{name}/bundle.json") is None:
            yield from _old(_whole(store.at(f"bundles/{name}"), "bundle", "a push that did not end"), before)
    for build_id, build in _builds(store):
        yield from _given_up(build, build_id, before, intents)


def _hidden(store: Store, before: datetime) -> Iterator[Leftover]:
    for found in store.leftovers() if isinstance(store, HasLeftovers) else ():
        if found.modified < before:
            why = "an upload that was never completed" if found.kind == "upload" else "a write that did not end"
            yield Leftover(found.kind, found.where, why, 1, found.bytes, found.modified, partial(_one, found.remove))


def _probes(store: Store, before: datetime) -> Iterator[Leftover]:
    for info in store.list("doctor/"):
        if _PROBE.fullmatch(info.key) and info.modified < before:
            remove = partial(_one, partial(store.delete, info.key))
            where = f"{store.url}/{info.key}"
            yield Leftover("temporary", where, "a check that did not end", 1, info.size, info.modified, remove)


def _builds(store: Store) -> Iterator[tuple[str, Store]]:
    """The builds at ``store``, or below it where it is a dataset or a destination."""
    own = store.url.rpartition("/builds/")[2]
    if _BUILD.fullmatch(own) and store.head(RECIPE_KEY) is not None:
        yield own, store
        return
    for prefix in ("", *(f"{name}/" for name in store.children())):
        for build_id in store.children(f"{prefix}builds/"):
            if _BUILD.fullmatch(build_id):
                yield build_id, store.at(f"{prefix}builds/{build_id}")


def _given_up(build: Store, build_id: str, before: datetime, intents: Intents) -> Iterator[Leftover]:
    intent = intents(build_id)
    if build.head(MANIFEST_KEY) is not None or intent not in _GIVEN_UP:
        return
    found = _whole(build, "build", _GIVEN_UP[intent])
    if found.objects - (intent is not None) <= 0:  # of one with a marker the recipe stays: it may be resumed, from zero
        return
    remove = partial(_remove_build, build, build_id, before, intents)
    yield from _old(Leftover("build", build.url, found.why, found.objects, found.bytes, found.modified, remove), before)


def _remove_build(build: Store, build_id: str, before: datetime, intents: Intents) -> int:
    """Object by object, and not one more once the build is wanted again or committed."""
    removed, last = 0, RECIPE_KEY
    for folder in _FOLDERS:
        for info in build.list(folder):
            if removed % _EACH == 0 and not _is_given_up(build, build_id, intents):
                return removed
            if info.key != last and info.modified < before:
                build.delete(info.key)
                removed += 1
    if intents(build_id) is None and build.head(MANIFEST_KEY) is None and sum(1 for _ in build.list()) == 1:
        build.delete(last)
        removed += 1
    tidy(build)
    return removed


def _is_given_up(build: Store, build_id: str, intents: Intents) -> bool:
    return intents(build_id) in _GIVEN_UP and build.head(MANIFEST_KEY) is None


def _whole(store: Store, kind: Kind, why: str) -> Leftover:
    """Everything at ``store`` as one leftover."""
    objects, size, newest = 0, 0, datetime.min
    for info in store.list():
        objects, size = objects + 1, size + info.size
        newest = info.modified if objects == 1 else max(newest, info.modified)
    return Leftover(kind, store.url, why, objects, size, newest, partial(_remove_all, store))


def _old(found: Leftover, before: datetime) -> Iterator[Leftover]:
    if found.objects and found.modified < before:
        yield found


def _remove_all(store: Store) -> int:
    removed = 0
    for info in store.list():
        store.delete(info.key)
        removed += 1
    tidy(store)
    return removed


def _one(remove: Callable[[], object]) -> int:
    remove()
    return 1
