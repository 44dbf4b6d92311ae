"""One contract, three stores: the same promises hold in memory, in a directory, and over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from generator.store import S3Settings, Store, open_store
from generator.testing import StoreContract, check_states
from tests.support.missing_bucket import assert_named_by_every_operation
from tests.support.servers import SeaweedServer


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return open_store(f"memory://space-{uuid.uuid4().hex}/some/prefix")


class TestLocal(StoreContract):
    page = 100

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(str(tmp_path / "some" / "prefix"))


class TestS3(StoreContract):
    page = 100  # what follows the first page of S3 is asked for in test_s3_faults.py

    @pytest.fixture
    def store(self, bucket: str, s3_settings: S3Settings) -> Store:
        self._settings = s3_settings
        return open_store(f"{bucket}/some/prefix", s3_settings)

    def open(self, url: str) -> Store:
        return open_store(url, self._settings)


@pytest.fixture(scope="module")
def service() -> Iterator[SeaweedServer]:
    server = SeaweedServer()
    yield server
    server.stop()


@pytest.mark.server
class TestSeaweed(StoreContract):
    """The same on a whole S3 service, which lists and deletes in ways of its own."""

    page = 100

    @pytest.fixture
    def store(self, service: SeaweedServer) -> Store:
        self._settings = service.settings
        return open_store(f"{service.make_bucket(f'bucket-{uuid.uuid4().hex}')}/some/prefix", service.settings)

    def open(self, url: str) -> Store:
        return open_store(url, self._settings)

    def test_random_operations_with_interrupted_writers(self, store: Store) -> None:
        assert check_states(store, examples=3)["steps"] > 20

    def test_a_missing_bucket_is_named_by_every_operation(self, service: SeaweedServer) -> None:
        assert_named_by_every_operation(open_store("s3://not-made-yet/some/prefix", service.settings))


@pytest.mark.slow
def test_random_operations_with_interrupted_writers(store: Store) -> None:
    counts = check_states(store, examples=3 if store.url.startswith("s3:") else 10)
    assert counts["steps"] > 20
