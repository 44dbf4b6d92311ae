"""Markers of unfinished builds: ``<root>/open/<job>.json`` holds the location and the intent of a build.

Markers survive a loss of Redis: open builds are found again, cancelled and paused ones stay so, and shards that were
given up stay given up until the job is resumed. A marker is deleted when its build is committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field

from generator.errors import AlreadyExists, Changed, DatasetError, ObjectMissing, SpecError, StoreUnavailable
from generator.production.commit import BuildLocation, read_build_location
from generator.production.provenance.manifest import MANIFEST_KEY
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.patterns import pattern
from generator.spec.plan import Plan
from generator.spec.recipe import (
    MAX_SAMPLES,
    MAX_SHARDS,
    BuildId,
    Digest,
    JobSpec,
    Name,
    Priority,
    build_prefix,
    job_id_of,
)
from generator.store import S3Settings, absolute_url, open_store
from generator.store.base import ObjectInfo, Store

log = logging.getLogger(__name__)

Intent = Literal["open", "paused", "cancelled", "failed"]
MAX_MARKER_BYTES = 16 * 2**20  # the dead letters of a failed job take most of them
MAX_TEXT = 4000  # characters of an error or a traceback that are stored
MAX_RANGES = 100
_FOLDER = "open/"
_TRIES = 10


class DeadLetter(FrozenModel):
    """The last error of a shard that was given up, or of a failed commit (``shard`` is ``None``)."""

    shard: int | None = Field(ge=0, lt=MAX_SHARDS)
    faults: int = Field(ge=1)
    error: str = Field(max_length=2 * MAX_TEXT)
    traceback: str = Field(default="", max_length=2 * MAX_TEXT)


class Marker(FrozenModel):
    """One unfinished build. Of a failed one, ``missing`` are the first ranges (ends included) of its missing shards."""

    job: str = Field(pattern=pattern(r"^[a-z0-9_-]{1,80}$", "lower-case letters, digits, - and _; at most 80"))
    intent: Intent = "open"
    error: str = Field(default="", max_length=2 * MAX_TEXT)
    destination: str = Field(min_length=1, max_length=1000)
    name: Name
    tenant: Name
    priority: Priority = 0
    recipe: Digest
    build_id: BuildId
    shards: int = Field(ge=1, le=MAX_SHARDS)
    samples: int = Field(ge=1, le=MAX_SAMPLES)
    submitted: float = Field(ge=0)  # seconds since the epoch
    dead: tuple[DeadLetter, ...] = Field(default=(), max_length=1000)
    missing: tuple[tuple[int, int], ...] = Field(default=(), max_length=1000)
    missing_shards: int = Field(default=0, ge=0)

    @property
    def url(self) -> str:
        """The URL of the build."""
        return f"{self.destination}/{build_prefix(self.name, self.build_id)}"

    @property
    def dead_shards(self) -> tuple[int, ...]:
        """The shards that were given up."""
        return tuple(letter.shard for letter in self.dead if letter.shard is not None)

    def location(self, s3: S3Settings) -> BuildLocation:
        """Read the build's recipe from the store. Raises ``DatasetError`` if there is no build."""
        return read_build_location(open_store(self.url, s3), self.name)

    def is_same_build(self, other: Marker) -> bool:
        """Whether both are the same build at the same destination for the same tenant."""
        return all(getattr(self, name) == getattr(other, name) for name in ("destination", "name", "recipe", "tenant"))


def marker_for_job(spec: JobSpec, shards: int, submitted: float) -> Marker:
    """A new marker for a job that is being submitted."""
    return Marker(
        job=spec.job_id,
        destination=spec.order.destination,
        name=spec.order.name,
        tenant=spec.order.tenant,
        priority=spec.order.priority,
        recipe=spec.recipe.digest,
        build_id=spec.build_id,
        shards=shards,
        samples=spec.recipe.total,
        submitted=submitted,
    )


def marker_for_build(location: BuildLocation, destination: str, name: str, tenant: str, submitted: float) -> Marker:
    """A new marker for a build that was begun, from its stored recipe."""
    return Marker(
        job=job_id_of(destination, name, location.recipe_digest),
        destination=destination,
        name=name,
        tenant=tenant,
        recipe=location.recipe_digest,
        build_id=location.build_id,
        shards=Plan(location.recipe).shard_count,
        samples=location.recipe.total,
        submitted=submitted,
    )


