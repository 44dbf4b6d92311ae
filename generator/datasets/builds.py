"""Resolve a URL to a committed build and its manifest. Every reader starts here. Imports no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from generator.errors import DatasetError, ObjectMissing
from generator.production.provenance.manifest import (
    MANIFEST_KEY,
    MAX_MANIFEST_BYTES,
    RECIPE_KEY,
    Manifest,
    parse_manifest,
)
from generator.spec.canonical import read_json, validate
from generator.spec.recipe import BuildId
from generator.store import S3Settings, open_store
from generator.store.base import Store

LATEST_KEY = "latest.json"
MAX_LATEST_BYTES = 4 * 2**20

_BUILDS_PREFIX = "builds/"
_MAX_LISTED = 10


class Latest(BaseModel):
    """The fields of ``latest.json`` that readers need; ``generator.datasets.promotion.DatasetState`` has all of them.

    ``build``: the build that readers of the dataset get; ``None`` before the first promotion. Until then readers get no
    build if ``by_promotion`` is set, else the only committed one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    build: BuildId | None
    by_promotion: bool = True


def resolve_build(url: str, s3: S3Settings | None = None) -> tuple[Store, Manifest]:
    """The committed build that ``url`` refers to: a store rooted at the build's prefix, and the manifest.

    ``url`` is a build (``.../builds/<id>``) or a dataset (``<destination>/<name>``). A dataset resolves to the build
    that ``latest.json`` names or, without ``latest.json``, to its only committed build. Raises ``DatasetError`` if no
    build is found.
    """
    store = find_build(url, s3)
    return store, read_manifest(store)


def find_build(url: str, s3: S3Settings | None = None) -> Store:
    """Like ``resolve_build``, but the manifest is not read: it exists, but may be damaged."""
    store = open_store(url, s3)
    if is_committed(store):
        return store
    if store.head(RECIPE_KEY) is not None:
        raise DatasetError(
            "dataset",
            "a committed build",
            f"a build that is not finished ({store.url} has no {MANIFEST_KEY})",
            "submit or generate the same spec again to finish it",
        )
    promoted = _read_promoted(store)
    return build_store(store, promoted) if promoted else _only_committed_build(store)


def find_any_build(url: str, s3: S3Settings | None = None) -> Store:
    """Like ``find_build``, but accepts an unfinished build: at ``url`` itself, or the only build of a dataset."""
    store = open_store(url, s3)
    if store.head(RECIPE_KEY) is not None:
        return store
    builds = list_builds(store)
    return build_store(store, builds[0]) if len(builds) == 1 else find_build(url, s3)


def read_manifest(store: Store) -> Manifest:
    """The manifest of a build. ``store`` is rooted at the build's prefix. Raises ``DatasetError``."""
    try:
        data = store.get(MANIFEST_KEY, MAX_MANIFEST_BYTES)
    except ObjectMissing as missing:
        raise DatasetError("dataset", f"a committed build (with {MANIFEST_KEY})", f"none at {store.url}") from missing
    return parse_manifest(data, store)


def build_store(dataset: Store, build_id: str) -> Store:
    """A store rooted at the prefix of one build of the dataset."""
    return dataset.at(f"{_BUILDS_PREFIX}{build_id}")


def list_builds(dataset: Store) -> list[str]:
    """The names of all builds of a dataset, committed or not, ascending."""
    return list(dataset.children(_BUILDS_PREFIX))


def check_dataset(store: Store) -> None:
    """Raise ``DatasetError`` unless ``store`` holds a dataset, promoted or not."""
    if not list_builds(store) and store.head(LATEST_KEY) is None:
        raise DatasetError("dataset", "the URL of a dataset", f"none at {store.url}", _children_hint(store))


def is_committed(build: Store) -> bool:
    """Whether the build is committed (has a manifest). ``build`` is rooted at the build's prefix."""
    return build.head(MANIFEST_KEY) is not None


def _read_promoted(store: Store) -> str | None:
    try:
        data = store.get(LATEST_KEY, MAX_LATEST_BYTES)
    except ObjectMissing:
        return None
    latest = validate(
        Latest, read_json(data, field=LATEST_KEY, error=DatasetError), field=LATEST_KEY, error=DatasetError
    )
    if latest.build is None:
        if latest.by_promotion:
            hint = "wait for the first build that passes its gates, or open a build by its own URL"
            raise DatasetError("dataset", "a promoted build", f"none yet at {store.url}", hint)
        return None
    if not is_committed(build_store(store, latest.build)):
        got = f"build {latest.build}, which {store.url} does not hold"
        raise DatasetError(LATEST_KEY, "the id of a committed build", got, "promote another build")
    return latest.build


def _only_committed_build(store: Store) -> Store:
    builds = list_builds(store)
    ready = [build for build in builds if is_committed(build_store(store, build))]
    if len(ready) == 1:
        return build_store(store, ready[0])
    if ready:
        got = f"{len(ready)} committed builds at {store.url}: {_join_names(ready)}"
        hint = f"open one of them ({store.url}/{_BUILDS_PREFIX}{ready[0]}), or promote one"
        raise DatasetError("dataset", f"one committed build, or {LATEST_KEY} to choose one", got, hint)
    if builds:
        got = f"only unfinished builds at {store.url}: {_join_names(builds)}"
        raise DatasetError("dataset", "a committed build", got, "wait for the job, or run the same spec again")
    raise DatasetError(
        "dataset", "the URL of a dataset or of a build", f"neither at {store.url}", _children_hint(store)
    )


def _children_hint(store: Store) -> str:
    below = list(store.children())
    return f"the names below it: {_join_names(below)}" if below else ""


def _join_names(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
