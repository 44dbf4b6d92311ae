"""The commit protocol: recipe first, then shards with receipts, the manifest last; every write a conditional one.

Whoever writes, however often, whatever died before: an object is created once, and whoever finds it there already
compares digests. Equal is success, unequal is a loud conflict. Readers see nothing before the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from generator.canonical import canonical_json, digest_of, read_json, validated
from generator.errors import BuildConflict, DatasetError, EnvironmentMismatch, IntegrityError, ObjectMissing
from generator.provenance.environment import Environment, differences
from generator.provenance.manifest import (
    ENVIRONMENT_KEY,
    MANIFEST_KEY,
    RECIPE_KEY,
    Manifest,
    Receipt,
    StoredFile,
    build_prefix,
    parse_manifest,
    receipt_key,
)
from generator.spec import JobSpec, Recipe, build_id_of
from generator.store import S3Settings, open_store
from generator.store.base import Store
from generator.store.once import put_once

_RECEIPT = re.compile(r"receipts/(\d{6})\.json")


@dataclass(frozen=True)
class BuildPlace:
    """One build in one place: the store seen from the build's prefix, and the recipe as it is stored."""

    store: Store
    name: str
    recipe: Recipe
    recipe_bytes: bytes

    @property
    def recipe_digest(self) -> str:
        return digest_of(self.recipe_bytes)

    @property
    def build_id(self) -> str:
        return build_id_of(self.recipe_digest)

    @property
    def url(self) -> str:
        return self.store.url


@dataclass(frozen=True)
class MadeShard:
    """A finished shard in memory: the bytes of its archive and of its table, and the receipt that names them."""

    shard: bytes
    table: bytes
    receipt: Receipt


def place_of(spec: JobSpec, s3: S3Settings | None = None) -> BuildPlace:
    """Where the build of ``spec`` belongs. Nothing is read or written."""
    destination = open_store(spec.order.destination, s3)
    store = destination.at(build_prefix(spec.order.name, spec.build_id))
    return BuildPlace(store, spec.order.name, spec.recipe, spec.recipe.canonical())


def found_place(store: Store, name: str) -> BuildPlace:
    """The build whose prefix ``store`` is seen from, by its stored recipe. Raises ``DatasetError``."""
    try:
        data = store.get(RECIPE_KEY)
    except ObjectMissing as missing:
        raise DatasetError("build", f"a build with a {RECIPE_KEY}", f"none at {store.url}") from missing
    document = read_json(data, field=RECIPE_KEY, error=DatasetError)
    return BuildPlace(store, name, validated(Recipe, document, field=RECIPE_KEY, error=DatasetError), data)


def begin(place: BuildPlace) -> None:
    """Store the recipe, or find it stored already. Raises ``BuildConflict`` where another recipe lies there."""
    try:
        put_once(place.store, RECIPE_KEY, place.recipe_bytes)
    except BuildConflict as conflict:
        raise BuildConflict(
            "destination",
            f"a free place or the build of recipe {place.recipe_digest}",
            f"a build of another spec at {place.url} (recipe {conflict.got})",
            "choose another name or destination",
        ) from conflict


def fix_environment(place: BuildPlace, ours: Environment) -> None:
    """Make ``ours`` the environment of this build, or find it so. Raises ``EnvironmentMismatch``."""
    try:
        put_once(place.store, ENVIRONMENT_KEY, ours.canonical())
    except BuildConflict as conflict:
        theirs = fixed_environment(place)
        raise EnvironmentMismatch(
            "environment",
            f"the environment that the first worker of this build fixed ({theirs.digest})",
            f"this worker's, with {differences(ours, theirs)}",
            "run a worker with the same versions and device kind, or build under a new revision",
        ) from conflict


def fixed_environment(place: BuildPlace) -> Environment:
    """The environment of a build that has begun to write shards. Raises ``ObjectMissing`` before that."""
    document = read_json(place.store.get(ENVIRONMENT_KEY), field=ENVIRONMENT_KEY, error=DatasetError)
    return validated(Environment, document, field=ENVIRONMENT_KEY, error=DatasetError)


def publish_shard(place: BuildPlace, made: MadeShard) -> None:
    """Data first, receipt last. What a dead writer left is adopted if it is equal; else ``BuildConflict``."""
    receipt = made.receipt
    try:
        put_once(place.store, receipt.shard.key, made.shard)
        put_once(place.store, receipt.table.key, made.table)
        put_once(place.store, receipt_key(receipt.number), receipt.canonical())
    except BuildConflict as conflict:
        raise BuildConflict(
            conflict.field,
            f"{conflict.expected}, as made in environment {receipt.environment}",
            f"{conflict.got}, written before under this build's fixed environment {_stored_environment(place)}",
            "one of the two is not deterministic; keep both for comparison and build under a new revision",
        ) from conflict


def finished_numbers(place: BuildPlace) -> set[int]:
    """The shards that have a receipt."""
    found = (_RECEIPT.fullmatch(info.key) for info in place.store.list("receipts/"))
    return {int(match[1]) for match in found if match}


def read_receipt(place: BuildPlace, number: int) -> Receipt:
    """A stored receipt, checked against the recipe. Raises ``IntegrityError``."""
    key = receipt_key(number)
    document = read_json(place.store.get(key), field=key, error=DatasetError)
    receipt = validated(Receipt, document, field=key, error=DatasetError)
    if (receipt.number, receipt.recipe) != (number, place.recipe_digest):
        raise IntegrityError(key, f"shard {number} of recipe {place.recipe_digest}", receipt.recipe)
    return receipt


def committed(place: BuildPlace) -> Manifest | None:
    """The manifest, if this build is committed."""
    try:
        return parse_manifest(place.store.get(MANIFEST_KEY))
    except ObjectMissing:
        return None


def commit(place: BuildPlace, manifest: Manifest, extras: Mapping[str, bytes]) -> Manifest:
    """Store the extras, then the manifest that lists them: from here on the build exists for readers."""
    for key, data in extras.items():
        put_once(place.store, key, data)
    files = tuple(StoredFile(key=key, digest=digest_of(data), size=len(data)) for key, data in extras.items())
    whole = manifest.model_copy(update={"extras": files})
    put_once(place.store, MANIFEST_KEY, whole.canonical())
    return whole


def record_run(place: BuildPlace, lease: str, facts: Mapping[str, Any]) -> None:
    """Wall-clock facts of one lease, outside the commit: ``runs/<lease>.json``."""
    place.store.put(f"runs/{lease}.json", canonical_json(dict(facts)))


def _stored_environment(place: BuildPlace) -> str:
    try:
        return fixed_environment(place).digest
    except ObjectMissing:
        return "(none fixed)"
