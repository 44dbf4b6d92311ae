"""A build that was begun in one environment, and the workers that write it before and after that one was left."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from generator.production.commit import BuildLocation, begin, open_epoch
from generator.production.commit.epochs import fix_environment
from generator.store import Store, open_store
from tests.support.epochs import NEW, OLD, SMALL, EpochWorker


@pytest.fixture
def kind() -> str:
    """Where the build lies; the laws that rest on a store's conditional writes are tried on all of them."""
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
    """A build of three shards that has begun in the environment ``OLD``."""
    spec = SMALL.spec("memory://unused")
    found = BuildLocation(store.at("small"), "small", spec.recipe, spec.recipe.canonical())
    begin(found)
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
    """Whether the old worker died between the archive and the receipt of shard 1, before its environment was left."""
    return False


@pytest.fixture
def moved(old: EpochWorker, half: bool) -> BuildLocation:
    """``location`` in its second epoch, which ``NEW`` has begun."""
    if half:
        old.write_without_receipt(1)
    open_epoch(old.location.store)
    fix_environment(old.location.store, NEW)
    return old.location
