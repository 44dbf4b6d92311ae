"""Writes of the commit protocol: recipe first, then shards with receipts, manifest last; all writes are conditional.

Every object is created at most once. A writer that finds it there compares digests: equal is success, different is a
``BuildConflict``. Only objects that a worker of an earlier epoch left without a receipt are replaced
(``generator.production.commit.takeover``). Readers see nothing before the manifest exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from generator.drafts.first_submission import fix_published
from generator.errors import BuildConflict, DatasetError, EnvironmentMismatch, IntegrityError, ObjectMissing
from generator.production.commit.epochs import Epoch, current_epoch, read_environments
from generator.production.commit.epochs import fix_environment as fix_newest_environment
from generator.production.commit.takeover import RESERVATION_BYTES, Reservation, read_receipt_or_reservation, take_over
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import (
    INDEX_KEY,
    MANIFEST_KEY,
    MAX_EXTRA_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_RECIPE_BYTES,
    RECIPE_KEY,
    Manifest,
    Receipt,
    StoredFile,
    code_key,
    parse_manifest,
    receipt_key,
)
from generator.spec.canonical import canonical_json, digest_of, read_json, validate
from generator.spec.recipe import JobSpec, Recipe, build_id_of, build_prefix
from generator.store import S3Settings, open_store
from generator.store.base import Store
from generator.store.put_once import put_once

_BUILD_ID = re.compile(r"[0-9a-f]{20}")
_RECEIPT_KEY = re.compile(r"receipts/(\d{6})\.json")


@dataclass(frozen=True)
class BuildLocation:
    """One build at one destination: the store at the build's prefix, and the recipe as it is stored.

    ``code_objects``: codes that the recipe names by their digests, as far as they are at hand; ``begin_build`` stores
    them. ``dataset``: the store at the dataset's prefix, for a build that is to begin.
    """

    store: Store
    name: str
    recipe: Recipe
    recipe_bytes: bytes
    code_objects: Mapping[str, bytes] = field(default_factory=dict)
    dataset: Store | None = None

    @cached_property
    def recipe_digest(self) -> str:
        return digest_of(self.recipe_bytes)

    @property
    def build_id(self) -> str:
        return build_id_of(self.recipe_digest)

    @property
    def url(self) -> str:
        return self.store.url

    @property
    def marked_build(self) -> str | None:
        """The build id that the mark of each image names; ``None`` in builds of earlier releases."""
        return None if self.recipe.published is None else self.build_id


@dataclass(frozen=True)
class FinishedShard:
    """A finished shard in memory: the bytes of its files, and the receipt that names them. ``sidecars``: by key."""

    archive: bytes
    table: bytes
    receipt: Receipt
    sidecars: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        """All files by key, in the order in which they are stored."""
        return {self.receipt.shard.key: self.archive, **self.sidecars, self.receipt.table.key: self.table}


def locate_build(spec: JobSpec, s3: S3Settings | None = None) -> BuildLocation:
    """The location of the build of ``spec``. Nothing is read or written."""
    destination = open_store(spec.order.destination, s3)
    store = destination.at(build_prefix(spec.order.name, spec.build_id))
    dataset = destination.at(spec.order.name)
    return BuildLocation(store, spec.order.name, spec.recipe, spec.recipe.canonical(), spec.code_objects, dataset)


def read_build_location(store: Store, name: str) -> BuildLocation:
    """The location of the build at ``store``, with its stored recipe. Raises ``DatasetError``."""
    try:
        data = store.get(RECIPE_KEY, MAX_RECIPE_BYTES)
    except ObjectMissing as missing:
        raise DatasetError("build", f"a build with a {RECIPE_KEY}", f"none at {store.url}") from missing
    document = read_json(data, field=RECIPE_KEY, error=DatasetError)
    location = BuildLocation(store, name, validate(Recipe, document, field=RECIPE_KEY, error=DatasetError), data)
    build_id = store.url.rpartition("/builds/")[2]
    if _BUILD_ID.fullmatch(build_id) and build_id != location.build_id:
        raise DatasetError(
            f"{store.url}/{RECIPE_KEY}", f"the recipe of build {build_id}", f"that of build {location.build_id}"
        )
    return location


def begin_build(location: BuildLocation) -> None:
    """Store the recipe, unless it is stored already, after the codes that it names by their digests.

    Raises ``BuildConflict`` if another recipe is stored there, ``DatasetError`` if a code is neither at hand nor
    stored, ``SpecError`` if the recipe was submitted before with another day of publication.
    """
    if location.dataset is not None:
        fix_published(location.dataset, location.recipe)
    for digest in location.recipe.stored_codes:
        key = code_key(digest)
        if digest in location.code_objects:
            put_once(location.store, key, location.code_objects[digest])
        elif location.store.head(key) is None:
            raise DatasetError(
                key, "the code that the recipe names", f"none at {location.url}", "submit the draft again"
            )
    try:
        put_once(location.store, RECIPE_KEY, location.recipe_bytes)
    except BuildConflict as conflict:
        raise BuildConflict(
            "destination",
            f"an empty prefix or the build of recipe {location.recipe_digest}",
            f"the build of another recipe at {location.url} (recipe {conflict.got})",
            "choose another name or destination",
        ) from conflict


def fix_environment(location: BuildLocation, ours: Environment) -> Epoch:
    """Make ``ours`` the environment of the build's newest epoch if it has none. Raises ``EnvironmentMismatch``."""
    return fix_newest_environment(location.store, ours)


