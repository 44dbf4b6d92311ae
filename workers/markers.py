"""Open builds in the store: ``<root>/open/<job>.json`` says where a build is and what is intended with it.

This is what survives Redis: a pool that lost its ledger finds its work here, and a cancelled build stays cancelled.
The marker goes when the build is committed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from generator.canonical import Frozen, read_json, validated
from generator.errors import AlreadyExists, Changed, ObjectMissing, SpecError, StoreUnavailable
from generator.provenance.manifest import build_prefix
from generator.publish import BuildPlace, found_place
from generator.spec import Digest, JobSpec, Name
from generator.store import S3Settings, open_store
from generator.store.base import Store

log = logging.getLogger(__name__)

Intent = Literal["open", "paused", "cancelled", "failed"]
_FOLDER = "open/"
_TRIES = 10


class Marker(Frozen):
    """One unfinished build."""

    job: str = Field(pattern=r"^[a-z0-9_-]{1,80}$")
    intent: Intent = "open"
    error: str = ""
    destination: str
    name: Name
    tenant: Name
    recipe: Digest
    build_id: str = Field(pattern=r"^[0-9a-f]{20}$")
    shards: int = Field(ge=1)
    samples: int = Field(ge=1)
    submitted: float = Field(ge=0)  # seconds since the epoch

    @property
    def url(self) -> str:
        """Where the build is."""
        return f"{self.destination}/{build_prefix(self.name, self.build_id)}"

    def place(self, s3: S3Settings) -> BuildPlace:
        """The build, found by its stored recipe. Raises ``DatasetError`` where there is none."""
        return found_place(open_store(self.url, s3), self.name)


def marker_of(spec: JobSpec, shards: int, submitted: float) -> Marker:
    """The marker of a job that is being submitted."""
    return Marker(
        job=spec.job_id,
        destination=spec.order.destination,
        name=spec.order.name,
        tenant=spec.order.tenant,
        recipe=spec.recipe.digest,
        build_id=spec.build_id,
        shards=shards,
        samples=spec.recipe.total,
        submitted=submitted,
    )


def open_marker(root: Store, marker: Marker) -> Marker:
    """Store the marker, or set the one that is there back to ``open``; the marker as it stands."""
    try:
        root.create(_key(marker.job), marker.canonical())
    except AlreadyExists:
        return set_intent(root, marker.job, "open") or open_marker(root, marker)
    return marker


def read_marker(root: Store, job: str) -> Marker | None:
    """The marker of an unfinished build; ``None`` when it is finished, or never was."""
    try:
        data = root.get(_key(job))
    except ObjectMissing:
        return None
    return validated(Marker, read_json(data, field=_key(job), error=SpecError), field=_key(job), error=SpecError)


def set_intent(root: Store, job: str, intent: Intent, error: str = "") -> Marker | None:
    """Change what is intended with a build, by compare and swap; ``None`` where there is no marker."""
    for _ in range(_TRIES):
        info = root.head(_key(job))
        marker = read_marker(root, job)
        if info is None or marker is None:
            return None
        changed = marker.model_copy(update={"intent": intent, "error": error[:4000]})
        if changed == marker:
            return marker
        try:
            root.replace(_key(job), changed.canonical(), info.etag)
        except (Changed, ObjectMissing):
            continue
        return changed
    raise StoreUnavailable(_key(job), "a marker that holds still", f"{_TRIES} changes by others while we tried")


def close_marker(root: Store, job: str) -> None:
    """The build is committed: it is no longer open."""
    root.delete(_key(job))


def markers(root: Store) -> Iterator[Marker]:
    """All unfinished builds. A file that is no marker is passed over with a warning: it must not hide the others."""
    for info in root.list(_FOLDER):
        try:
            if marker := read_marker(root, info.key.removeprefix(_FOLDER).removesuffix(".json")):
                yield marker
        except SpecError as damaged:
            log.warning("%s/%s is no marker of an open build: %s", root.url, info.key, damaged)


def _key(job: str) -> str:
    return f"{_FOLDER}{job}.json"
