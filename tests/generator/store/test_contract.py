"""One contract, three stores: the same promises hold in memory, in a directory, and over HTTP."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from generator.store import S3Settings, Store, open_store
from generator.testing import StoreContract, check_states


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


def test_random_operations_with_interrupted_writers(store: Store) -> None:
    counts = check_states(store, examples=3 if store.url.startswith("s3:") else 10)
    assert counts["steps"] > 20