def find_unfinished_build(url: str, s3: S3Settings) -> tuple[str, str, BuildLocation]:
    """Destination, name and location of the unfinished build at ``<destination>/<name>/builds/<id>``.

    The URL ``<destination>/<name>`` means its only unfinished build. Raises ``DatasetError`` if there is none, or more
    than one.
    """
    build_url = absolute_url(url)
    if "/builds/" not in build_url:
        store = open_store(build_url, s3)
        found = [build for build in store.children("builds/") if store.head(f"builds/{build}/{MANIFEST_KEY}") is None]
        if len(found) != 1:
            got = f"{len(found)} at {build_url}" + (f": {', '.join(found[:10])}" if found else "")
            raise DatasetError("build", "one unfinished build", got, "give the URL of a build, <dataset>/builds/<id>")
        build_url = f"{build_url}/builds/{found[0]}"
    dataset, _, _ = build_url.rpartition("/builds/")
    destination, _, name = dataset.rpartition("/")
    location = read_build_location(open_store(build_url, s3), name)
    if location.url != f"{dataset}/builds/{location.build_id}":
        raise DatasetError("build", f"the recipe of this build at {build_url}", f"that of build {location.build_id}")
    return destination, name, location


def new_dead_letter(shard: int | None, faults: int, error: str, traceback: str = "") -> DeadLetter:
    """A dead letter with texts cut to ``MAX_TEXT``; a traceback keeps its end, where the error is."""
    return DeadLetter(shard=shard, faults=max(1, faults), error=error[:MAX_TEXT], traceback=traceback[-MAX_TEXT:])


def create_marker(root: Store, marker: Marker) -> Marker:
    """Store ``marker`` unless the job has one already; return the stored marker."""
    try:
        root.create(_key(marker.job), marker.canonical())
    except AlreadyExists:
        return read_marker(root, marker.job) or create_marker(root, marker)
    return marker


def read_marker(root: Store, job: str) -> Marker | None:
    """The marker of ``job``; ``None`` if it has none: committed, or never submitted. Raises ``SpecError``."""
    try:
        data = root.get(_key(job), MAX_MARKER_BYTES)
    except ObjectMissing:
        return None
    return validate(Marker, read_json(data, field=_key(job), error=SpecError), field=_key(job), error=SpecError)


def change_marker(root: Store, job: str, change: Callable[[Marker], Marker]) -> Marker | None:
    """Change the marker by compare-and-swap; return the new marker, ``None`` if there is none."""
    for _ in range(_TRIES):
        info = root.head(_key(job))
        marker = read_marker(root, job)
        if info is None or marker is None:
            return None
        changed = change(marker)
        if changed == marker:
            return marker
        try:
            root.replace(_key(job), changed.canonical(), info.etag)
        except (Changed, ObjectMissing):
            continue
        return changed
    raise StoreUnavailable(
        _key(job), "a marker without concurrent changes", f"changes by other processes in {_TRIES} attempts"
    )


def set_intent(root: Store, job: str, intent: Intent, error: str = "") -> Marker | None:
    """Set the intent of a build; return the new marker, ``None`` if there is none."""
    return change_marker(
        root, job, lambda marker: marker.model_copy(update={"intent": intent, "error": error[:MAX_TEXT]})
    )


def reopen_marker(root: Store, job: str, **update: object) -> Marker | None:
    """Set the intent to ``open`` and clear all failures; return the new marker, ``None`` if there is none."""
    cleared = {"intent": "open", "error": "", "dead": (), "missing": (), "missing_shards": 0}
    return change_marker(root, job, lambda marker: marker.model_copy(update=cleared | update))


def delete_marker(root: Store, job: str) -> None:
    """Delete the marker of a committed build."""
    root.delete(_key(job))


def read_markers(root: Store) -> Iterator[Marker]:
    """The markers of all unfinished builds. A damaged marker is skipped with a warning."""
    for job, _ in list_markers(root):
        if marker := try_read_marker(root, job):
            yield marker


def list_markers(root: Store) -> Iterator[tuple[str, ObjectInfo]]:
    """The jobs that have a marker, with the marker's object info, ascending; the markers are not read."""
    for info in sorted(root.list(_FOLDER), key=lambda info: info.key):
        yield info.key.removeprefix(_FOLDER).removesuffix(".json"), info


def try_read_marker(root: Store, job: str) -> Marker | None:
    """As ``read_marker``, but ``None`` with a warning for a damaged marker."""
    try:
        return read_marker(root, job)
    except SpecError as damaged:
        log.warning("%s/%s is not a valid marker: %s", root.url, _key(job), damaged)
        return None


def ranges(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as ranges, ends included; at most the first ``MAX_RANGES`` ranges."""
    result: list[tuple[int, int]] = []
    for number in numbers:
        if result and result[-1][1] == number - 1:
            result[-1] = (result[-1][0], number)
        elif len(result) == MAX_RANGES:
            break
        else:
            result.append((number, number))
    return tuple(result)


def _key(job: str) -> str:
    return f"{_FOLDER}{job}.json"
