"""Fixtures: a build that was started in one environment, and workers of this and of a second environment."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from generator.production.commit import BuildLocation, begin_build, open_epoch
from generator.production.commit.epochs import fix_environment
from generator.store import Store, open_store
from tests.support.epochs import NEW, OLD, SMALL, EpochWorker


@pytest.fixture
def kind() -> str:
    """The kind of store that holds the build; laws that depend on conditional writes are tested on all kinds."""
    return "memory"


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if kind == "memory":
        return open_store(f"memory://epochs-{uuid.uuid4().hex}")
    if kind == "local":
        return open_store(str(tmp_path))
    return open_store(request.getfixturevalue("bucket"), request.getfixturevalue("s3_settings"))


@pytest.fixture
def location(store: Store) -> BuildLocation:
    """A build of three shards that was started in the environment ``OLD``."""
    spec = SMALL.spec("memory://unused")
    found = BuildLocation(store.at("small"), "small", spec.recipe, spec.recipe.canonical())
    begin_build(found)
    fix_environment(found.store, OLD)
    return found


@pytest.fixture
def old(location: BuildLocation) -> EpochWorker:
    return EpochWorker(location, OLD)


@pytest.fixture
def new(location: BuildLocation) -> EpochWorker:
    return EpochWorker(location, NEW, mark=b"n")


@pytest.fixture
def half() -> bool:
    """Whether the old worker died between archive and receipt of shard 1, before the second epoch was opened."""
    return False


@pytest.fixture
def moved(old: EpochWorker, half: bool) -> BuildLocation:
    """``location`` in its second epoch, whose environment is ``NEW``."""
    if half:
        old.write_without_receipt(1)
    open_epoch(old.location.store)
    fix_environment(old.location.store, NEW)
    return old.location