def publish_shard(location: BuildLocation, shard: FinishedShard) -> Receipt:
    """Store a shard, data first, receipt last. Returns the stored receipt: ours, or that of another epoch's worker.

    Objects that a dead writer left are adopted if they are equal. If they differ, they are replaced if a later epoch
    has begun, and are a ``BuildConflict`` otherwise. Raises ``EnvironmentMismatch`` if the later epoch is not ours.
    """
    receipt = shard.receipt
    try:
        for key, data in shard.files.items():
            put_once(location.store, key, data)
        put_once(location.store, receipt_key(receipt.number), receipt.canonical())
    except BuildConflict as conflict:
        return _resolve_conflict(location, shard, conflict)
    return receipt


def is_shard_finished(location: BuildLocation, number: int) -> bool:
    """Whether the shard has a receipt."""
    info = location.store.head(receipt_key(number))
    return info is not None and info.size != RESERVATION_BYTES


def finished_shards(location: BuildLocation) -> set[int]:
    """The shards that have a receipt."""
    listed = (info for info in location.store.list("receipts/") if info.size != RESERVATION_BYTES)
    found = (_RECEIPT_KEY.fullmatch(info.key) for info in listed)
    return {int(match[1]) for match in found if match}


def read_receipt(location: BuildLocation, number: int) -> Receipt:
    """A stored receipt, checked against the recipe. Raises ``ObjectMissing``, ``DatasetError``, ``IntegrityError``."""
    key, receipt = receipt_key(number), read_receipt_or_reservation(location.store, number)
    if isinstance(receipt, Reservation):
        raise ObjectMissing(f"{location.url}/{key}", "a receipt", "a reservation: the shard is not finished")
    if receipt.recipe != location.recipe_digest:
        raise IntegrityError(key, f"shard {number} of recipe {location.recipe_digest}", receipt.recipe)
    return receipt


def find_manifest(location: BuildLocation) -> Manifest | None:
    """The manifest, if this build is committed."""
    try:
        return parse_manifest(location.store.get(MANIFEST_KEY, MAX_MANIFEST_BYTES), location.store)
    except ObjectMissing:
        return None


def commit(location: BuildLocation, manifest: Manifest, extras: Mapping[str, bytes]) -> Manifest:
    """Store the extras, then the manifest that lists them; from then on the build exists for readers.

    Extras depend slightly on the environment. Extras that a worker of an earlier epoch stored are kept, so that two
    workers that commit at once write the same manifest.
    """
    stored = {key: _store_extra(location, key, data) for key, data in extras.items()}
    files = tuple(StoredFile(key=key, digest=digest_of(data), size=len(data)) for key, data in stored.items())
    complete = manifest.model_copy(update={"extras": files})
    put_once(location.store, MANIFEST_KEY, complete.canonical())
    return complete


def write_run_record(location: BuildLocation, lease: str, facts: Mapping[str, Any]) -> None:
    """Store the run record of one lease at ``runs/<lease>.json``, outside the commit."""
    location.store.put(f"runs/{lease}.json", canonical_json(dict(facts)))


def _resolve_conflict(location: BuildLocation, shard: FinishedShard, conflict: BuildConflict) -> Receipt:
    """Other bytes than ours are stored: accept another worker's receipt, take the shard over, or raise."""
    ours = shard.receipt
    stored = _find_receipt(location, ours.number)
    if stored is None or isinstance(stored, Reservation):
        epoch = current_epoch(location.store)
        if epoch.environment is None or epoch.environment.digest != ours.environment:
            raise EnvironmentMismatch(
                "environment",
                f"that of epoch {epoch.number} of this build",
                ours.environment,
                "a later epoch has begun",
            ) from conflict
        if epoch.number > 0:
            stored = take_over(location.store, ours, shard.files)
            if stored == ours:
                return ours
    epochs = read_environments(location.store)
    if isinstance(stored, Receipt) and stored.environment != ours.environment and stored.environment in epochs:
        return stored
    raise BuildConflict(
        conflict.field,
        f"{conflict.expected}, as made in environment {ours.environment}",
        f"{conflict.got}, stored before, under this build's environments {', '.join(epochs) or '(none fixed)'}",
        "one of the two writers is not deterministic; keep both for comparison and build under a new revision",
    ) from conflict


def _store_extra(location: BuildLocation, key: str, data: bytes) -> bytes:
    try:
        put_once(location.store, key, data)
    except BuildConflict:
        if current_epoch(location.store).number == 0:
            raise
        return location.store.get(key, MAX_MANIFEST_BYTES if key == INDEX_KEY else MAX_EXTRA_BYTES)
    return data


def _find_receipt(location: BuildLocation, number: int) -> Receipt | Reservation | None:
    try:
        return read_receipt_or_reservation(location.store, number)
    except ObjectMissing:
        return None
