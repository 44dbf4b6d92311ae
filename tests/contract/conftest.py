"""The three stores behind one fixture."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from generator.store import Store, open_store


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind, below a prefix."""
    if request.param == "memory":
        return open_store(f"memory://space-{uuid.uuid4().hex}/some/prefix")
    if request.param == "local":
        return open_store(str(tmp_path / "some" / "prefix"))
    bucket = request.getfixturevalue("bucket")
    return open_store(f"{bucket}/some/prefix", request.getfixturevalue("s3_settings"))
