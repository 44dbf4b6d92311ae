"""The three stores behind one fixture; and a worker process without Celery around it, on a real Redis."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from generator.store import Store, open_store
from tests.bundles import tiny_bundle
from tests.servers import RedisServer
from tests.service import Bench


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind, below a prefix."""
    if request.param == "memory":
        return open_store(f"memory://space-{uuid.uuid4().hex}/some/prefix")
    if request.param == "local":
        return open_store(str(tmp_path / "some" / "prefix"))
    bucket = request.getfixturevalue("bucket")
    return open_store(f"{bucket}/some/prefix", request.getfixturevalue("s3_settings"))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def bench(server: RedisServer, bundle: Path, tmp_path: Path) -> Bench:
    return Bench(server, bundle, tmp_path)


@pytest.fixture(autouse=True)
def nothing_is_run_or_written_outside(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path.parent / "escaped").exists()
